import Foundation
import KVAdmin
import KVCore
import KVReplaySupport
import KVSimulation
import KVStore
import KVTestSupport
import Testing

/// Eviction by hit density, run by the store: what it keeps, and that nothing is left without what it hangs on.
@Suite struct DensityEvictionTests {
  private static func replay(
    _ requests: [KVReplaySupport.TraceRequest],
    _ policy: EvictionPolicy,
    capacityBlocks: Int,
    reopensEvery: Int? = nil
  ) throws -> Int {
    let work = FileManager.default.temporaryDirectory.path + "/kvstore-replay-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: work) }
    var replay = StoreReplay(folder: work)
    replay.capacityBlocks = capacityBlocks
    replay.evictionPolicy = policy
    replay.reopensEvery = reopensEvery
    return try replay.run(requests).hitBlocks
  }

  private static func simulated(
    _ requests: [KVReplaySupport.TraceRequest],
    capacityBlocks: Int
  ) -> Int {
    let cache = DensityCache(capacity: capacityBlocks)
    return requests.reduce(0) { hits, request in
      var simulated = KVSimulation.TraceRequest()
      simulated.timestampMilliseconds = Int64(request.timestamp)
      simulated.blockIDs = request.ids
      return hits + cache.handle(simulated)
    }
  }

  /// One-shot prompts beside a few that come back, more than fit.
  private static func mixedRequests(_ count: Int) throws -> [KVReplaySupport.TraceRequest] {
    let lines = (0..<count).map { step in
      let number = step % 4 == 0 ? (step / 4) % 12 : 1000 + step
      let ids = (0..<8).map { "\(number * 8 + $0)" }.joined(separator: ",")
      return #"{"timestamp": \#(step * 1000), "input_length": 4096, "hash_ids": [\#(ids)]}"#
    }
    return try lines.map {
      try JSONDecoder().decode(KVReplaySupport.TraceRequest.self, from: Data($0.utf8))
    }
  }

  /// The replay of the command and the store agree, and both find more than LRU.
  @Test func findsWhatTheSimulatorFinds() throws {
    let requests = try Self.mixedRequests(400)
    let lru = try Self.replay(requests, .lru, capacityBlocks: 160)
    let density = try Self.replay(requests, .density, capacityBlocks: 160)
    let simulated = Self.simulated(requests, capacityBlocks: 160)
    #expect(simulated > lru && density > lru, "\(density), simulated \(simulated), lru \(lru)")
    #expect(abs(density - simulated) * 50 <= simulated, "\(density), simulated \(simulated)")
  }

  /// What an earlier process stored leaves as well, though nothing is known of its uses.
  @Test func learnsAnewAfterReopening() throws {
    let requests = try Self.mixedRequests(400)
    let lru = try Self.replay(requests, .lru, capacityBlocks: 160)
    let density = try Self.replay(requests, .density, capacityBlocks: 160, reopensEvery: 200)
    #expect(density > lru, "\(density), lru \(lru)")
  }

  @Test(
    .enabled(if: TraceFolder.fromEnvironment() != nil, "no traces: set KVSTORE_TRACES")
  )
  func aPrefixOfALongTraceGivesAboutWhatTheSimulatorGives() throws {
    let capacityBlocks = 1000
    let folder = try #require(TraceFolder.fromEnvironment())
    let requests = try folder.requests(of: "mooncake_conversation", limit: 250)
    let lru = try Self.replay(requests, .lru, capacityBlocks: capacityBlocks)
    let density = try Self.replay(requests, .density, capacityBlocks: capacityBlocks)
    let simulated = Self.simulated(requests, capacityBlocks: capacityBlocks)
    #expect(simulated > lru && density > lru, "\(density), simulated \(simulated), lru \(lru)")
    #expect(abs(density - simulated) * 10 <= simulated, "\(density), simulated \(simulated)")
  }

  /// Random prompts over a tree, offloaded in pieces, with and without a match before; whatever leaves, all that is counted is
  /// reached from its head.
  @Test(arguments: 0..<6)
  func staysClosedUnderPrefix(seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    let clock = ManualClock()
    let fixture = try StoreFixture {
      $0.clock = clock
      $0.catalogIsSynced = false
      $0.evictionPolicy = .density
    }
    let identity = StoreFixture.identity([24]) { $0.tokensPerBlock = 1 }
    let capacity = Int.random(in: 3...40, using: &random)
    let limits = NamespaceLimits(quotaBytes: UInt64(capacity * 24))
    var namespace = try fixture.store.openNamespace(identity, limits: limits)
    var prompts: [[UInt32]] = []
    for step in 0..<90 {
      var prompt = prompts.randomElement(using: &random) ?? []
      prompt.removeLast(Int.random(in: 0...prompt.count, using: &random) / 2)
      for _ in 0..<Int.random(in: 1...5, using: &random) {
        prompt.append(.random(in: 0..<4, using: &random))
      }
      prompts.append(prompt)
      clock.advance(seconds: Double.random(in: 0...20, using: &random))
      let before = try namespace.peek(prompt)
      if Int.random(in: 0..<4, using: &random) > 0 {
        let match = try namespace.match(prompt)
        #expect(match.blockCount == before)
        if match.lease != 0, Int.random(in: 0..<4, using: &random) > 0 {
          _ = try fixture.store.releaseLease(match.lease)
        }
      }
      let pieces = Int.random(in: 1...2, using: &random)
      for piece in 1...pieces {
        let result = try namespace.offload(Array(prompt.prefix(prompt.count * piece / pieces)))
        #expect(result.firstProblem == nil || result.doneBlockCount > 0)
      }
      if step % 10 == 9 {
        // Leases of this process end with it.
        try fixture.reopen()
        namespace = try fixture.store.openNamespace(identity)
      }
      try fixture.store.flush()
      let reached = try Set(
        prompts.flatMap { prompt in
          let count = try namespace.peek(prompt)
          return (0..<count).map { Array(prompt[...$0]) }
        }
      )
      let stored = try Int(fixture.store.statistics().blocksStored)
      #expect(reached.count == stored, "seed \(seed), step \(step)")
      if step % 30 == 29 {
        #expect(try fixture.store.verify().findings == [], "seed \(seed), step \(step)")
        #expect(stored <= capacity, "seed \(seed), step \(step)")
      }
    }
  }

  /// A prompt that is stored block by block goes on, though by then what is new is worth less than all that would leave for it.
  @Test func whatIsBeingWrittenStays() throws {
    let clock = ManualClock()
    let fixture = try StoreFixture {
      $0.clock = clock
      $0.catalogIsSynced = false
      $0.evictionPolicy = .density
    }
    let namespace = try fixture.store.openNamespace(
      StoreFixture.identity([24]) { $0.tokensPerBlock = 1 },
      limits: NamespaceLimits(quotaBytes: 256 * 24)
    )
    func use(_ prompt: [UInt32]) throws -> Int {
      clock.advance(seconds: 1)
      let match = try namespace.match(prompt)
      if match.lease != 0 { _ = try fixture.store.releaseLease(match.lease) }
      let result = try namespace.offload(prompt)
      try fixture.store.flush()
      #expect(result.doneBlockCount == prompt.count)
      return match.blockCount
    }
    // What comes back comes back after more than fits: the old ones are worth most.
    var hitCount = 0
    for step in 0..<200 { hitCount += try use((0..<8).map { UInt32(step % 40 * 100 + $0) }) }
    #expect(hitCount > 200)
    var prompt: [UInt32] = []
    for step in 0..<40 {
      prompt.append(UInt32(1_000_000 + step))
      #expect(try use(prompt) == step)
      for other in 0..<2 { _ = try use([UInt32(2_000_000 + step * 2 + other)]) }
    }
  }

  /// Slots on disk: the bound is kept, bytes are right, and what comes round and round is found in part; LRU finds none of it.
  @Test func keepsAPartOfACycleOnDisk() throws {
    var hits: [EvictionPolicy: Int] = [:]
    for policy in EvictionPolicy.allCases {
      let clock = ManualClock()
      let fixture = try StoreFixture {
        $0.clock = clock
        $0.catalogIsSynced = false
        $0.capacityBytes = 64 << 20
        $0.hostBytes = 8 << 20
        $0.evictionPolicy = policy
      }
      let namespace = try fixture.store.openNamespace(StoreFixture.identity([131_072, 131_072]))
      for step in 0..<240 {
        clock.advance(seconds: 5)
        let number = step % 24
        let tokens = (0..<24).map { UInt32(number * 1000 + $0) }
        let match = try namespace.match(tokens)
        if match.lease != 0 { _ = try fixture.store.releaseLease(match.lease) }
        hits[policy, default: 0] += match.blockCount
        try namespace.offload(tokens)
        if step % 8 == 7 { try fixture.store.flush() }
      }
      #expect(try EvictionTests.diskBytes(fixture.configuration.path) <= 64 << 20)
      var restored = 0
      for number in 0..<24 {
        let (result, isRight) = try namespace.restore(
          (0..<24).map { UInt32(number * 1000 + $0) }
        )
        #expect(isRight)
        restored += result.doneBlockCount
      }
      #expect(restored > 50)
      #expect(try fixture.store.verify().findings == [])
    }
    #expect((hits[.density] ?? 0) > (hits[.lru] ?? 0) + 100, "\(hits)")
  }
}
