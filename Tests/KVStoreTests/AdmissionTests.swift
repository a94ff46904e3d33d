import KVCore
import KVReplaySupport
import KVStore
import Testing

/// What is admitted to disk, and what is declined.
@Suite struct AdmissionTests {
  private static let identity = StoreFixture.identity([40_000, 24_000])
  private static let slotByteCount = 4096 + 65_536

  private static func prompt(_ number: Int) -> [UInt32] { QuotaTests.prompt(number, blocks: 10) }

  @Test func whatIsOfferedTwiceIsTaken() throws {
    let fixture = try StoreFixture { $0.admission = .secondTouch }
    let namespace = try fixture.store.openNamespace(Self.identity)
    let first = try namespace.offload(Self.prompt(1))
    #expect(first.outcomes == Array(repeating: .declined, count: 10))
    #expect(try fixture.store.flush().durableBlockCount == 0)
    #expect(try namespace.peek(Self.prompt(1)) == 0)
    // Half of it was offered before, the rest goes on from it.
    let longer = Array(Self.prompt(1).prefix(20)) + QuotaTests.prompt(9, blocks: 5)
    let second = try namespace.offload(longer)
    #expect(second.doneBlockCount == 5 && second.firstProblem == .declined)
    #expect(try namespace.offload(longer).firstProblem == nil)
    #expect(try fixture.store.flush().durableBlockCount == 10)
    #expect(try namespace.restore(longer).isRight)
    let statistics = try fixture.store.statistics()
    #expect(statistics.blocksDeclined == 15 && statistics.blocksOffloaded == 10)
  }

  /// Layer by layer: the call with the first region decides.
  @Test func regionsThatComeOneByOneAreDecidedOnce() throws {
    let fixture = try StoreFixture { $0.admission = .secondTouch }
    let namespace = try fixture.store.openNamespace(Self.identity)
    for round in 0..<2 {
      for region in 0..<2 {
        let result = try namespace.offload(Self.prompt(1), regions: region..<region + 1)
        #expect(result.firstProblem == (round == 0 ? .declined : nil))
      }
    }
    #expect(try fixture.store.flush().durableBlockCount == 10)
    #expect(try namespace.restore(Self.prompt(1)).isRight)
  }

  @Test func adaptiveTakesWhatGoesOnAndWhatThereIsRoomFor() throws {
    let fixture = try StoreFixture {
      $0.admission = .adaptive
      $0.capacityBytes = 64 << 20
      $0.catalogBytes = 56 << 20
    }
    let namespace = try fixture.store.openNamespace(Self.identity)
    for number in 0..<12 {
      try namespace.offload(Self.prompt(number))
      try fixture.store.flush()
    }
    #expect(try fixture.store.statistics().blocksEvicted > 0)
    #expect(try namespace.offload(Self.prompt(20)).firstProblem == .declined)
    #expect(try namespace.peek(Self.prompt(20)) == 0)
    let stored = try #require(try (0..<12).last { try namespace.peek(Self.prompt($0)) == 10 })
    #expect(try namespace.offload(Self.prompt(stored) + tokens(1..<9)).firstProblem == nil)
    #expect(try namespace.offload(Self.prompt(20)).firstProblem == nil)
  }

  @Test func theBudgetIsKept() throws {
    let clock = ManualClock()
    let fixture = try StoreFixture {
      $0.clock = clock
      // Twenty blocks at once, and another one every three minutes.
      $0.writeBytesPerDay = 24 * 20 * Self.slotByteCount
    }
    let namespace = try fixture.store.openNamespace(Self.identity)
    for number in 0..<5 { try namespace.offload(Self.prompt(number)) }
    try fixture.store.flush()
    var statistics = try fixture.store.statistics()
    #expect(statistics.blocksOffloaded == 20 && statistics.blocksDeclined == 30)
    #expect(statistics.diskBytesWritten == 20 * UInt64(Self.slotByteCount))
    clock.advance(nanoseconds: 15 * 60 * 1_000_000_000)
    #expect(try namespace.offload(Self.prompt(4)).doneBlockCount == 5)
    clock.advance(nanoseconds: 30 * 86_400 * 1_000_000_000)
    #expect(try namespace.offload(QuotaTests.prompt(7, blocks: 40)).doneBlockCount == 20)
    try fixture.store.flush()
    statistics = try fixture.store.statistics()
    #expect(statistics.blocksOffloaded == 45)
  }
}
