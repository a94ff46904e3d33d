import Foundation
import KVCore
import KVFile
import KVStore
import KVTestSupport
import Testing

/// A disk that hangs: a call with a timeout ends, and nothing writes into the caller's memory after that.
@Suite struct DeadlineTests {
  private static let identity = StoreFixture.identity([40_000, 24_000])
  private static let prompt = tokens(0..<40)

  /// Ten blocks on disk, and no copy in RAM.
  private static func storedFixture(_ storage: FaultInjectingStorage) throws -> StoreFixture {
    // An arena of 15 blocks: slots that did not come back would be missed.
    let fixture = try StoreFixture {
      $0.storage = storage
      $0.hostBytes = 1 << 20
    }
    try fixture.store.openNamespace(identity).offload(prompt)
    try fixture.store.flush()
    try fixture.reopen()
    return fixture
  }

  @Test(arguments: [0..<2, 1..<2])
  func aRestoreEndsAtItsDeadlineAndLeavesTheMemoryAlone(_ regions: Range<Int>) throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage)
    let namespace = try fixture.store.openNamespace(Self.identity)
    #expect(try namespace.peek(Self.prompt) == 10)
    let buffers = TransferBuffers(Self.identity, blockCount: 10, regions: regions)
    storage.hold(.read)
    let held = try buffers.restore(Self.prompt, from: namespace, timeoutNanoseconds: 500_000_000)
    #expect(held.outcomes == Array(repeating: .busy, count: 10))
    #expect(held.doneBlockCount == 0 && held.byteCount == 0)
    #expect(storage.waitUntilHeld(1))
    // The reads that hang now go on; what they bring is not for this memory any more.
    buffers.fill(0x5A)
    storage.release()
    let other = TransferBuffers(Self.identity, blockCount: 10, regions: regions)
    #expect(try other.restore(Self.prompt, from: namespace).doneBlockCount == 10)
    #expect(other.isRight(Self.prompt))
    #expect(buffers.isFilled(with: 0x5A))
    // Every arena slot came back: as many blocks as it has room for have a copy in it.
    let longer = tokens(0..<60)
    try namespace.offload(longer)
    try fixture.store.flush()
    let (result, isRight) = try namespace.restore(longer)
    #expect(isRight && result.doneBlockCount == 15)
    #expect(try namespace.match(longer, .peek).hostBlockCount == 15)
    #expect(try fixture.store.statistics().missesCorrupt == 0)
  }

  @Test func theBlocksBeforeTheDeadlineAreGood() throws {
    let storage = FaultInjectingStorage()
    let fixture = try Self.storedFixture(storage)
    let namespace = try fixture.store.openNamespace(Self.identity)
    let buffers = TransferBuffers(Self.identity, blockCount: 10)
    storage.hold(.read)
    storage.release(3)
    let result = try buffers.restore(Self.prompt, from: namespace, timeoutNanoseconds: 300_000_000)
    // Which reads go on is the threads' matter: what is done is a prefix, the rest is busy.
    #expect(result.doneBlockCount <= 3)
    #expect(result.outcomes[result.doneBlockCount...].allSatisfy { $0 == .busy })
    #expect(buffers.isRight(Self.prompt, blockCount: result.doneBlockCount))
    storage.release()
  }

  @Test func aTimeoutThatIsLongEnoughChangesNothing() throws {
    let fixture = try Self.storedFixture(FaultInjectingStorage())
    let namespace = try fixture.store.openNamespace(Self.identity)
    for _ in 0..<2 {
      let buffers = TransferBuffers(Self.identity, blockCount: 10)
      let result = try buffers.restore(
        Self.prompt,
        from: namespace,
        timeoutNanoseconds: 60_000_000_000
      )
      #expect(result.doneBlockCount == 10 && buffers.isRight(Self.prompt))
    }
  }

  @Test func anOffloadEndsAtItsOwnDeadline() throws {
    let storage = FaultInjectingStorage()
    // An arena of 16 blocks, and a writer that cannot write: the seventeenth has no room.
    let fixture = try StoreFixture {
      $0.storage = storage
      $0.hostBytes = 17 * 72 << 10
    }
    let namespace = try fixture.store.openNamespace(Self.identity)
    let prompt = tokens(0..<120)
    storage.hold(.write)
    let buffers = TransferBuffers(Self.identity, blockCount: 30)
    buffers.fill(from: prompt)
    let result = try buffers.offload(prompt, to: namespace, timeoutNanoseconds: 500_000_000)
    #expect(result.doneBlockCount < 30 && result.outcomes.last == .busy)
    storage.release()
    #expect(try buffers.offload(prompt, to: namespace).doneBlockCount == 30)
    try fixture.store.flush()
    let (restored, isRight) = try namespace.restore(prompt)
    #expect(isRight && restored.doneBlockCount == 30)
  }

  /// A region range reads the header and those regions, not what lies between them.
  @Test func aRegionRangeReadsThoseRegionsOnly() throws {
    let identity = StoreFixture.identity(Array(repeating: 128 << 10, count: 8))
    let fixture = try StoreFixture()
    try fixture.store.openNamespace(identity).offload(Self.prompt)
    try fixture.reopen()
    let namespace = try fixture.store.openNamespace(identity)
    let before = try fixture.store.statistics().diskBytesRead
    let (result, isRight) = try namespace.restore(Self.prompt, regions: 6..<8)
    #expect(isRight && result.doneBlockCount == 10)
    let read = try fixture.store.statistics().diskBytesRead - before
    #expect(read == 10 * (4096 + 2 * 128 << 10))
  }

  @Test func estimatesComeFromWhatWasMeasured() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    try namespace.offload(Self.prompt)
    // Nothing was restored yet, so nothing is known.
    #expect(try namespace.match(Self.prompt, .peek).restoreNanosecondsEstimated == 0)
    try namespace.restore(Self.prompt)
    let fromHost = try namespace.match(Self.prompt)
    #expect(fromHost.hostBlockCount == 10 && fromHost.restoreNanosecondsEstimated > 0)
    let first = try fixture.store.statistics()
    #expect(first.restoredBytesHost == 640_000 && first.restoredBytesDisk == 0)
    #expect(first.matchBlocksHost == 10 && first.matchBlocksDisk == 0)
    #expect(first.bytesPerSecondHost > 0 && first.bytesPerSecondDisk == 0)
    // The first restore had no estimate to be held against.
    #expect(first.restoreNanosecondsMeasured == 0)
    try namespace.restore(Self.prompt)
    let second = try fixture.store.statistics()
    #expect(second.restoreNanosecondsEstimated > 0 && second.restoreNanosecondsMeasured > 0)
    // Half of a prompt is expected to take about half of its time: bytes ÷ bandwidth.
    let half = try namespace.match(Array(Self.prompt[..<20]), .peek).restoreNanosecondsEstimated
    let whole = try namespace.match(Self.prompt, .peek).restoreNanosecondsEstimated
    #expect(half * 2 <= whole + 2 && whole <= half * 2 + 2)

    try fixture.reopen()
    let reopened = try fixture.store.openNamespace(Self.identity)
    let cold = try reopened.match(Self.prompt)
    #expect(cold.diskBlockCount == 10 && cold.restoreNanosecondsEstimated == 0)
    try reopened.restore(Self.prompt)
    let statistics = try fixture.store.statistics()
    #expect(statistics.restoredBytesDisk == 640_000 && statistics.bytesPerSecondDisk > 0)
    #expect(statistics.matchBlocksDisk == 10)
  }
}
