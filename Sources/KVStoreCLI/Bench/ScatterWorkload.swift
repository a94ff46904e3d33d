import KVCore
import KVStore

/// Restores into paged memory: each block in pieces of one size, the pieces in random order.
struct ScatterWorkload: Workload {
  let name = "scatter"
  let pageCacheState = "dropped before every read from disk"

  private static let pieceByteCounts = [4 << 10, 16 << 10, 64 << 10]
  /// More would only take longer: the pieces' size is what matters here.
  private static let totalByteCountMax = 256 << 20

  func run(_ bench: Bench) throws {
    var limits = try DiskLimits(bench)
    try limits.prepareReads()
    try bench.forEachRun("raw read") { _ in try limits.measureReads() }
    for pieceByteCount in Self.pieceByteCounts {
      try measure(bench, pieceByteCount, limits.best(.read))
    }
    try limits.remove()
  }

  private func measure(_ bench: Bench, _ pieceByteCount: Int, _ readLimit: Limit?) throws {
    let pieceCount = bench.options.blockBytes.byteCount / pieceByteCount
    guard pieceCount > 0 else { return }
    let regions = Array(repeating: pieceByteCount, count: pieceCount)
    let blockCount = max(
      1,
      min(bench.options.total.byteCount, Self.totalByteCountMax) / (pieceByteCount * pieceCount)
    )
    let memory = try BlockMemory(regionByteCounts: regions, blockCount: blockCount)
    memory.fill(seed: bench.options.seed)
    let target = try BlockMemory(
      regionByteCounts: regions,
      blockCount: blockCount,
      pageSeed: bench.options.seed
    )
    let chain = BlockChain(
      memory,
      tokensPerBlock: bench.options.tokensPerBlock,
      seed: bench.options.seed
    )
    var identity = bench.identity
    identity.regionByteCounts = regions
    let path = bench.freshStorePath()
    var configuration = bench.configuration(path, hostBytes: bench.wholeHostBytes)
    configuration.inlinePayloadBytesMax = 0

    var fromHost = Series()
    var copies = Series()
    let store = try Store.open(configuration)
    do {
      defer { closeQuietly(store) }
      let namespace = try store.openNamespace(identity)
      var ignored: [UInt64] = []
      try chain.offload(to: namespace, latencies: &ignored)
      try store.flushAll()
      try chain.checkRestore(from: namespace, into: target)
      try bench.forEachRun("\(byteText(pieceByteCount)) from RAM") { _ in
        copies.add(bytes: memory.byteCount, nanoseconds { memory.copy(chain.blocks, to: target) })
        let time = try nanoseconds {
          try chain.restore(chain.blocks, from: namespace, into: target)
        }
        fromHost.add(bytes: memory.byteCount, time)
      }
    }
    var fromDisk = Series()
    try bench.forEachRun("\(byteText(pieceByteCount)) from disk") { _ in
      try bench.dropPageCache(of: path)
      let store = try Store.open(configuration)
      defer { closeQuietly(store) }
      let namespace = try store.openNamespace(identity)
      _ = try chain.peek(chain.blocks.count, in: namespace)
      let time = try nanoseconds { try chain.restore(chain.blocks, from: namespace, into: target) }
      fromDisk.add(bytes: memory.byteCount, time)
    }
    if !bench.options.keep { try bench.remove(path) }
    let params: [String: Parameter] = [
      "piece_bytes": .integer(pieceByteCount),
      "block_bytes": .integer(pieceByteCount * pieceCount),
      "total_bytes": .integer(memory.byteCount),
    ]
    bench.add(
      "host: pieces of \(byteText(pieceByteCount))",
      fromHost,
      unit: "GB/s",
      limit: Limit(name: "memcpy of the same pieces, 1 thread", value: copies.median),
      with: params
    )
    bench.add(
      "disk: pieces of \(byteText(pieceByteCount))",
      fromDisk,
      unit: "GB/s",
      limit: readLimit,
      with: params
    )
  }
}

extension Series {
  /// A run that moved so many bytes in so much time.
  fileprivate mutating func add(bytes: Int, _ nanoseconds: UInt64) {
    values.append(gigabytesPerSecond(bytes, nanoseconds))
    latencies.append(nanoseconds)
  }
}
