import KVAdmin
import KVCore
import KVReplaySupport
import KVStore
import Testing

/// What `inspect tree` says of each run: hits, ends of lives; and of a session's path alone.
@Suite struct TreeTests {
  private static let identity = StoreFixture.identity([64])
  private static let front = tokens(0..<40)
  private static let minute: UInt64 = 60_000_000_000

  private func branch(_ number: Int, tokenCount: Int = 8) -> [UInt32] {
    Self.front + tokens(number * 1000..<number * 1000 + tokenCount)
  }

  private func runs(_ fixture: StoreFixture, _ namespace: Namespace) throws -> [StoreInspector.Run]
  {
    try fixture.store.inspector.tree(of: namespace.id, limit: .max)
  }

  // MARK: Hits

  @Test func lookUpsAreCountedInTheRunTheyEndIn() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    for number in 1...3 { try namespace.offload(branch(number)) }
    try fixture.store.flush()
    for _ in 0..<4 { _ = try namespace.match(branch(2)) }
    for _ in 0..<2 { _ = try namespace.match(Self.front) }
    _ = try namespace.peek(branch(3))
    _ = try namespace.match(tokens(70_000..<70_008))
    try fixture.reopen()
    let again = try fixture.store.openNamespace(Self.identity)
    _ = try again.match(branch(2))
    try fixture.reopen()
    let found = try runs(fixture, again)
    #expect(found.map(\.blockCount) == [12, 2, 2])
    // The front lies in the first run, with the first branch.
    #expect(found.map(\.hitCount) == [2, 5, 0])
    #expect(found.map(\.hitTokenCount) == [2 * 40, 5 * 48, 0])
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  /// A run that leaves has gone through the run above it, whose tokens its look-ups found as well.
  @Test func hitsOfARunThatLeavesGoToTheOneAbove() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    for number in 1...2 { try namespace.offload(branch(number)) }
    try fixture.store.flush()
    for _ in 0..<3 { _ = try namespace.match(branch(2)) }
    try fixture.store.flush()
    try fixture.reopen()
    let again = try fixture.store.openNamespace(Self.identity)
    #expect(try runs(fixture, again).map(\.hitCount) == [0, 3])
    _ = try again.forget(Array(branch(2).prefix(44)))
    #expect(try runs(fixture, again).map(\.hitCount) == [3])
    // With the whole tree they are gone.
    _ = try again.forget(Array(Self.front.prefix(4)))
    try again.offload(Self.front)
    try fixture.store.flush()
    #expect(try runs(fixture, again).map(\.hitCount) == [0])
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  @Test func hitsOfAnEvictedRunGoToTheOneAbove() throws {
    let fixture = try StoreFixture()
    let limits = NamespaceLimits(quotaBytes: 14 * 64)
    let namespace = try fixture.store.openNamespace(Self.identity, limits: limits)
    for number in 1...2 { try namespace.offload(branch(number)) }
    try fixture.store.flush()
    for _ in 0..<3 { _ = try namespace.match(branch(2)) }
    _ = try namespace.match(branch(1))
    // Leases end with the process.
    try fixture.reopen()
    let again = try fixture.store.openNamespace(Self.identity, limits: limits)
    // There is room for one branch beside the first, which was used last.
    try again.offload(branch(3))
    try fixture.store.flush()
    #expect(try again.peek(branch(2)) == 10)
    try fixture.reopen()
    let found = try runs(fixture, namespace)
    #expect(found.map(\.blockCount) == [12, 2])
    #expect(found.map(\.hitCount) == [1 + 3, 0])
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  // MARK: Ends

  @Test func runsSayWhenTheirBlocksEnd() throws {
    let clock = ManualClock()
    let fixture = try StoreFixture { $0.clock = clock }
    let namespace = try fixture.store.openNamespace(Self.identity)
    let start = clock.realTimeNanoseconds()
    try namespace.offload(Self.front)
    try namespace.offload(branch(1), from: 10, life: .idle(nanoseconds: 5 * Self.minute))
    try namespace.offload(branch(2), from: 10, life: .absolute(nanoseconds: 2 * Self.minute))
    // Below an absolute end everything ends with it.
    try namespace.offload(
      branch(2, tokenCount: 16),
      from: 12,
      life: .idle(nanoseconds: 60 * Self.minute)
    )
    try fixture.store.flush()
    let found = try runs(fixture, namespace)
    #expect(found.map(\.blockCount) == [12, 4])
    #expect(found.map(\.endlessBlockCount) == [10, 0])
    #expect(found[0].firstEndNanoseconds == start + 5 * Self.minute)
    #expect(found[0].lastEndNanoseconds == start + 5 * Self.minute)
    #expect(found[1].firstEndNanoseconds == start + 2 * Self.minute)
    #expect(found[1].lastEndNanoseconds == start + 2 * Self.minute)
    // A use prolongs an idle life, along its path.
    clock.advance(seconds: 60)
    #expect(try namespace.match(branch(1)).blockCount == 12)
    try fixture.store.flush()
    try fixture.reopen()
    let later = try runs(fixture, namespace)
    #expect(later[0].firstEndNanoseconds == start + 6 * Self.minute)
    #expect(later[1].firstEndNanoseconds == start + 2 * Self.minute)
  }

  // MARK: Sessions

  @Test func aSessionStandsOnAPath() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    for number in 1...3 { try namespace.offload(branch(number)) }
    let session = try namespace.beginSession("agent")
    func step(_ words: [UInt32]) throws {
      let from = try Prompt.with(words) { (prompt) throws(StoreError) in
        try session.match(prompt).blockCount
      }
      let whole = Array(words.prefix(words.count / 4 * 4))
      try namespace.offload(whole, from: min(from, whole.count / 4 - 1))
      #expect(try session.step() == 1)
    }
    // Begins a run behind the middle of the third branch; the last tokens fill no block.
    let prompt = branch(3, tokenCount: 4) + tokens(9000..<9012)
    try step(prompt + [1, 2])
    // Another conversation goes on from where the session stands, and one from the front.
    try namespace.offload(prompt + tokens(20_000..<20_008))
    try namespace.offload(Self.front + tokens(30_000..<30_008))
    try session.end()
    try fixture.store.flush()
    try fixture.reopen()
    let known = try #require(try fixture.store.inspector.session(session.id))
    let head = try #require(known.head)
    let around = try fixture.store.inspector.tree(of: namespace.id, around: head, limit: .max)
    #expect(around.map(\.firstBlockDepth) == [0, 10, 11])
    #expect(around.map(\.depth) == [0, 1, 2])
    #expect(around.last?.run == head.run)
    #expect(head.position == 2)
    #expect(around.last?.blockCount == 5)
    #expect(try runs(fixture, namespace).count == 5)
    // A fork below the head is shown, one above it is not.
    let again = try fixture.store.openNamespace(Self.identity)
    try again.offload(prompt + tokens(40_000..<40_008))
    try fixture.store.flush()
    let more = try fixture.store.inspector.tree(of: namespace.id, around: head, limit: .max)
    #expect(more.map(\.firstBlockDepth) == [0, 10, 11, 14])
    #expect(try fixture.store.inspector.tree(of: namespace.id, around: head, limit: 2).count == 2)
    // What it stood on has left.
    _ = try again.forget(Array(Self.front.prefix(4)))
    #expect(try fixture.store.inspector.tree(of: namespace.id, around: head, limit: .max).isEmpty)
  }
}
