import KVAdmin
import KVCore
import KVReplaySupport
import KVStore
import Testing

/// What a store did, by time: bounded, and kept across openings.
@Suite struct HistoryTests {
  private static let identity = StoreFixture.identity([64])

  private func history(_ fixture: StoreFixture, _ span: UInt32) throws
    -> [StoreInspector.HistoryInterval]
  { try fixture.store.inspector.history(spanSeconds: span) }

  @Test func whatWasDoneIsCountedWhereItWasDone() throws {
    let clock = ManualClock()
    let fixture = try StoreFixture { $0.clock = clock }
    // The clock begins at a whole hour.
    let start = clock.realTimeNanoseconds() / 1_000_000_000
    var namespace = try fixture.store.openNamespace(Self.identity)
    for part in 0..<3 {
      let prompt = tokens(part * 1000..<part * 1000 + 40)
      try namespace.offload(prompt)
      try fixture.store.flush()
      for _ in 0...part { _ = try namespace.match(prompt) }
      _ = try namespace.match(tokens(90_000..<90_004))
      // A commit takes along what was looked up before it.
      try namespace.offload(tokens(500_000 + part * 1000..<500_004 + part * 1000))
      try fixture.store.flush()
      clock.advance(seconds: 600)
      if part == 1 {
        try fixture.reopen()
        namespace = try fixture.store.openNamespace(Self.identity)
      }
    }
    try fixture.reopen()
    let found = try history(fixture, 300).filter { $0.counts.matchCalls > 0 }
    #expect(found.map(\.startSeconds) == [start, start + 600, start + 1200])
    #expect(found.map(\.counts.matchCalls) == [2, 3, 4])
    #expect(found.map(\.counts.tokensFound) == [40, 80, 120])
    #expect(found.map(\.counts.tokensAsked) == [44, 84, 124])
    #expect(found.map(\.counts.blocksOffloaded) == [11, 11, 11])
    for span in StoreInspector.historySpans.dropFirst() {
      let longer = try history(fixture, span)
      #expect(longer.map(\.counts.matchCalls) == [9])
      #expect(longer.map(\.startSeconds) == [start / UInt64(span) * UInt64(span)])
    }
    // All of them add up to what the store says of its life.
    let lifetime = try fixture.store.inspector.lifetime()
    #expect(try history(fixture, 300).map(\.counts.commits).reduce(0, +) == lifetime.commits)
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  @Test func theOldestGoFirst() throws {
    let clock = ManualClock()
    let fixture = try StoreFixture { $0.clock = clock }
    let namespace = try fixture.store.openNamespace(Self.identity)
    let start = clock.realTimeNanoseconds() / 1_000_000_000
    for part in 0..<400 {
      try namespace.offload(tokens(part * 1000..<part * 1000 + 4))
      try fixture.store.flush()
      clock.advance(seconds: 300)
    }
    let kept = try history(fixture, 300)
    #expect(kept.last?.startSeconds == start + 399 * 300)
    #expect((280...290).contains(kept.count))
    #expect(zip(kept, kept.dropFirst()).allSatisfy { $0.startSeconds + 300 == $1.startSeconds })
    #expect(kept.dropLast().allSatisfy { $0.counts.blocksOffloaded == 1 })
    let hours = try history(fixture, 3600)
    #expect(hours.map(\.counts.blocksOffloaded).reduce(0, +) == 400)
    // Across an opening.
    try fixture.reopen()
    #expect(try history(fixture, 300).count >= kept.count)
  }
}
