/// About how much each workload writes to the disk, as the kernel counted it (/proc/self/io): in totals once, and for each run.
extension LimitsWorkload {
  func writtenByteCount(_ options: BenchOptions) -> Int { options.written(once: 1, eachRun: 6) }
}

extension OffloadWorkload {
  func writtenByteCount(_ options: BenchOptions) -> Int { options.written(once: 0, eachRun: 9) }
}

extension RestoreWorkload {
  func writtenByteCount(_ options: BenchOptions) -> Int { options.written(once: 2, eachRun: 0) }
}

extension LayerwiseWorkload {
  func writtenByteCount(_ options: BenchOptions) -> Int { options.written(once: 1, eachRun: 0) }
}

extension MixedWorkload {
  func writtenByteCount(_ options: BenchOptions) -> Int {
    // The offload beside goes on for as long as the restores take.
    options.written(once: 5, eachRun: 3) + options.runs << 30
  }
}

extension MatchWorkload {
  func writtenByteCount(_ options: BenchOptions) -> Int {
    // Pages of a catalog, each many times: the payload is 64 bytes.
    options.storedBlocks.counts.reduce(0) { $0 + (128 << 20) + $1 * (12 << 10) }
  }
}

extension ScatterWorkload {
  func writtenByteCount(_ options: BenchOptions) -> Int { options.written(once: 4, eachRun: 0) }
}

extension CAPIWorkload {
  func writtenByteCount(_ options: BenchOptions) -> Int { 64 << 20 }
}

extension MultiprocessWorkload {
  func writtenByteCount(_ options: BenchOptions) -> Int { options.written(once: 0, eachRun: 1.9) }
}

extension CompareWorkload {
  func writtenByteCount(_ options: BenchOptions) -> Int { options.written(once: 0, eachRun: 5) }
}

extension BenchOptions {
  fileprivate func written(once: Double, eachRun: Double) -> Int {
    Int(Double(total.byteCount) * (once + eachRun * Double(runs)))
  }
}
