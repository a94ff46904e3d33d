import KVCore
import KVStore

/// A chain of blocks back from the arena, and from disk.
struct RestoreWorkload: Workload {
  let name = "restore"
  let pageCacheState = "dropped before every read from disk"

  func run(_ bench: Bench) throws {
    let options = bench.options
    let memory = try BlockMemory(
      regionByteCounts: options.regionByteCounts,
      blockCount: options.blockCount
    )
    memory.fill(seed: options.seed)
    let target = try BlockMemory(
      regionByteCounts: options.regionByteCounts,
      blockCount: options.blockCount
    )
    let chain = BlockChain(memory, tokensPerBlock: options.tokensPerBlock, seed: options.seed)
    let path = bench.freshStorePath()
    try measureHost(bench, chain, target, path)
    try measureDisk(bench, chain, target, path)
    if !options.keep { try bench.remove(path) }
  }

  // MARK: From RAM

  private func measureHost(
    _ bench: Bench,
    _ chain: BlockChain,
    _ target: BlockMemory,
    _ path: String
  ) throws {
    let store = try Store.open(bench.configuration(path, hostBytes: bench.wholeHostBytes))
    defer { closeQuietly(store) }
    let namespace = try store.openNamespace(bench.identity)
    var ignored: [UInt64] = []
    try chain.offload(to: namespace, latencies: &ignored)
    try store.flushAll()
    try chain.checkRestore(from: namespace, into: target)

    var whole = Series()
    var single = Series()
    var cpuSeconds = Series()
    var copies = Series()
    var singleCopies = Series()
    try bench.forEachRun("restore from RAM") { _ in
      let copyTime = nanoseconds { chain.memory.copy(chain.blocks, to: target) }
      copies.values.append(gigabytesPerSecond(target.byteCount, copyTime))
      let cpuBefore = processCPUNanoseconds()
      var result = TransferResult()
      let time = try nanoseconds {
        result = try chain.restore(chain.blocks, from: namespace, into: target)
      }
      guard result.hostBlockCount == chain.blocks.count else {
        throw CommandFailure(
          "only \(result.hostBlockCount) of \(chain.blocks.count) blocks were in RAM"
        )
      }
      whole.values.append(gigabytesPerSecond(target.byteCount, time))
      whole.latencies.append(time)
      cpuSeconds.values.append(
        Double(processCPUNanoseconds() - cpuBefore) / Double(target.byteCount)
      )
      try measureSingleCalls(chain, namespace, target, &single, &singleCopies)
    }
    bench.add(
      "host: throughput, one call",
      whole,
      unit: "GB/s",
      limit: Limit(name: "memcpy of the same blocks, 1 thread", value: copies.median)
    )
    bench.add(
      "host: CPU time",
      cpuSeconds,
      unit: "s/GB"
    )
    bench.add(
      "host: call for one block",
      single,
      unit: "ns",
      limit: Limit(name: "memcpy of the block", value: singleCopies.median)
    )
  }

  /// Every block on its own, by itself and by memcpy; the values are medians over the blocks.
  private func measureSingleCalls(
    _ chain: BlockChain,
    _ namespace: Namespace,
    _ target: BlockMemory,
    _ single: inout Series,
    _ copies: inout Series
  ) throws {
    var calls = Series()
    var copyTimes = Series()
    for block in chain.blocks {
      calls.latencies.append(
        try nanoseconds { try chain.restore(block..<block + 1, from: namespace, into: target) }
      )
    }
    for block in chain.blocks {
      copyTimes.values.append(
        Double(nanoseconds { chain.memory.copy(block..<block + 1, to: target) })
      )
    }
    single.latencies += calls.latencies
    calls.values = calls.latencies.map { Double($0) }
    single.values.append(calls.median)
    copies.values.append(copyTimes.median)
  }

  // MARK: From disk

  private func measureDisk(
    _ bench: Bench,
    _ chain: BlockChain,
    _ target: BlockMemory,
    _ path: String
  ) throws {
    var limits = try DiskLimits(bench)
    try limits.prepareReads()
    try reopened(bench, path) { _, namespace in
      try chain.checkRestore(from: namespace, into: target)
    }

    var whole = Series()
    var cpuSeconds = Series()
    var ioPath = IOPath.none
    var firstHit = FirstHit()
    try bench.forEachRun("restore from disk") { _ in
      try limits.measureReads()
      try measureFirstHit(bench, chain, target, path, &firstHit)
      try reopened(bench, path) { store, namespace in
        // As an engine does: what is stored, then its bytes.
        _ = try chain.peek(chain.blocks.count, in: namespace)
        let cpuBefore = processCPUNanoseconds()
        var result = TransferResult()
        let time = try nanoseconds {
          result = try chain.restore(chain.blocks, from: namespace, into: target)
        }
        guard result.diskBlockCount == chain.blocks.count else {
          throw CommandFailure(
            "only \(result.diskBlockCount) of \(chain.blocks.count) blocks came from disk"
          )
        }
        whole.values.append(gigabytesPerSecond(target.byteCount, time))
        whole.latencies.append(time)
        cpuSeconds.values.append(
          Double(processCPUNanoseconds() - cpuBefore) / Double(target.byteCount)
        )
        ioPath = try store.statistics().ioPath
      }
    }
    try limits.remove()
    bench.add(
      "disk: throughput, one call, \(ioPath.text)",
      whole,
      unit: "GB/s",
      limit: limits.best(.read),
      with: ["io_path": .text(ioPath.text)]
    )
    bench.add(
      "disk: CPU time",
      cpuSeconds,
      unit: "s/GB"
    )
    bench.add(
      "disk: open to first verified block",
      firstHit.times,
      unit: "ns",
      limit: Limit(name: "restoring a block, store open already", value: firstHit.laterTimes.median)
    )
    if !firstHit.byteCounts.values.isEmpty {
      bench.add(
        "disk: bytes read until then",
        firstHit.byteCounts,
        unit: "B",
        limit: Limit(name: "payload of the block", value: Double(chain.memory.blockByteCount))
      )
    }
  }

  private struct FirstHit {
    var times = Series()
    var laterTimes = Series()
    var byteCounts = Series()
  }

  /// From the open of a store whose files are not in the page cache to the first block in the caller's hands, and a
  /// block that is restored from disk once the store is open.
  private func measureFirstHit(
    _ bench: Bench,
    _ chain: BlockChain,
    _ target: BlockMemory,
    _ path: String,
    _ hit: inout FirstHit
  ) throws {
    try bench.dropPageCache(of: path)
    let bytesBefore = processStorageBytes()
    let start = monotonicNanoseconds()
    let store = try Store.open(bench.configuration(path))
    defer { closeQuietly(store) }
    let namespace = try store.openNamespace(bench.identity)
    _ = try chain.peek(1, in: namespace)
    try chain.restore(0..<1, from: namespace, into: target)
    let time = monotonicNanoseconds() - start
    hit.times.values.append(Double(time))
    hit.times.latencies.append(time)
    if let bytesBefore, let bytesAfter = processStorageBytes() {
      hit.byteCounts.values.append(Double(bytesAfter.read - bytesBefore.read))
    }
    guard chain.blocks.count > 1 else { return }
    _ = try chain.peek(2, in: namespace)
    hit.laterTimes.values.append(
      Double(try nanoseconds { try chain.restore(1..<2, from: namespace, into: target) })
    )
  }

  /// Opens the store anew, so that its arena is empty, with its files out of the page cache.
  private func reopened(
    _ bench: Bench,
    _ path: String,
    _ body: (Store, Namespace) throws -> Void
  ) throws {
    try bench.dropPageCache(of: path)
    let store = try Store.open(bench.configuration(path))
    defer { closeQuietly(store) }
    try body(store, try store.openNamespace(bench.identity))
  }
}
