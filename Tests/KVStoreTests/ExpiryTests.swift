import Foundation
import KVAdmin
import KVCore
import KVReplaySupport
import KVStore
import Testing

/// Lives of blocks: idle and absolute, of a namespace and of a write, across restarts and steps of the clock.
@Suite struct ExpiryTests {
  let clock = ManualClock()

  private func fixture() throws -> StoreFixture {
    let clock = clock
    return try StoreFixture { $0.clock = clock }
  }

  private func open(
    _ fixture: StoreFixture,
    _ timeToLive: TimeToLive?,
    slots: Bool = false
  ) throws -> Namespace {
    try fixture.store.openNamespace(
      slots ? QuotaTests.slotIdentity : QuotaTests.inlineIdentity,
      limits: NamespaceLimits(timeToLive: timeToLive)
    )
  }

  private static let minute = TimeToLive.idle(nanoseconds: 60_000_000_000)
  private static let absoluteMinute = TimeToLive.absolute(nanoseconds: 60_000_000_000)

  private func sound(_ fixture: StoreFixture) throws {
    let verification = try fixture.store.verify()
    #expect(verification.findings.isEmpty, "\(verification.findings)")
  }

  @Test(arguments: [false, true])
  func exactlyTheIdleTimeIsStillValid(slots: Bool) throws {
    let fixture = try fixture()
    let namespace = try open(fixture, Self.minute, slots: slots)
    let prompt = QuotaTests.prompt(1)
    try namespace.offload(prompt)
    try fixture.store.flush()
    clock.advance(seconds: 60)
    #expect(try namespace.peek(prompt) == 4)
    // A peek is no use, and a nanosecond more is too much.
    clock.advance(nanoseconds: 1)
    #expect(try namespace.peek(prompt) == 0)
    #expect(try namespace.restore(prompt).result.doneBlockCount == 0)
    #expect(try fixture.expiredBlockCount() == 4)
    #expect(try fixture.store.statistics().blocksStored == 0)
    try sound(fixture)
  }

  @Test func aReservationProlongsWhatItFindsStored() throws {
    let fixture = try fixture()
    let namespace = try open(fixture, Self.minute)
    let prompt = QuotaTests.prompt(1)
    try namespace.offload(prompt)
    try fixture.store.flush()
    clock.advance(seconds: 40)
    #expect(try namespace.reserve(prompt).result.doneBlockCount == 4)
    clock.advance(seconds: 40)
    #expect(try namespace.peek(prompt) == 4)
    clock.advance(seconds: 21)
    #expect(try namespace.peek(prompt) == 0)
  }

  @Test func usesProlongAnIdleLifeOfTheWholePath() throws {
    let fixture = try fixture()
    let namespace = try open(fixture, Self.minute)
    let trunk = QuotaTests.prompt(1, blocks: 3)
    let branches = (2...3).map { trunk + QuotaTests.prompt($0, blocks: 2) }
    for branch in branches { try namespace.offload(branch) }
    try fixture.store.flush()
    clock.advance(seconds: 40)
    #expect(try namespace.touch(branches[1]) == 5)
    clock.advance(seconds: 40)
    // The one branch is over, the other and the trunk are not.
    #expect(try namespace.peek(branches[0]) == 3)
    #expect(try namespace.match(branches[1]).blockCount == 5)
    clock.advance(seconds: 50)
    try fixture.store.flush()
    #expect(try fixture.expiredBlockCount() == 2)
    // The same from the catalog alone.
    try fixture.reopen()
    let reopened = try open(fixture, nil)
    #expect(try reopened.peek(branches[1]) == 5)
    #expect(try reopened.peek(branches[0]) == 3)
    clock.advance(seconds: 11)
    #expect(try reopened.peek(branches[1]) == 0)
    try sound(fixture)
  }

  @Test func anAbsoluteLifeEndsHoweverOftenItIsUsed() throws {
    let fixture = try fixture()
    let namespace = try open(fixture, nil)
    let trunk = QuotaTests.prompt(1, blocks: 2)
    try namespace.offload(trunk, life: Self.absoluteMinute)
    // What lies below is hidden with it, though it has no end of its own.
    let branch = trunk + QuotaTests.prompt(2, blocks: 2)
    try namespace.offload(branch, from: 2)
    try fixture.store.flush()
    for _ in 0..<6 {
      clock.advance(seconds: 10)
      #expect(try namespace.match(branch).blockCount == 4)
    }
    clock.advance(nanoseconds: 1)
    #expect(try namespace.peek(branch) == 0)
    // Written again it is new, and what hung below it does not come back.
    try namespace.offload(trunk)
    try fixture.store.flush()
    #expect(try namespace.peek(branch) == 2)
    try fixture.reopen()
    #expect(try open(fixture, nil).peek(branch) == 2)
    #expect(try fixture.expiredBlockCount() == 0)
    try sound(fixture)
  }

  @Test func writingAgainNeverShortensALife() throws {
    let fixture = try fixture()
    let namespace = try open(fixture, nil)
    let prompts = (0..<5).map { QuotaTests.prompt($0, blocks: 2) }
    let hour = TimeToLive.idle(nanoseconds: 3_600_000_000_000)
    let lives: [(TimeToLive?, TimeToLive?)] = [
      (hour, Self.minute), (Self.minute, hour), (nil, Self.minute), (Self.minute, .unlimited),
      (Self.absoluteMinute, .absolute(nanoseconds: 3_600_000_000_000)),
    ]
    for (prompt, life) in zip(prompts, lives) { try namespace.offload(prompt, life: life.0) }
    try fixture.store.flush()
    for (prompt, life) in zip(prompts, lives) { try namespace.offload(prompt, life: life.1) }
    try fixture.store.flush()
    try sound(fixture)
    clock.advance(seconds: 3000)
    #expect(try prompts.map { try namespace.peek($0) } == [2, 2, 2, 2, 2])
    try fixture.reopen()
    let reopened = try open(fixture, nil)
    #expect(try prompts.map { try reopened.peek($0) } == [2, 2, 2, 2, 2])
    clock.advance(seconds: 601)
    #expect(try prompts.map { try reopened.peek($0) } == [0, 0, 2, 2, 0])
    #expect(try fixture.expiredBlockCount() == 6)
    try sound(fixture)
  }

  @Test func aStepOfTheClockChangesNothingWhileTheStoreIsOpen() throws {
    let fixture = try fixture()
    let namespace = try open(fixture, Self.minute)
    let prompt = QuotaTests.prompt(1)
    try namespace.offload(prompt)
    try fixture.store.flush()
    clock.step(seconds: 7 * 86_400)
    #expect(try namespace.peek(prompt) == 4)
    clock.step(seconds: -14 * 86_400)
    clock.advance(seconds: 59)
    #expect(try namespace.peek(prompt) == 4)
    clock.advance(seconds: 2)
    #expect(try namespace.peek(prompt) == 0)
  }

  @Test func timeThatWentByWhileItWasClosedCounts() throws {
    let fixture = try fixture()
    try open(fixture, Self.minute).offload(QuotaTests.prompt(1))
    let clock = clock
    try fixture.reopen { _ in clock.advance(seconds: 50) }
    #expect(try open(fixture, nil).peek(QuotaTests.prompt(1)) == 4)
    try fixture.reopen { _ in clock.advance(seconds: 11) }
    #expect(try open(fixture, nil).peek(QuotaTests.prompt(1)) == 0)
  }

  /// The clock of the wall was set back while the store was closed: time goes on where it was.
  @Test func timeNeverGoesBack() throws {
    let fixture = try fixture()
    try open(fixture, Self.minute).offload(QuotaTests.prompt(1))
    let clock = clock
    try fixture.reopen { _ in clock.step(seconds: -3600) }
    let namespace = try open(fixture, nil)
    #expect(try namespace.peek(QuotaTests.prompt(1)) == 4)
    clock.advance(seconds: 61)
    #expect(try namespace.peek(QuotaTests.prompt(1)) == 0)
  }

  /// A process that opens with a wall clock that is wrong takes the time of its boot.
  @Test(arguments: [600, 4000, 30 * 86_400, -600, -30 * 86_400])
  func aWrongClockAtAnOpenChangesNothing(seconds: Int64) throws {
    let clock = ManualClock(knowsBoot: true)
    let fixture = try StoreFixture { $0.clock = clock }
    let hour = TimeToLive.absolute(nanoseconds: 3_600_000_000_000)
    let namespace = try open(fixture, Self.minute)
    try namespace.offload(QuotaTests.prompt(1))
    try namespace.offload(QuotaTests.prompt(2), life: hour)
    let pin = try #require(try namespace.pin(QuotaTests.prompt(1), seconds: 3600))
    try fixture.store.flush()
    for sign: Int64 in [1, -1, 1] {
      try fixture.reopen { _ in
        clock.advance(seconds: 10)
        clock.step(seconds: sign * seconds)
      }
      let reopened = try open(fixture, nil)
      #expect(try reopened.peek(QuotaTests.prompt(1)) == 4)
      #expect(try reopened.peek(QuotaTests.prompt(2)) == 4)
      // Time neither stands still nor jumps.
      try reopened.offload(QuotaTests.prompt(3), life: Self.absoluteMinute)
      clock.advance(seconds: 60)
      #expect(try reopened.peek(QuotaTests.prompt(3)) == 4)
      clock.advance(nanoseconds: 1)
      #expect(try reopened.peek(QuotaTests.prompt(3)) == 0)
    }
    #expect(try fixture.store.unpin(pin.id))
    clock.advance(seconds: 3600)
    let last = try open(fixture, nil)
    #expect(try last.peek(QuotaTests.prompt(2)) == 0)
  }

  /// After a start of the machine the clock of the wall counts, and a clock behind the last commit goes on from there.
  @Test(arguments: [0, 50, 70, -86_000])
  func aStartOfTheMachine(seconds: Int64) throws {
    let clock = ManualClock(knowsBoot: true)
    let fixture = try StoreFixture { $0.clock = clock }
    try open(fixture, Self.minute).offload(QuotaTests.prompt(1))
    try fixture.reopen { _ in
      clock.restart()
      clock.step(seconds: seconds)
    }
    #expect(try open(fixture, nil).peek(QuotaTests.prompt(1)) == (seconds <= 60 ? 4 : 0))
    try fixture.reopen { _ in clock.step(seconds: 86_000) }
    #expect(try open(fixture, nil).peek(QuotaTests.prompt(1)) == (seconds <= 60 ? 4 : 0))
    clock.advance(seconds: 61)
    #expect(try open(fixture, nil).peek(QuotaTests.prompt(1)) == 0)
  }

  @Test(arguments: [3, -3])
  func aJumpOfDaysSuspendsIdleLivesUntilTheNextUse(days: Int64) throws {
    let fixture = try fixture()
    let namespace = try open(fixture, Self.minute)
    try namespace.offload(QuotaTests.prompt(1))
    try namespace.offload(QuotaTests.prompt(2))
    try namespace.offload(QuotaTests.prompt(3), life: Self.absoluteMinute)
    let clock = clock
    try fixture.reopen { _ in
      clock.advance(seconds: 61)
      clock.step(seconds: days * 86_400)
    }
    for round in 0..<2 {
      let reopened = try open(fixture, nil)
      #expect(try fixture.expiredBlockCount() == (round == 0 && days > 0 ? 4 : 0))
      #expect(try reopened.peek(QuotaTests.prompt(1)) == 4)
      // A life that ends at a time of the wall ends then.
      if days > 0 { #expect(try reopened.peek(QuotaTests.prompt(3)) == 0) }
      // It stays so across the next, ordinary, restart.
      if round == 0 { try fixture.reopen { _ in clock.advance(seconds: 300) } }
    }
    let reopened = try open(fixture, nil)
    #expect(try reopened.touch(QuotaTests.prompt(1)) == 4)
    try fixture.store.flush()
    clock.advance(seconds: 61)
    #expect(try reopened.peek(QuotaTests.prompt(1)) == 0)
    // A clock that was set back stood still: there the other life has gone on as well.
    if days > 0 { #expect(try reopened.peek(QuotaTests.prompt(2)) == 4) }
  }

  @Test func whatIsOverLeavesBeforeWhatWasUsedLongerAgo() throws {
    let fixture = try fixture()
    let namespace = try fixture.store.openNamespace(
      QuotaTests.inlineIdentity,
      limits: NamespaceLimits(quotaBytes: 8000)
    )
    try namespace.offload(QuotaTests.prompt(1))
    try namespace.offload(QuotaTests.prompt(2), life: Self.minute)
    try fixture.store.flush()
    clock.advance(seconds: 61)
    try namespace.offload(QuotaTests.prompt(3))
    #expect(try fixture.store.flush().durableBlockCount == 4)
    #expect(try (1...3).map { try namespace.peek(QuotaTests.prompt($0)) } == [4, 0, 4])
  }

  @Test func lowPrioritiesLeaveFirst() throws {
    let fixture = try fixture()
    let namespace = try fixture.store.openNamespace(
      QuotaTests.inlineIdentity,
      limits: NamespaceLimits(quotaBytes: 12_000)
    )
    try namespace.offload(QuotaTests.prompt(1), priority: 90)
    try namespace.offload(QuotaTests.prompt(2))
    try namespace.offload(QuotaTests.prompt(3), priority: 10)
    try fixture.store.flush()
    try namespace.offload(QuotaTests.prompt(4))
    try fixture.store.flush()
    #expect(try (1...4).map { try namespace.peek(QuotaTests.prompt($0)) } == [4, 4, 0, 4])
    // Offered again with more, the second outlives the fourth.
    try namespace.offload(QuotaTests.prompt(2), priority: 60)
    try namespace.offload(QuotaTests.prompt(5))
    try fixture.store.flush()
    #expect(try (1...5).map { try namespace.peek(QuotaTests.prompt($0)) } == [4, 4, 0, 0, 4])
    try sound(fixture)
  }

  @Test func theReferenceOfTheTinyTraceHasItsLives() throws {
    guard let folder = TraceFolder.fromEnvironment() else { return }
    let requests = try folder.requests(of: "tiny")
    for run in try folder.lruRuns(of: "tiny") where run.ttlSeconds != nil {
      for reopensEvery in [nil, 3] {
        let work = FileManager.default.temporaryDirectory.path + "/kvstore-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: work) }
        var replay = StoreReplay(folder: work)
        replay.capacityBlocks = run.capacityBlocks
        replay.ttlSeconds = run.ttlSeconds
        replay.reopensEvery = reopensEvery
        let outcome = try replay.run(requests)
        #expect(outcome.digest == run.perRequestSHA256, "\(run)")
      }
    }
  }
}

/// Pins: nothing evicts them, no idle life of theirs ends, and they end.
@Suite struct PinTests {
  let clock = ManualClock()

  private func fixture(quotaBlocks: Int) throws -> (StoreFixture, Namespace) {
    let clock = clock
    let fixture = try StoreFixture { $0.clock = clock }
    let namespace = try fixture.store.openNamespace(
      QuotaTests.inlineIdentity,
      limits: NamespaceLimits(
        quotaBytes: UInt64(quotaBlocks * 1000),
        timeToLive: .idle(nanoseconds: 60_000_000_000)
      )
    )
    return (fixture, namespace)
  }

  @Test func aPinnedPrefixStaysAcrossARestart() throws {
    let (fixture, namespace) = try fixture(quotaBlocks: 8)
    try namespace.offload(QuotaTests.prompt(1))
    let pin = try #require(try namespace.pin(QuotaTests.prompt(1), seconds: 1000))
    #expect(pin.blockCount == 4)
    #expect(try namespace.pin(QuotaTests.prompt(7), seconds: 1000) == nil)
    for _ in 0..<2 {
      let namespace = try fixture.store.openNamespace(QuotaTests.inlineIdentity)
      for number in 2..<6 {
        try namespace.offload(QuotaTests.prompt(number))
        try fixture.store.flush()
      }
      clock.advance(seconds: 100)
      // Beyond its idle life, evicted by nobody, alone.
      #expect(try namespace.peek(QuotaTests.prompt(1)) == 4)
      #expect(try namespace.peek(QuotaTests.prompt(5)) == 0)
      #expect(try fixture.expiredBlockCount() == 4)
      #expect(try fixture.store.statistics().pinsActive == 1)
      try fixture.reopen()
    }
    let reopened = try fixture.store.openNamespace(QuotaTests.inlineIdentity)
    #expect(try reopened.peek(QuotaTests.prompt(1)) == 4)
    #expect(try fixture.store.unpin(pin.id))
    #expect(try !fixture.store.unpin(pin.id))
    // Without the pin its idle life is long over.
    #expect(try reopened.peek(QuotaTests.prompt(1)) == 0)
    #expect(try fixture.expiredBlockCount() == 4)
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  @Test func aPinEndsByItself() throws {
    let (fixture, namespace) = try fixture(quotaBlocks: 8)
    try namespace.offload(QuotaTests.prompt(1))
    _ = try namespace.pin(QuotaTests.prompt(1), seconds: 100)
    clock.advance(seconds: 100)
    #expect(try namespace.peek(QuotaTests.prompt(1)) == 4)
    clock.advance(nanoseconds: 1)
    #expect(try namespace.peek(QuotaTests.prompt(1)) == 0)
    #expect(try fixture.expiredBlockCount() == 4)
    #expect(try fixture.store.statistics().pinsActive == 0)
  }

  @Test func aForgottenPrefixIsGoneThoughPinned() throws {
    let (fixture, namespace) = try fixture(quotaBlocks: 8)
    try namespace.offload(QuotaTests.prompt(1))
    let pin = try #require(try namespace.pin(QuotaTests.prompt(1), seconds: 100))
    #expect(try namespace.forget(Array(QuotaTests.prompt(1).prefix(4))) == 4)
    #expect(try namespace.peek(QuotaTests.prompt(1)) == 0)
    // It holds nothing any more.
    #expect(try fixture.store.statistics().pinsActive == 0)
    #expect(try !fixture.store.unpin(pin.id))
  }

  /// One tenant takes all the pins it can and purges: the others still get theirs, before and after.
  @Test func oneTenantDoesNotTakeThePinsOfAll() throws {
    let fixture = try StoreFixture {
      $0.clock = clock
      $0.catalogBytes = 4 << 20
    }
    func tenant(_ name: String) throws -> Namespace {
      var identity = QuotaTests.inlineIdentity
      identity.salt = Array(name.utf8)
      return try fixture.store.openNamespace(identity)
    }
    let greedy = try tenant("greedy")
    let other = try tenant("other")
    for namespace in [greedy, other] { try namespace.offload(QuotaTests.prompt(1)) }
    try fixture.store.flush()
    var pinCount = 0
    while pinCount < 5000 {
      do {
        guard try greedy.pin(QuotaTests.prompt(1), seconds: 100) != nil else { break }
        pinCount += 1
      } catch let error as StoreError {
        #expect(error == .full)
        break
      }
    }
    #expect(pinCount > 100 && pinCount < 1000)
    #expect(try other.pin(QuotaTests.prompt(1), seconds: 100) != nil)
    #expect(try fixture.store.statistics().pinsActive == UInt64(pinCount) + 1)
    // The pins of what is purged leave at once.
    _ = try greedy.purge()
    #expect(try fixture.store.statistics().pinsActive == 1)
    try greedy.offload(QuotaTests.prompt(1))
    try fixture.store.flush()
    #expect(try greedy.pin(QuotaTests.prompt(1), seconds: 100) != nil)
    // Those that have ended make room without being asked to.
    for _ in 1..<pinCount {
      #expect(try greedy.pin(QuotaTests.prompt(1), seconds: 100) != nil)
    }
    #expect(throws: StoreError.full) { try greedy.pin(QuotaTests.prompt(1), seconds: 100) }
    clock.advance(seconds: 101)
    #expect(try greedy.pin(QuotaTests.prompt(1), seconds: 100) != nil)
    #expect(try fixture.store.garbage().endedPinCount == 0)
  }

  /// Everything is pinned: the writer finds no victim, and from then on offloads hear so at once.
  @Test func aStoreFullOfPinsSaysSoAtOnce() throws {
    let fixture = try StoreFixture {
      $0.capacityBytes = 64 << 20
      $0.hostBytes = 16 << 20
    }
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([1 << 20]))
    var pins: [UInt64] = []
    for number in 0..<40 {
      let prompt = QuotaTests.prompt(number, blocks: 1)
      try namespace.offload(prompt)
      if try fixture.store.flush().droppedFullBlockCount > 0 { break }
      pins.append(try #require(try namespace.pin(prompt, seconds: 1000)).id)
    }
    #expect(pins.count > 10 && pins.count < 40)
    // Now and then one is let through to try again.
    var problem: BlockOutcome?
    for _ in 0..<100 where problem == nil {
      problem = try namespace.offload(QuotaTests.prompt(50, blocks: 2)).firstProblem
      if problem == nil { try fixture.store.flush() }
    }
    #expect(problem == .full)
    let statistics = try fixture.store.statistics()
    #expect(statistics.blocksRefusedFull == 2 && statistics.blocksDroppedFull >= 1)
    #expect(try namespace.peek(QuotaTests.prompt(0, blocks: 1)) == 1)
    for pin in pins { #expect(try fixture.store.unpin(pin)) }
    #expect(try namespace.offload(QuotaTests.prompt(50, blocks: 2)).firstProblem == nil)
    #expect(try fixture.store.flush().durableBlockCount == 2)
  }
}

extension StoreFixture {
  /// Blocks removed because their life was over, since the open: by the store itself or now.
  fileprivate func expiredBlockCount() throws -> UInt64 {
    try store.reclaimExpired()
    return try store.statistics().blocksExpired
  }
}

extension Namespace {
  func pin(_ tokens: [UInt32], seconds: UInt64) throws -> (id: UInt64, blockCount: Int)? {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in
      try self.pin(prompt, nanoseconds: seconds * 1_000_000_000)
    }
  }
}
