import KVCore
import KVStore

/// A chain of blocks into the store, until it is durable.
struct OffloadWorkload: Workload {
  let name = "offload"
  let pageCacheState = "bypassed where O_DIRECT works"

  /// Chains of one run: files and the process's memory are new, then files only, then nothing is.
  private enum State: Int, CaseIterable {
    case newProcess, freshFiles, reusedSlots

    var title: String {
      switch self {
      case .newProcess: "fresh slot files, RAM touched for the first time"
      case .freshFiles: "fresh slot files"
      case .reusedSlots: "reused slots"
      }
    }
  }

  /// What the runs gave for one state.
  private struct Costs {
    var speed = Series()
    var syncs = Series()
    var cpuSeconds = Series()
    var written = Series()
  }

  func run(_ bench: Bench) throws {
    let memory = try BlockMemory(
      regionByteCounts: bench.options.regionByteCounts,
      blockCount: bench.options.blockCount
    )
    memory.fill(seed: bench.options.seed)
    var limits = try DiskLimits(bench)
    var costs = State.allCases.map { _ in Costs() }
    var used = Series()
    var ioPath = IOPath.none
    try bench.forEachRun("offload") { run in
      try limits.measureWrites()
      let path = bench.freshStorePath()
      let store = try Store.open(bench.configuration(path))
      defer { closeQuietly(store) }
      let namespace = try store.openNamespace(bench.identity)
      for state in State.allCases {
        let chain = BlockChain(
          memory,
          tokensPerBlock: bench.options.tokensPerBlock,
          seed: bench.options.seed &+ UInt64(run * State.allCases.count + state.rawValue)
        )
        if state == .reusedSlots {
          used.values.append(
            Double(try bench.allocatedBytes(of: path)) / Double(2 * memory.byteCount)
          )
          let empty = TokenMemory(count: 0, seed: 0)
          _ = try empty.withPrompt(0) { try namespace.forget($0) }
        }
        try measure(chain, in: namespace, of: store, &costs[state.rawValue])
      }
      ioPath = try store.statistics().ioPath
      // With --keep the last run's store stays.
      if !bench.options.keep || run + 1 < bench.options.runs { try bench.remove(path) }
    }
    try limits.remove()
    for state in State.allCases {
      bench.add(
        "throughput, \(state.title), \(ioPath.text)",
        costs[state.rawValue].speed,
        unit: "GB/s",
        limit: limits.best(state == .reusedSlots ? .overwrite : .freshWrite),
        with: ["io_path": Parameter.text(ioPath.text)]
      )
    }
    for state in State.allCases {
      bench.add("CPU time, \(state.title)", costs[state.rawValue].cpuSeconds, unit: "s/GB")
    }
    let fresh = costs[State.freshFiles.rawValue]
    bench.add("syncs, slot files and catalog", fresh.syncs, unit: "/GiB")
    bench.add("written to disk ÷ payload", fresh.written, unit: "×")
    bench.add("disk used ÷ payload", used, unit: "×")
  }

  private func measure(
    _ chain: BlockChain,
    in namespace: Namespace,
    of store: Store,
    _ costs: inout Costs
  ) throws {
    let before = try store.statistics()
    let bytesBefore = processStorageBytes()
    let cpuBefore = processCPUNanoseconds()
    let time = try nanoseconds {
      try chain.offload(to: namespace, latencies: &costs.speed.latencies)
      try store.flushAll()
    }
    let byteCount = Double(chain.memory.byteCount)
    let cpuTime = processCPUNanoseconds() - cpuBefore
    let after = try store.statistics()
    costs.speed.values.append(gigabytesPerSecond(chain.memory.byteCount, time))
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
