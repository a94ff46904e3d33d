import KVCore
import KVStore

/// The longest stored prefix of long prompts, and what it costs to store so many blocks.
struct MatchWorkload: Workload {
  let name = "match"
  let pageCacheState = "named in each line"

  private static let promptTokenCounts = [1_024, 32_768, 131_072]
  /// Blocks whose catalog rows are measured without payload in the catalog.
  private static let slotBlockCount = 20_000
  private static let warmCallCount = 200

  func run(_ bench: Bench) throws {
    for blockCount in bench.options.storedBlocks.counts { try measure(bench, blockCount) }
    try measureCatalogRows(bench)
  }

  private func measure(_ bench: Bench, _ blockCount: Int) throws {
    let small = SmallBlocks(bench, blockCount: blockCount, inlineMax: 16 << 10)
    let tokenCounts = Self.promptTokenCounts.filter { $0 <= small.trunk.count }
    do {
      let store = try Store.open(small.configuration)
      defer { closeQuietly(store) }
      let namespace = try store.openNamespace(small.identity)
      try small.fill(store, namespace)
      for tokenCount in tokenCounts { try measureWarm(small, store, namespace, tokenCount) }
      try measureExplain(small, namespace)
      try reportSizes(small, store)
    }
    for isCold in [false, true] {
      for tokenCount in tokenCounts { try measureAfterOpen(small, tokenCount, isCold: isCold) }
    }
    try measureFirstBlock(small)
    try measureFurtherBlocks(small)
    if !bench.options.keep { try bench.remove(small.path) }
  }

  // MARK: Look-ups

  private func measureWarm(
    _ small: SmallBlocks,
    _ store: Store,
    _ namespace: Namespace,
    _ tokenCount: Int
  ) throws {
    let trunk = small.trunk
    let copy = TokenMemory(copying: trunk, count: tokenCount)
    var series = Series()
    var compares = Series()
    var hashes = Series()
    _ = try small.match(namespace, tokenCount)
    try small.bench.forEachRun("\(tokenCount) tokens") { _ in
      let hashesBefore = try store.statistics().hashesComputed
      var calls = Series()
      var compareTimes = Series()
      for _ in 0..<Self.warmCallCount {
        let start = monotonicNanoseconds()
        let lease = try small.match(namespace, tokenCount)
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
    let tokens = ["tokens": Parameter.integer(tokenCount)]
    small.add(
      "\(tokenCount) tokens, warm",
      series,
      unit: "ns",
      limit: Limit(name: "memcmp of the tokens", value: compares.median),
      with: tokens
    )
    small.add("\(tokenCount) tokens, warm: hashes a call", hashes, unit: "", with: tokens)
  }

  /// The first match of an open store; with `isCold` its catalog comes from the disk.
  private func measureAfterOpen(_ small: SmallBlocks, _ tokenCount: Int, isCold: Bool) throws {
    let copy = TokenMemory(copying: small.trunk, count: tokenCount)
    var series = Series()
    var compares = Series()
    try small.bench.forEachRun("match after open") { _ in
      if isCold { try small.bench.dropPageCache(of: small.path) }
      let store = try Store.open(small.configuration)
      defer { closeQuietly(store) }
      let namespace = try store.openNamespace(small.identity)
      let time = try nanoseconds { _ = try small.match(namespace, tokenCount) }
      series.latencies.append(time)
      series.values.append(Double(time))
      compares.values.append(
        Double(nanoseconds { _ = small.trunk.equals(copy, count: tokenCount) })
      )
    }
    small.add(
      "\(tokenCount) tokens, first after open, page cache \(isCold ? "cold" : "warm")",
      series,
      unit: "ns",
      limit: Limit(name: "memcmp of the tokens", value: compares.median),
      with: ["tokens": .integer(tokenCount)]
    )
  }

  /// From the open to the first block that matched, the page cache cold.
  private func measureFirstBlock(_ small: SmallBlocks) throws {
    var times = Series()
    var byteCounts = Series()
    try small.bench.forEachRun("open") { _ in
      try small.bench.dropPageCache(of: small.path)
      let bytesBefore = processStorageBytes()
      let start = monotonicNanoseconds()
      let store = try Store.open(small.configuration)
      defer { closeQuietly(store) }
      _ = try small.match(try store.openNamespace(small.identity), SmallBlocks.tokensPerBlock)
      let time = monotonicNanoseconds() - start
      times.latencies.append(time)
      times.values.append(Double(time))
      if let bytesBefore, let bytesAfter = processStorageBytes() {
        byteCounts.values.append(Double(bytesAfter.read - bytesBefore.read))
      }
    }
    small.add("open to the first block found, page cache cold", times, unit: "ns")
    if !byteCounts.values.isEmpty {
      small.add("bytes read until then", byteCounts, unit: "B")
    }
  }

  // MARK: What storing costs

  /// Further blocks: while there is room, then once rows are evicted for them.
  private func measureFurtherBlocks(_ small: SmallBlocks) throws {
    let store = try Store.open(small.configuration)
    defer { closeQuietly(store) }
    let namespace = try store.openNamespace(small.identity)
    var offload = Series()
    try small.bench.forEachRun("offload") { _ in
      offload.values.append(try small.timeOfFurtherBlock(store, namespace))
    }
    small.add("offload of a further block, flushed", offload, unit: "ns")
    // The map was made for a little more than are there, but no smaller than some 25,000 blocks need.
    let evictedBefore = try store.statistics().blocksEvicted
    var furtherCount = 0
    while try store.statistics().blocksEvicted == evictedBefore {
      guard furtherCount < 50_000 + small.blockCount / 2 else {
        throw CommandFailure("the store does not evict although its catalog is full")
      }
      small.bench.show("filling up, \(furtherCount) further blocks")
      _ = try small.timeOfFurtherBlock(store, namespace)
      furtherCount += SmallBlocks.branchBlockCount
    }
    var evicting = Series()
    let evictedAtStart = try store.statistics().blocksEvicted
    try small.bench.forEachRun("evict") { _ in
      evicting.values.append(try small.timeOfFurtherBlock(store, namespace))
    }
    let evicted = try store.statistics().blocksEvicted - evictedAtStart
    small.add(
      "offload of a block in a full store, evicting, flushed",
      evicting,
      unit: "ns",
      limit: Limit(name: "with room", value: offload.median),
      with: [
        "blocks_evicted": .integer(Int(clamping: evicted)),
        "blocks_dropped": .integer(small.droppedBlockCount),
      ]
    )
  }

  private func reportSizes(_ small: SmallBlocks, _ store: Store) throws {
    let statistics = try store.statistics()
    let tokenBytes = Double(4 * SmallBlocks.tokensPerBlock)
    let indexed = Double(max(1, statistics.indexBlocks))
    small.add(
      "RAM a block in the index, beyond its tokens",
      Series(values: [Double(statistics.indexBytes) / indexed - tokenBytes]),
      unit: "B"
    )
    let stored = Double(max(1, statistics.blocksStored))
    small.add(
      "catalog a block, tokens and inline payload included",
      Series(values: [Double(statistics.catalogBytesUsed) / stored]),
      unit: "B"
    )
  }

  /// Catalog bytes of blocks whose payload lies in slots, as that of real blocks does.
  private func measureCatalogRows(_ bench: Bench) throws {
    let small = SmallBlocks(bench, blockCount: Self.slotBlockCount, inlineMax: 0)
    let store = try Store.open(small.configuration)
    defer { closeQuietly(store) }
    let namespace = try store.openNamespace(small.identity)
    let emptyBytes = try store.statistics().catalogBytesUsed
    try small.fill(store, namespace)
    let usedBytes = try store.statistics().catalogBytesUsed
    let bytes = Double(usedBytes - min(emptyBytes, usedBytes)) / Double(small.blockCount)
    small.add(
      "catalog a block, payload in slots, beyond its tokens",
      Series(values: [bytes - Double(4 * SmallBlocks.tokensPerBlock)]),
      unit: "B"
    )
    if !bench.options.keep { try bench.remove(small.path) }
  }
}
