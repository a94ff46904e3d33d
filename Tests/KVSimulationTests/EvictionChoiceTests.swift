import KVTestSupport
import Testing

@testable import KVPolicy
@testable import KVSimulation

/// The change from density to recency and back.
@Suite struct EvictionChoiceTests {
  /// Without a sample (everything is in it) the shadow is the LRU of the replay, to the block.
  @Test(arguments: 0..<10)
  func shadowEqualsLRU(seed: Int) {
    var generator = SeededGenerator(seed: UInt64(seed))
    let capacity = Int.random(in: 1...200, using: &generator)
    let lru = PathCache(capacity: capacity)
    var shadow = RecencyShadow()
    var prompts = PromptGenerator(seed: UInt64(seed))
    for step in 0..<500 {
      let request = prompts.next()
      let found = shadow.note(request.blockIDs, residentCount: 0, capacity: capacity)
      #expect(found.shadow == lru.handle(request), "seed \(seed), step \(step)")
      #expect(found.sampled == request.blockIDs.count)
    }
  }

  /// More blocks than it holds: a part of them stands for all.
  @Test func shadowSamplesWhatIsLarge() {
    let capacity = 20_000
    let lru = PathCache(capacity: capacity)
    var shadow = RecencyShadow()
    var generator = SeededGenerator(seed: 5)
    var hits = (lru: 0, shadow: 0, blocks: 0, sampled: 0)
    for step in 0..<3000 {
      // Half of them come back, most of them soon.
      let back = step / 2 - Int.random(in: 0...Int.random(in: 0...step / 2), using: &generator)
      let number = step % 2 == 0 ? step / 2 : back
      let ids = (0..<20).map { UInt64(number * 20 + $0) }
      var request = TraceRequest()
      request.blockIDs = ids
      let lruCount = lru.handle(request)
      let found = shadow.note(ids, residentCount: 0, capacity: capacity)
      // The sample gets smaller at first.
      guard step > 2000 else { continue }
      hits.lru += lruCount
      hits.shadow += found.shadow
      hits.sampled += found.sampled
      hits.blocks += ids.count
    }
    #expect(shadow.sampleShift > 0 && hits.shadow > 1000 && hits.lru > 1000)
    let scaled = Double(hits.shadow) * Double(hits.blocks) / Double(hits.sampled)
    #expect(abs(scaled - Double(hits.lru)) < 0.1 * Double(hits.lru), "\(scaled), \(hits.lru)")
  }

  /// A cache that finds less than LRU gives way to it, and is tried again later and later.
  @Test func changesAndTriesAgain() {
    var choice = EvictionChoice()
    var changes: [Int] = []
    var before = true
    for step in 0..<20_000 {
      // What LRU would find: twice the same. What is found with density: nothing; with recency: the same.
      let ids = (0..<10).map { UInt64(step / 2 * 10 + $0) }
      let resident = step % 2 == 1 && !choice.usesDensity ? 10 : 0
      choice.note(ids, residentCount: resident, capacity: 200)
      if choice.usesDensity != before { changes.append(step) }
      before = choice.usesDensity
    }
    #expect(changes.count >= 4)
    let rests = zip(changes, changes.dropFirst()).enumerated().filter { $0.offset % 2 == 0 }
      .map { $0.element.1 - $0.element.0 }
    #expect(rests == rests.sorted() && (rests.last ?? 0) > 4 * (rests.first ?? 0), "\(rests)")
  }

  /// One that finds more stays.
  @Test func staysWithWhatIsBetter() {
    var choice = EvictionChoice()
    for step in 0..<5000 {
      let ids = (0..<10).map { UInt64(step % 500 * 10 + $0) }
      choice.note(ids, residentCount: step % 3 == 0 ? 10 : 0, capacity: 200)
      #expect(choice.usesDensity, "step \(step)")
      if !choice.usesDensity { break }
    }
  }
}
