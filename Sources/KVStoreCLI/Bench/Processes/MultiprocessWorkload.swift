import KVStore

/// Several processes on one store at the same time, as tensor-parallel workers are.
struct MultiprocessWorkload: Workload {
  let name = "multiprocess"
  let pageCacheState = "bypassed where O_DIRECT works"

  private static let processCounts = [1, 2, 4]

  func run(_ bench: Bench) throws {
    let blockCount = max(1, bench.options.blockCount / 4)
    var series: [WorkerRole: [Int: Series]] = [:]
    try bench.forEachRun("multiprocess") { _ in
      for processCount in Self.processCounts {
        let path = bench.freshStorePath()
        for role in [WorkerRole.offload, .restore, .match] {
          bench.show("\(role.rawValue), \(processCount) processes")
          let times = try runWorkers(bench, path, role, processCount, blockCount)
          let slowest = times.max() ?? 0
          let byteCount = processCount * blockCount * bench.options.blockBytes.byteCount
          let value =
            role == .match ? Double(slowest) : gigabytesPerSecond(byteCount, slowest)
          series[role, default: [:]][processCount, default: Series()].values.append(value)
        }
        try bench.remove(path)
      }
    }
    let names: [(WorkerRole, String, String)] = [
      (.offload, "offload, the final flush counted", "GB/s"),
      (.restore, "restore from disk", "GB/s"),
      (.match, "warm match of \(counted(blockCount, "block")), slowest process", "ns"),
    ]
    for (role, text, unit) in names {
      let alone = series[role]?[1]?.median ?? 0
      for processCount in Self.processCounts {
        bench.add(
          "\(processCount == 1 ? "1 process" : "\(processCount) processes"): \(text)",
          series[role]?[processCount] ?? Series(),
          unit: unit,
          limit: Limit(name: "1 process", value: alone),
          with: ["processes": .integer(processCount), "blocks": .integer(blockCount)]
        )
      }
    }
  }

  /// Starts the processes, sets them going at once, and returns what each took.
  private func runWorkers(
    _ bench: Bench,
    _ path: String,
    _ role: WorkerRole,
    _ processCount: Int,
    _ blockCount: Int
  ) throws -> [UInt64] {
    let options = bench.options
    let block =
      options.model.map { ["--model", $0.rawValue] }
      ?? ["--block-bytes", "\(options.blockBytes.byteCount)"]
    let workers = try (0..<processCount).map { index in
      try ChildProcess(
        resolvedPath("/proc/self/exe"),
        name: KVStoreProgram.name,
        ["bench", "worker", "--store", path, "--role", role.rawValue, "--index", "\(index)"]
          + ["--blocks", "\(blockCount)", "--tokens-per-block", "\(options.tokensPerBlock)"]
          + ["--total", "\(options.total.byteCount)", "--seed", "\(options.seed)"]
          + ["--eviction-policy", options.evictionPolicy.rawValue] + block
      )
    }
    for worker in workers {
      guard try worker.readLine() == "ready" else { throw CommandFailure("a process failed") }
    }
    for worker in workers { try worker.writeLine("go") }
    let times = try workers.map { worker in
      guard let time = UInt64(try worker.readLine()) else {
        throw CommandFailure("a process printed no time")
      }
      return time
    }
    for worker in workers { try worker.waitForEnd() }
    return times
  }
}
