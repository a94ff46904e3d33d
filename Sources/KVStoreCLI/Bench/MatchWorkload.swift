import KVCore
import KVStore

/// The longest stored prefix of long prompts.
struct MatchWorkload: Workload {
  let name = "match"
  let pageCacheState = "named in each line"

  private static let tokensPerBlock = 16
  private static let payloadByteCount = 64
  private static let promptTokenCounts = [1_024, 32_768, 131_072]
  /// Blocks of the chain that the prompts are prefixes of, and of those that fork off it.
  private static let trunkBlockCount = 8_192
  private static let branchBlockCount = 1_024
  /// Blocks whose catalog rows are measured without payload in the catalog.
  private static let slotBlockCount = 20_000
  private static let warmCallCount = 200

  private var identity: NamespaceIdentity {
    var identity = NamespaceIdentity()
    identity.tokensPerBlock = Self.tokensPerBlock
    identity.regionByteCounts = [Self.payloadByteCount]
    identity.modelName = "bench-match"
    identity.extraByteCountMax = 0
    return identity
  }

  private func configuration(_ path: String, blockCount: Int, inlineMax: Int) -> StoreConfiguration
  {
    var configuration = StoreConfiguration(path: path)
    // Rows, payloads and keys together stay below a kilobyte; eviction begins at 80 % of the map.
    configuration.catalogBytes = max(64 << 20, blockCount * 2048)
    configuration.capacityBytes = 2 * configuration.catalogBytes + (1 << 30)
    configuration.inlinePayloadBytesMax = inlineMax
    return configuration
  }

  private func parameters(_ bench: Bench, _ measure: String) -> [String: Parameter] {
    [
      "measure": .text(measure), "stored_blocks": .integer(bench.options.storedBlocks),
      "tokens_per_block": .integer(Self.tokensPerBlock),
      "block_bytes": .integer(Self.payloadByteCount),
      "seed": .integer(Int(clamping: bench.options.seed)),
    ]
  }

  func run(_ bench: Bench) throws {
    let path = bench.freshStorePath()
    let trunk = TokenMemory(
      count: Self.trunkBlockCount * Self.tokensPerBlock,
      seed: bench.options.seed
    )
    let configuration = configuration(
      path,
      blockCount: bench.options.storedBlocks,
      inlineMax: 16 << 10
    )
    do {
      let store = try Store.open(configuration)
      defer { closeQuietly(store) }
      let namespace = try store.openNamespace(identity)
      try fill(bench, store, namespace, trunk, blockCount: bench.options.storedBlocks)
      try measureWarm(bench, store, namespace, trunk)
      try measureExplain(bench, namespace, trunk)
    }
    try measureAfterOpen(bench, configuration, trunk, isCold: false)
    try measureAfterOpen(bench, configuration, trunk, isCold: true)
    if !bench.options.keep { try bench.remove(path) }
    try measureCatalogRows(bench, trunk)
  }

  /// Stores the trunk and branches that fork off it, `blockCount` blocks in all.
  private func fill(
    _ bench: Bench,
    _ store: Store,
    _ namespace: Namespace,
    _ trunk: TokenMemory,
    blockCount: Int
  ) throws {
    let memory = try BlockMemory(
      regionByteCounts: [Self.payloadByteCount],
      blockCount: Self.trunkBlockCount + Self.branchBlockCount
    )
    memory.fill(seed: bench.options.seed)
    var generator = bench.options.seed | 1
    var stored = 0
    var branch: UInt64 = 0
    while stored < blockCount {
      bench.progress.show("match: \(stored) of \(blockCount) blocks stored")
      let isTrunk = stored == 0
      generator ^= generator << 13
      generator ^= generator >> 7
      generator ^= generator << 17
      let first = isTrunk ? 0 : Int(generator % UInt64(Self.trunkBlockCount))
      let count = min(isTrunk ? Self.trunkBlockCount : Self.branchBlockCount, blockCount - stored)
      branch += 1
      let tokens =
        isTrunk
        ? trunk
        : TokenMemory(
          forkOf: trunk,
          prefixCount: first * Self.tokensPerBlock,
          count: (first + count) * Self.tokensPerBlock,
          seed: bench.options.seed &+ branch &* 0x1_0001
        )
      // In pieces that surely find room in the arena.
      for start in stride(from: first, to: first + count, by: 256) {
        let piece = start..<min(start + 256, first + count)
        let result = try tokens.withPrompt(piece.upperBound * Self.tokensPerBlock) { prompt in
          try memory.withTransfer(piece) { try namespace.offload(prompt, $0) }
        }
        guard result.doneBlockCount == piece.count else {
          throw CommandFailure(
            "the store took \(result.doneBlockCount) of \(piece.count) blocks: \(result.firstProblem.text)"
          )
        }
      }
      stored += count
    }
    try store.flushAll()
  }

  private func measureWarm(
    _ bench: Bench,
    _ store: Store,
    _ namespace: Namespace,
    _ trunk: TokenMemory
  ) throws {
    for tokenCount in Self.promptTokenCounts {
      let copy = TokenMemory(copying: trunk, count: tokenCount)
      var series = Series()
      var compares = Series()
      var hashes = Series()
      _ = try match(namespace, trunk, tokenCount)
      try bench.forEachRun("match, \(tokenCount) tokens") { _ in
        let hashesBefore = try store.statistics().hashesComputed
        var calls = Series()
        var compareTimes = Series()
        for _ in 0..<Self.warmCallCount {
          let start = monotonicNanoseconds()
          let lease = try match(namespace, trunk, tokenCount)
          calls.latencies.append(monotonicNanoseconds() - start)
          _ = try store.releaseLease(lease)
          var isEqual = false
          compareTimes.values.append(
            Double(nanoseconds { isEqual = trunk.equals(copy, count: tokenCount) })
          )
          guard isEqual else { throw CommandFailure("the tokens differ from their copy") }
        }
        calls.values = calls.latencies.map { Double($0) }
        series.values.append(calls.median)
        series.latencies += calls.latencies
        compares.values.append(compareTimes.median)
        let hashCount = try store.statistics().hashesComputed - hashesBefore
        hashes.values.append(Double(hashCount) / Double(Self.warmCallCount))
      }
      var params = parameters(bench, "\(tokenCount) tokens, warm")
      params["tokens"] = .integer(tokenCount)
      bench.report.add(
        params,
        series,
        unit: "ns",
        limit: Limit(name: "memcmp of the tokens", value: compares.median)
      )
      params["measure"] = .text("\(tokenCount) tokens, warm: hashes a call")
      bench.report.add(params, hashes, unit: "")
    }
    let statistics = try store.statistics()
    let tokenBytes = 4 * Self.tokensPerBlock
    var index = Series()
    index.values = [
      Double(statistics.indexBytes) / Double(max(1, statistics.indexBlocks)) - Double(tokenBytes)
    ]
    bench.report.add(
      parameters(bench, "RAM a block in the index, beyond its tokens"),
      index,
      unit: "B"
    )
    var catalog = Series()
    catalog.values = [
      Double(statistics.catalogBytesUsed) / Double(max(1, statistics.blocksStored))
    ]
    bench.report.add(
      parameters(bench, "catalog a block, tokens and inline payload included"),
      catalog,
      unit: "B"
    )
  }

  /// The first match of an open store; with `isCold` its catalog comes from the disk.
  private func measureAfterOpen(
    _ bench: Bench,
    _ configuration: StoreConfiguration,
    _ trunk: TokenMemory,
    isCold: Bool
  ) throws {
    let cache = isCold ? "cold" : "warm"
    for tokenCount in Self.promptTokenCounts {
      let copy = TokenMemory(copying: trunk, count: tokenCount)
      var series = Series()
      var compares = Series()
      try bench.forEachRun("match after open") { _ in
        if isCold { try bench.dropPageCache(of: configuration.path) }
        let store = try Store.open(configuration)
        defer { closeQuietly(store) }
        let namespace = try store.openNamespace(identity)
        let start = monotonicNanoseconds()
        _ = try match(namespace, trunk, tokenCount)
        let time = monotonicNanoseconds() - start
        series.latencies.append(time)
        series.values.append(Double(time))
        compares.values.append(
          Double(nanoseconds { _ = trunk.equals(copy, count: tokenCount) })
        )
      }
      var params = parameters(bench, "\(tokenCount) tokens, first after open, page cache \(cache)")
      params["tokens"] = .integer(tokenCount)
      bench.report.add(
        params,
        series,
        unit: "ns",
        limit: Limit(name: "memcmp of the tokens", value: compares.median)
      )
    }
  }

  /// Matches the first `tokenCount` tokens, all of which are stored; answers the lease.
  private func match(_ namespace: Namespace, _ trunk: TokenMemory, _ tokenCount: Int) throws
    -> UInt64
  {
    let result = try trunk.withPrompt(tokenCount) { try namespace.match($0) }
    guard result.tokenCount == tokenCount else {
      throw CommandFailure("the store found \(result.tokenCount) of \(tokenCount) stored tokens")
    }
    return result.lease
  }

  /// Catalog bytes of blocks whose payload lies in slots, as that of real blocks does.
  private func measureCatalogRows(_ bench: Bench, _ trunk: TokenMemory) throws {
    let path = bench.freshStorePath()
    let store = try Store.open(
      configuration(path, blockCount: Self.slotBlockCount, inlineMax: 0)
    )
    defer { closeQuietly(store) }
    let namespace = try store.openNamespace(identity)
    let emptyBytes = try store.statistics().catalogBytesUsed
    try fill(bench, store, namespace, trunk, blockCount: Self.slotBlockCount)
    let usedBytes = try store.statistics().catalogBytesUsed
    var series = Series()
    series.values = [
      Double(usedBytes - min(emptyBytes, usedBytes)) / Double(Self.slotBlockCount)
        - Double(4 * Self.tokensPerBlock)
    ]
    var params = parameters(bench, "catalog a block, payload in slots, beyond its tokens")
    params["stored_blocks"] = .integer(Self.slotBlockCount)
    bench.report.add(params, series, unit: "B")
    if !bench.options.keep { try bench.remove(path) }
  }
}
