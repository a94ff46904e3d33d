import KVTestSupport
import Testing

@testable import KVPolicy
@testable import KVSimulation

/// Eviction by hit density, in the store's index and pool.
@Suite struct DensityTests {
  /// Whatever leaves, no block stays behind without those before it, and none is found that left.
  @Test(arguments: 0..<20)
  func staysClosedUnderPrefix(seed: Int) {
    var generator = SeededGenerator(seed: UInt64(seed))
    let capacity = Int.random(in: 1...60, using: &generator)
    let cache = DensityCache(capacity: capacity)
    var prompts = PromptGenerator(seed: UInt64(seed))
    var paths: [[UInt64]] = []
    for step in 0..<300 {
      let request = prompts.next()
      let before = cache.residentCount(request.blockIDs)
      #expect(cache.handle(request) == before, "seed \(seed), step \(step)")
      paths.append(request.blockIDs)
      #expect(cache.checkInvariants() == [], "seed \(seed), step \(step)")
      // Every resident block is reached from its head.
      let reached = Set(paths.flatMap { $0.prefix(cache.residentCount($0)) })
      #expect(reached.count == cache.counts.residentBlockCount, "seed \(seed), step \(step)")
    }
    let counts = cache.counts
    #expect(counts.insertedBlockCount == counts.evictedBlockCount + counts.residentBlockCount)
    #expect(counts.evictedBlockCount > 0)
  }

  @Test func isDeterministic() {
    var results: [[Int]] = []
    for _ in 0..<2 {
      let cache = DensityCache(capacity: 50)
      var prompts = PromptGenerator(seed: 7)
      results.append((0..<2000).map { _ in cache.handle(prompts.next()) })
    }
    #expect(results[0] == results[1])
  }

  /// Where nothing has to leave there is no choice.
  @Test(arguments: [nil, 100_000])
  func withRoomForAllEqualsLRU(capacity: Int?) {
    let cache = DensityCache(capacity: capacity)
    let lru = PathCache(capacity: capacity)
    var prompts = PromptGenerator(seed: 3)
    for step in 0..<2000 {
      let request = prompts.next()
      #expect(cache.handle(request) == lru.handle(request), "step \(step)")
    }
    #expect(cache.counts == lru.counts)
  }

  /// Before enough came back, the order is by recency.
  @Test func withoutReuseEqualsLRU() {
    let cache = DensityCache(capacity: 500)
    let lru = PathCache(capacity: 500)
    for step in 0..<400 {
      // Every tenth prompt is the one before it.
      let request = prompt(step % 10 == 9 && step < 100 ? step - 1 : step, time: Int64(step) * 1000)
      #expect(cache.handle(request) == lru.handle(request), "step \(step)")
    }
    for step in [399, 390, 380, 360, 355] {
      #expect(cache.handle(prompt(step, time: 400_000)) == 10, "prompt \(step)")
    }
  }

  /// Where other processes give many stamps, this one does not know what is used.
  @Test func othersUsesAreSeen() {
    var share = UseShare()
    // What was there before it began says nothing.
    share.note(from: 1000, to: 1100, useCount: 10)
    #expect(share.isNearlyAll)
    share.note(from: 1100, to: 1200, useCount: 80)
    share.note(from: 1210, to: 1230, useCount: 10)
    #expect(share.isNearlyAll)
    share.note(from: 1240, to: 1340, useCount: 1)
    #expect(!share.isNearlyAll)
    // They have gone away.
    share.note(from: 1340, to: 1500, useCount: 79)
    #expect(share.isNearlyAll)
  }

  /// The newest 64th of the capacity is recent, a larger request is not.
  @Test func recentUsesAreTheNewestPart() {
    var recent = RecentUses()
    recent.noteStored(5, capacity: nil)
    recent.note(1, newBlockCount: 5, capacity: nil)
    #expect(!recent.isRecent(1))
    for stamp in UInt64(2)...101 {
      recent.noteStored(3, capacity: 640)
      recent.note(stamp, newBlockCount: 3, capacity: 640)
    }
    // Ten blocks: three requests of three blocks.
    #expect(!recent.isRecent(98) && recent.isRecent(99) && recent.isRecent(101))
    recent.note(102, newBlockCount: 0, capacity: 640)
    #expect(recent.isRecent(99) && recent.isRecent(102))
    recent.noteStored(11, capacity: 640)
    recent.note(103, newBlockCount: 11, capacity: 640)
    #expect(!recent.isRecent(102) && !recent.isRecent(103))
    // Steps of a large capacity: a 64th of the part more or less.
    for stamp in UInt64(200)...10_199 {
      recent.noteStored(1, capacity: 640_000)
      recent.note(stamp, newBlockCount: 1, capacity: 640_000)
    }
    recent.noteStored(5000, capacity: 640_000)
    #expect(!recent.isRecent(5000) && recent.isRecent(5500))
  }

  /// Prompts that come round and round, more than fit: what is old is worth more than what is new.
  @Test func keepsAPartOfACycle() {
    let cache = DensityCache(capacity: 500)
    let lru = PathCache(capacity: 500)
    var hits = (density: 0, lru: 0)
    for step in 0..<2000 {
      let request = prompt(step % 100, time: Int64(step) * 1000)
      hits.density += cache.handle(request)
      hits.lru += lru.handle(request)
    }
    #expect(hits.lru == 0)
    // Half of the blocks fit; the first rounds are for learning.
    #expect(hits.density > 2000 * 10 / 3)
  }

  /// One-shot prompts do not drive out those that come back.
  @Test func oneShotPromptsGiveWay() {
    let cache = DensityCache(capacity: 200)
    let lru = PathCache(capacity: 200)
    var hits = (density: 0, lru: 0)
    for step in 0..<3000 {
      let number = step % 5 == 0 ? (step / 5) % 12 : 1000 + step
      let request = prompt(number, time: Int64(step) * 1000)
      hits.density += cache.handle(request)
      hits.lru += lru.handle(request)
    }
    #expect(hits.density > 2 * hits.lru)
  }

  /// Ten blocks of its own.
  private func prompt(_ number: Int, time: Int64) -> TraceRequest {
    var request = TraceRequest()
    request.timestampMilliseconds = time
    request.tokensPerBlock = 16
    request.inputTokenCount = 160
    request.blockIDs = (0..<10).map { UInt64(number * 10 + $0) }
    return request
  }

  // MARK: Learning

  @Test func bucketsMeet() {
    for bucket in 0..<ReuseTimes.bucketCount {
      let edge = ReuseTimes.lowerEdge(bucket)
      #expect(ReuseTimes.bucket(edge) == bucket)
      if bucket > 0 { #expect(ReuseTimes.bucket(edge - 1) == bucket - 1) }
    }
    #expect(ReuseTimes.bucket(-5) == 0)
    #expect(ReuseTimes.bucket(.max) == ReuseTimes.bucketCount - 1)
  }

  /// Nothing seen yet: the newer the better, as least recently used.
  @Test func beginsAsLRU() {
    var times = ReuseTimes()
    let ages: [Int64] = [0, 1000, 20_000, 300_000, 5_000_000, 80_000_000]
    let densities = ages.map { times.density(0, ageMilliseconds: $0) }
    #expect(densities == densities.sorted(by: >))
  }

  /// Blocks that come back after 100 s are worth most just before.
  @Test func densityFollowsTheAge() {
    var times = ReuseTimes()
    let chat = ReuseClass(.new, turn: 2, gapMilliseconds: 100_000, pathBlockCount: 9).index
    let oneShot = ReuseClass(.new, turn: 1, gapMilliseconds: nil, pathBlockCount: 9).index
    for _ in 0..<200 {
      times.add(chat, ageMilliseconds: 100_000, coveredPart: 1)
      times.add(oneShot, ageMilliseconds: 10_000_000, coveredPart: nil)
    }
    times.update(waiting: [])
    #expect(
      times.density(chat, ageMilliseconds: 80_000) > times.density(chat, ageMilliseconds: 5000)
    )
    #expect(
      times.density(chat, ageMilliseconds: 80_000) > times.density(chat, ageMilliseconds: 400_000)
    )
    #expect(
      times.density(chat, ageMilliseconds: 0) > 3 * times.density(oneShot, ageMilliseconds: 0)
    )
  }

  /// What is remembered has a bound, and what is forgotten is a block like a new one.
  @Test(arguments: [(100, 1000), (.max, 10)])
  func forgets(blockCountMax: Int, requestCountMax: Int) {
    var history = UseHistory(blockCountMax: blockCountMax, requestCountMax: requestCountMax)
    for step in 0..<1000 {
      let ids = (0..<10).map { UInt64(step * 10 + $0) }
      history.note(ids, hitCount: 0, time: Int64(step) * 1000)
      #expect(history.rememberedBlockCount <= 110)
      #expect(history.checkInvariants() == [])
    }
    let parts = history.extend([0, 1, 9], after: nil, depth: 0, time: 1_000_000)
    #expect(parts.repeatedCount == 0)
    let again = history.extend([0, 1, 9, 4, 5], after: nil, depth: 0, time: 1_001_000)
    #expect((again.repeatedCount, again.newCount, again.lastCount) == (3, 1, 1))
  }

  /// What is remembered costs a bounded number of bytes for each block that there is room for, however short the requests are.
  @Test(arguments: [1, 3, 30])
  func remembersInBoundedMemory(blocksPerRequest: Int) {
    let capacity = 200_000
    let learner = UseLearner()
    learner.noteCapacity(capacity)
    var byteCountMax = 0
    for request in 0..<30_000 {
      let first = UInt64(request * blocksPerRequest)
      learner.advance(to: Int64(request) * 1000)
      _ = learner.noteStored(
        (first..<first + UInt64(blocksPerRequest)).map { $0 }[...],
        after: nil,
        depth: 0
      )
      if request % 1000 == 999 { byteCountMax = max(byteCountMax, learner.byteCount) }
    }
    #expect(byteCountMax <= 40 * capacity, "\(byteCountMax)")
  }

  /// Blocks that come in pieces are the same parts as blocks that come at once, also where some of them are remembered.
  @Test(arguments: 0..<20)
  func piecesAreOneRequest(seed: Int) {
    var generator = SeededGenerator(seed: UInt64(seed))
    var whole = UseHistory(blockCountMax: .max)
    var cut = whole
    var prompts = PromptGenerator(seed: UInt64(seed))
    for step in 0..<300 {
      let keys = prompts.next().blockIDs
      let time = Int64(step) * 1000
      let parts = whole.extend(keys[...], after: nil, depth: 0, time: time)
      var depth = 0
      var last = UseHistory.Parts()
      while depth < keys.count {
        let end = Int.random(in: depth + 1...keys.count, using: &generator)
        last = cut.extend(
          keys[depth..<end],
          after: depth > 0 ? keys[depth - 1] : nil,
          depth: depth,
          time: time
        )
        depth = end
      }
      for parts in [parts, last] {
        let blockCount = parts.repeatedCount + parts.newCount + parts.lastCount
        #expect(blockCount == keys.count, "seed \(seed), step \(step)")
      }
      #expect(cut.checkInvariants() == [], "seed \(seed), step \(step)")
    }
  }
}
