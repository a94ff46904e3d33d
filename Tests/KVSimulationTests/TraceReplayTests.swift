import KVSimulation
import KVTestSupport
import Testing

/// Hit counts equal the published reference, to the block.
///
/// All of its runs: Tests/replay/run.
@Suite struct TraceReplayTests {
  /// What is quick in a debug build.
  static let quickRuns = ReferenceRun.all.filter { run in
    switch run.trace {
    case "tiny": true
    case "mooncake_conversation":
      run.policy == "lru" && run.order == "tail" && run.capacityBlocks == 10_000
        && [nil, 300].contains(run.ttlSeconds) && !run.isFullBlocksOnly
    default: false
    }
  }

  @Test(.enabled(if: traceFolder() != nil, "no traces: set KVSTORE_TRACES"), arguments: quickRuns)
  func equalsTheReference(run: ReferenceRun) throws {
    let found = try run.replay()
    for (field, wanted) in run.fields {
      #expect(found[field] == wanted, "\(field)")
    }
  }

  /// Random prompts that fork, against a plain model of each block's last use.
  @Test(arguments: 0..<20)
  func equalsAModel(seed: Int) {
    var generator = SeededGenerator(seed: UInt64(seed))
    let capacity = seed % 5 == 0 ? nil : Int.random(in: 1...40, using: &generator)
    let ttl = seed % 3 == 0 ? Int64.random(in: 1...60, using: &generator) : nil
    let cache = PathCache(capacity: capacity, ttlMilliseconds: ttl)
    var model = BlockModel(capacity: capacity ?? .max, ttl: ttl)
    var prompts = PromptGenerator(seed: UInt64(seed))
    for step in 0..<200 {
      let request = prompts.next()
      let hits = cache.handle(request)
      #expect(hits == model.handle(request), "seed \(seed), step \(step)")
      #expect(cache.counts.residentBlockCount == model.lastUse.count, "seed \(seed), step \(step)")
      #expect(cache.checkInvariants() == [], "seed \(seed), step \(step)")
    }
    #expect(cache.counts.evictedBlockCount == model.evictedBlockCount)
    #expect(cache.counts.expiredBlockCount == model.expiredBlockCount)
  }

  /// The store's LRU is the textbook's.
  @Test(arguments: [1, 7, 30, 1000])
  func pathCacheIsLRU(capacity: Int) {
    let cache = PathCache(capacity: capacity)
    let textbook = ReferenceCache(policy: .lru, capacity: capacity)
    var prompts = PromptGenerator(seed: UInt64(capacity))
    for step in 0..<2000 {
      let request = prompts.next()
      #expect(cache.handle(request) == textbook.handle(request), "step \(step)")
    }
    var counts = cache.counts
    #expect(counts.writtenBlockCount == cache.writtenBlockCount)
    counts.writtenBlockCount = nil
    #expect(counts == textbook.counts)
  }
}

/// Each block's last use, all looked at for each step.
private struct BlockModel {
  let capacity: Int
  let ttl: Int64?
  var lastUse: [UInt64: (count: Int, time: Int64)] = [:]
  var evictedBlockCount = 0
  var expiredBlockCount = 0
  private var useCount = 0

  init(capacity: Int, ttl: Int64?) {
    self.capacity = capacity
    self.ttl = ttl
  }

  mutating func handle(_ request: TraceRequest) -> Int {
    let now = request.timestampMilliseconds
    if let ttl {
      let expired = lastUse.filter { now - $0.value.time > ttl }
      for id in expired.keys { lastUse[id] = nil }
      expiredBlockCount += expired.count
    }
    let hits = request.blockIDs.prefix { lastUse[$0] != nil }.count
    for id in request.blockIDs.reversed() {
      useCount += 1
      lastUse[id] = (useCount, now)
    }
    while lastUse.count > capacity,
      let oldest = lastUse.min(by: { $0.value.count < $1.value.count })
    {
      lastUse[oldest.key] = nil
      evictedBlockCount += 1
    }
    return hits
  }
}
