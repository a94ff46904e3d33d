import KVSimulation
import KVTestSupport
import Testing

/// One pass over a trace gives what replays at each capacity and TTL give.
@Suite struct HitCurvesTests {
  @Test(arguments: 0..<8)
  func equalReplays(seed: Int) {
    let capacities = [1, 2, 3, 5, 8, 13, 21, 34, 55, 1000]
    let ttls: [Int64] = [1, 3, 10, 50, 200]
    var prompts = PromptGenerator(seed: UInt64(seed))
    let requests = (0..<300).map { _ in prompts.next() }
    let curves = HitCurves(capacities: capacities, ttlMilliseconds: ttls)
    for request in requests { curves.add(request) }
    for capacity in Array(capacities.indices.map { Optional($0) }) + [nil] {
      for ttl in Array(ttls.indices.map { Optional($0) }) + [nil] {
        let cache = PathCache(
          capacity: capacity.map { capacities[$0] },
          ttlMilliseconds: ttl.map { ttls[$0] }
        )
        var hits = HitCurves.Hits()
        for request in requests {
          let count = cache.handle(request)
          hits.blockCount += count
          hits.tokenCount += request.tokenCount(ofBlocks: count)
        }
        #expect(
          curves.hits(capacity: capacity, ttl: ttl) == hits,
          "seed \(seed), capacity \(capacity ?? -1), ttl \(ttl ?? -1)"
        )
      }
    }
    #expect(curves.uniqueBlockCount == Set(requests.flatMap(\.blockIDs)).count)
  }

  @Test func planIsTheSmallestThatKeepsEnough() {
    let curves = HitCurves(capacities: [1, 2, 4, 8], ttlMilliseconds: [5, 50])
    // Ten rounds over four prompts of one block, 10 ms apart: a block is used again after 40 ms and four blocks.
    for round in 0..<10 {
      for prompt in 0..<4 {
        var request = TraceRequest()
        request.timestampMilliseconds = Int64(round * 40 + prompt * 10)
        request.tokensPerBlock = 16
        request.inputTokenCount = 16
        request.blockIDs = [UInt64(prompt)]
        curves.add(request)
      }
    }
    let plan = CapacityPlan(curves, keeping: 0.95, hostPart: 0.5)
    #expect(plan.diskCapacity == 2)
    #expect(plan.hostCapacity == 2)
    #expect(plan.ttl == 1)
    #expect(plan.keptPart == 1)
    #expect(plan.possibleTokenCount == 36 * 16)
  }
}
