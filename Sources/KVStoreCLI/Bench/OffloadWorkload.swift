import KVCore
import KVStore

/// A chain of blocks into the store, until it is durable.
struct OffloadWorkload: Workload {
  let name = "offload"
  let pageCacheState = "bypassed where O_DIRECT works"

  /// What one run gave, apart from its speed.
  private struct Costs {
    var syncs = Series()
    var cpuSeconds = Series()
    var written = Series()
    var used = Series()
  }

  func run(_ bench: Bench) throws {
    let memory = try BlockMemory(
      regionByteCounts: bench.options.regionByteCounts,
      blockCount: bench.options.blockCount
    )
    memory.fill(seed: bench.options.seed)
    var limits = try DiskLimits(bench)
    var fresh = Series()
    var reused = Series()
    var costs = Costs()
    var ioPath = IOPath.none
    try bench.forEachRun("offload") { run in
      try limits.measureWrites()
      let path = bench.freshStorePath()
      let store = try Store.open(bench.configuration(path))
      defer { closeQuietly(store) }
      let namespace = try store.openNamespace(bench.identity)
      let seed = bench.options.seed &+ UInt64(run) &* 2
      let chains = [seed, seed &+ 1].map {
        BlockChain(memory, tokensPerBlock: bench.options.tokensPerBlock, seed: $0)
      }
      try measure(chains[0], in: namespace, of: store, &fresh, &costs)
      costs.used.values.append(
        Double(try bench.allocatedBytes(of: path)) / Double(memory.byteCount)
      )
      let empty = TokenMemory(count: 0, seed: 0)
      _ = try empty.withPrompt(0) { try namespace.forget($0) }
      var ignored = Costs()
      try measure(chains[1], in: namespace, of: store, &reused, &ignored)
      ioPath = try store.statistics().ioPath
      // With --keep the last run's store stays.
      if !bench.options.keep || run + 1 < bench.options.runs { try bench.remove(path) }
    }
    try limits.remove()
    let path = ["io_path": Parameter.text(ioPath.text)]
    bench.add(
      "throughput, fresh slot files, \(ioPath.text)",
      fresh,
      unit: "GB/s",
      limit: limits.best(.freshWrite),
      with: path
    )
    bench.add(
      "throughput, reused slots, \(ioPath.text)",
      reused,
      unit: "GB/s",
      limit: limits.best(.overwrite),
      with: path
    )
    bench.add(
      "syncs, slot files and catalog",
      costs.syncs,
      unit: "/GiB"
    )
    bench.add(
      "CPU time",
      costs.cpuSeconds,
      unit: "s/GB"
    )
    bench.add(
      "written to disk ÷ payload",
      costs.written,
      unit: "×"
    )
    bench.add(
      "disk used ÷ payload",
      costs.used,
      unit: "×"
    )
  }

  private func measure(
    _ chain: BlockChain,
    in namespace: Namespace,
    of store: Store,
    _ series: inout Series,
    _ costs: inout Costs
  ) throws {
    let before = try store.statistics()
    let bytesBefore = processStorageBytes()
    let cpuBefore = processCPUNanoseconds()
    let time = try nanoseconds {
      try chain.offload(to: namespace, latencies: &series.latencies)
      try store.flushAll()
    }
    let byteCount = Double(chain.memory.byteCount)
    let cpuTime = processCPUNanoseconds() - cpuBefore
    let after = try store.statistics()
    series.values.append(gigabytesPerSecond(chain.memory.byteCount, time))
    costs.cpuSeconds.values.append(Double(cpuTime) / byteCount)
    let syncs = after.syncs - before.syncs + after.catalogCommits - before.catalogCommits
    costs.syncs.values.append(Double(syncs) / byteCount * Double(1 << 30))
    // The kernel's count has the catalog in it; the store's own has slot files only.
    let written =
      if let bytesBefore, let bytesAfter = processStorageBytes() {
        Double(bytesAfter.written - bytesBefore.written)
      } else {
        Double(after.diskBytesWritten - before.diskBytesWritten)
      }
    costs.written.values.append(written / byteCount)
  }
}

/// Closes a store whose fate does not matter any more.
func closeQuietly(_ store: Store) {
  do throws(StoreError) { try store.close() } catch
  { /* measured already, or a better error is on its way */  }
}
