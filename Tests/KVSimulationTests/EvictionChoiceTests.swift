import KVTestSupport
import Testing

@testable import KVPolicy
@testable import KVSimulation

/// The change from density to recency and back.
@Suite struct EvictionChoiceTests {
  /// The shadow finds what the LRU of the replay finds, but for the few where two blocks have the same mark.
  @Test(arguments: 0..<20)
  func shadowEqualsLRU(seed: Int) {
    var generator = SeededGenerator(seed: UInt64(seed))
    let capacity = Int.random(in: 1...200, using: &generator)
    let lru = PathCache(capacity: capacity)
    var history = UseHistory(blockCountMax: .max)
    history.capacity = capacity
    var prompts = PromptGenerator(seed: UInt64(seed))
    var hits = (lru: 0, difference: 0)
    for step in 0..<500 {
      let request = prompts.next()
      let before = history.recencyHitCount
      let hitCount = lru.handle(request)
      history.note(request.blockIDs, hitCount: hitCount, time: Int64(step) * 1000)
      hits.lru += hitCount
      hits.difference += abs(history.recencyHitCount - before - hitCount)
      #expect(history.checkInvariants() == [], "seed \(seed), step \(step)")
    }
    #expect(hits.difference * 50 <= hits.lru, "seed \(seed): \(hits)")
  }

  /// What has left from the shadow's cache and is remembered is no hit; what only the shadow has is one.
  @Test func shadowCountsWhatOthersLost() {
    var history = UseHistory(blockCountMax: .max)
    history.capacity = 30
    for number in 0..<5 {
      let keys = (0..<10).map { UInt64(number * 10 + $0) }
      history.note(keys, hitCount: 0, time: Int64(number) * 1000)
    }
    // Of five paths the last three would be there, and of none of them anything is found.
    var hits: [Int] = []
    for number in [4, 0, 3] {
      let before = history.recencyHitCount
      let keys = (0..<10).map { UInt64(number * 10 + $0) }
      history.note(keys, hitCount: 0, time: 10_000)
      hits.append(history.recencyHitCount - before)
    }
    #expect(hits == [10, 0, 10])
  }

  /// A cache that finds less than LRU gives way to it, and is tried again later and later.
  @Test func changesAndTriesAgain() {
    var choice = EvictionChoice()
    var changes: [Int] = []
    var before = true
    for step in 0..<20_000 {
      // What LRU would find: twice the same. What is found with density: nothing; with recency: the same.
      let hits = step % 2 == 1 ? 10 : 0
      let found = choice.usesDensity ? 0 : hits
      choice.note(
        hitCount: found,
        recencyHitCount: hits,
        missCount: 10 - found,
        capacity: 200
      )
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
      let found = step % 3 == 0 ? 10 : 0
      choice.note(
        hitCount: found,
        recencyHitCount: step % 7 == 0 ? 10 : 0,
        missCount: 10 - found,
        capacity: 200
      )
      #expect(choice.usesDensity, "step \(step)")
      if !choice.usesDensity { break }
    }
  }
}

extension UseHistory {
  /// Notes a request as the replay does.
  mutating func note(_ keys: [UInt64], hitCount: Int, time: Int64) {
    let end = hitCount > 0 ? keys[hitCount - 1] : nil
    if let end {
      let path = keys[..<hitCount]
      _ = begin(Found(key: end, blockCount: hitCount, path: path), time: time)
    }
    guard hitCount < keys.count else { return }
    _ = extend(keys[hitCount...], after: end, depth: hitCount, time: time)
  }
}
