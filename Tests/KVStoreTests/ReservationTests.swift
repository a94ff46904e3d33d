import Foundation
import KVCore
import KVFile
import KVStore
import KVTestSupport
import Testing

/// Offloads in two phases: arena memory is lent, written, then committed or not.
@Suite struct ReservationTests {
  private static let identity = StoreFixture.identity([40_000, 24_000])
  private static let prompt = tokens(0..<40)

  /// Writes what `regionBytes` gives into every reserved region; shortened to `lengths` where given.
  private static func write(
    _ reservation: OffloadReservation,
    _ identity: NamespaceIdentity,
    _ prompt: [UInt32],
    lengths: [Int]? = nil
  ) {
    for block in reservation.blocks {
      for region in identity.regionByteCounts.indices {
        let prefix = [0] + prompt[..<((block + 1) * identity.tokensPerBlock)]
        let index = (block - reservation.blocks.lowerBound) * 2 + region
        let count = lengths?[index] ?? identity.regionByteCounts[region]
        let bytes = regionBytes(prefix, region: region, count: count)
        _ = reservation.withMutableBytes(block: block, region: region) {
          $0.copyBytes(from: bytes)
        }
      }
    }
  }

  @Test(arguments: [identity, StoreFixture.identity([1000, 24])])
  func whatIsCommittedIsStored(_ identity: NamespaceIdentity) throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(identity)
    try namespace.offload(Array(Self.prompt[..<16]))
    let reservation = try namespace.reserve(Self.prompt)
    #expect(reservation.blocks == 4..<10)
    #expect(reservation.result.doneBlockCount == 10)
    #expect(reservation.result.hostBlockCount == 6 && reservation.result.diskBlockCount == 4)
    #expect(reservation.withMutableBytes(block: 3, region: 0) { _ in true } == nil)
    Self.write(reservation, identity, Self.prompt)
    // Not there before the commit.
    #expect(try namespace.peek(Self.prompt) == 4)
    let result = try reservation.commit()
    #expect(result.doneBlockCount == 6 && result.hostBlockCount == 6)
    #expect(result.byteCount == 6 * identity.regionByteCounts.reduce(0, +))
    #expect(try namespace.peek(Self.prompt) == 10)
    #expect(reservation.withMutableBytes(block: 4, region: 0) { _ in true } == nil)
    #expect(throws: StoreError.closed) { try reservation.commit() }
    #expect(try fixture.store.statistics().hostBytesLent == 0)
    #expect(try fixture.store.flush().durableBlockCount == 10)
    try fixture.reopen()
    let (restored, isRight) = try fixture.store.openNamespace(identity).restore(Self.prompt)
    #expect(isRight && restored.doneBlockCount == 10)
    // All there: nothing to write.
    let reopened = try fixture.store.openNamespace(identity)
    let none = try reopened.reserve(Self.prompt)
    #expect(none.blocks.isEmpty && none.result.doneBlockCount == 10)
    #expect(try none.commit().outcomes.isEmpty)
  }

  @Test func regionsOfVariableLengthArePacked() throws {
    let identity = StoreFixture.identity([40_000, 24_000]) { $0.regionsAreVariable = true }
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(identity)
    let lengths = [7, 24_000, 0, 1, 40_000, 24_000, 12_345, 0]
    let prompt = tokens(0..<16)
    let reservation = try namespace.reserve(prompt)
    Self.write(reservation, identity, prompt, lengths: lengths)
    #expect(throws: StoreError.invalidArgument(.spanLength)) { try reservation.commit() }
    var wrong = lengths
    wrong[3] = 24_001
    #expect(throws: StoreError.invalidArgument(.spanLength)) {
      try reservation.commit(lengths: wrong)
    }
    #expect(throws: StoreError.invalidArgument(.spanCount)) {
      try reservation.commit(lengths: [1])
    }
    // After a wrong argument it is still open.
    #expect(try reservation.commit(lengths: lengths).doneBlockCount == 4)
    try fixture.reopen()
    let view = try fixture.store.openNamespace(identity).view(prompt)
    for (index, length) in lengths.enumerated() {
      let prefix = [0] + prompt[..<((index / 2 + 1) * 4)]
      let wanted = regionBytes(prefix, region: index % 2, count: length)
      let isRight = view.withBytes(block: index / 2, region: index % 2) {
        UnsafeMutableRawBufferPointer(mutating: $0).isEqual(to: wanted)
      }
      #expect(isRight == true)
    }
    view.release()
  }

  @Test func anAbortLeavesNothing() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    let reservation = try namespace.reserve(Self.prompt)
    #expect(try fixture.store.statistics().hostBytesLent == 10 * 69_632)
    Self.write(reservation, Self.identity, Self.prompt)
    reservation.abort()
    reservation.abort()
    #expect(try fixture.store.statistics().hostBytesLent == 0)
    #expect(try namespace.peek(Self.prompt) == 0)
    #expect(throws: StoreError.closed) { try reservation.commit() }
    #expect(try namespace.reserve(Self.prompt, from: 4).result.firstProblem == .parentMissing)
  }

  /// A reservation that nobody ends does so by itself: who waits for room gets its slots.
  @Test func itEndsByItself() throws {
    let storage = FaultInjectingStorage()
    let fixture = try StoreFixture {
      $0.storage = storage
      $0.hostBytes = 1 << 20
    }
    let namespace = try fixture.store.openNamespace(Self.identity)
    let reservation = try namespace.reserve(
      Array(Self.prompt[..<28]),
      durationNanoseconds: 200_000_000
    )
    #expect(reservation.blocks == 0..<7)
    // Eight slots are left and the writer hangs: the other seven come when the time is over.
    storage.hold(.write)
    let other = TransferBuffers(Self.identity, blockCount: 15)
    other.fill(from: tokens(0..<60))
    let result = try other.offload(
      tokens(0..<60),
      to: namespace,
      timeoutNanoseconds: 60_000_000_000
    )
    #expect(result.doneBlockCount == 15)
    #expect(try reservation.commit().outcomes == Array(repeating: .busy, count: 7))
    #expect(try fixture.store.statistics().hostBytesLent == 0)
    storage.release()
    try fixture.store.flush()
    let (restored, isRight) = try namespace.restore(tokens(0..<60))
    #expect(isRight && restored.doneBlockCount == 15)
  }

  @Test func theBoundAndTheCloseHoldForReservationsToo() throws {
    let fixture = try StoreFixture { $0.hostBytes = 1 << 20 }
    let namespace = try fixture.store.openNamespace(Self.identity)
    let reservation = try namespace.reserve(Self.prompt)
    #expect(reservation.blocks == 0..<7 && reservation.result.firstProblem == .full)
    let none = try namespace.reserve(tokens(500..<508))
    #expect(none.blocks.isEmpty && none.result.outcomes == [.full, .full])
    try namespace.offload(tokens(1000..<1040))
    #expect(try fixture.store.flush().durableBlockCount == 10)
    try fixture.store.close()
    #expect(reservation.withMutableBytes(block: 0, region: 0) { _ in true } == nil)
    #expect(throws: (any Error).self) { try reservation.commit() }
    try fixture.reopenClosed()
    let reopened = try fixture.store.openNamespace(Self.identity)
    #expect(try reopened.peek(Self.prompt) == 0)
  }

  /// Two write the same blocks: the first commit counts, and the other one's slots come back.
  @Test func theFirstCommitCounts() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    let first = try namespace.reserve(Self.prompt)
    let second = try namespace.reserve(Self.prompt)
    for reservation in [first, second] { Self.write(reservation, Self.identity, Self.prompt) }
    #expect(try first.commit().doneBlockCount == 10)
    #expect(try second.commit().doneBlockCount == 10)
    let statistics = try fixture.store.statistics()
    #expect(statistics.blocksOffloaded == 10 && statistics.blocksDeduplicated == 10)
    #expect(try fixture.store.flush().durableBlockCount == 10)
    let (result, isRight) = try namespace.restore(Self.prompt)
    #expect(isRight && result.doneBlockCount == 10)
  }
}
