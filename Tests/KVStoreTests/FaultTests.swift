import Foundation
import KVCore
import KVFile
import KVStore
import KVTestSupport
import Testing

/// A disk that refuses: a status that says so, nothing that was confirmed lost, and the store lives on.
@Suite struct FaultTests {
  private static let identity = StoreFixture.identity([40_000, 24_000])
  private static let first = tokens(0..<40)
  private static let second = tokens(1000..<1040)

  @Test func aFullDiskIsAnOutcome() throws {
    let storage = FaultInjectingStorage()
    let fixture = try StoreFixture { $0.storage = storage }
    let namespace = try fixture.store.openNamespace(Self.identity)
    storage.add(.init(.allocate, number: 1, errno: ENOSPC, isLasting: true))
    #expect(try namespace.offload(Self.first).doneBlockCount == 10)
    let flushed = try fixture.store.flushTelling(timeoutNanoseconds: 0)
    #expect(flushed.droppedErrorBlockCount == 10 && flushed.droppedFullBlockCount == 0)
    #expect(flushed.durableBlockCount == 0 && flushed.error == .noSpace(.allocateSlotFile))
    #expect(try namespace.peek(Self.first) == 0)
    storage.removeFaults()
    try namespace.offload(Self.first)
    #expect(try fixture.store.flush().durableBlockCount == 10)
  }

  @Test(arguments: [FileOperation.write, .sync])
  func aFailedWriteIsReportedAndConfirmedBlocksStay(_ operation: FileOperation) throws {
    let storage = FaultInjectingStorage()
    let fixture = try StoreFixture { $0.storage = storage }
    let namespace = try fixture.store.openNamespace(Self.identity)
    try namespace.offload(Self.first)
    #expect(try fixture.store.flush().durableBlockCount == 10)
    let next = storage.count(of: operation) + 1
    storage.add(.init(operation, number: next, errno: EIO, isLasting: false))
    try namespace.offload(Self.second)
    #expect(throws: StoreError.io(.writeSlot, errno: EIO)) { try fixture.store.flush() }
    #expect(try namespace.peek(Self.second) == 0)
    storage.removeFaults()
    try fixture.reopen()
    let reopened = try fixture.store.openNamespace(Self.identity)
    let (result, isRight) = try reopened.restore(Self.first)
    #expect(isRight && result.doneBlockCount == 10)
    try reopened.offload(Self.second)
    #expect(try fixture.store.flush().durableBlockCount == 10)
  }

  @Test func aFailedReadIsAMissAndStoredAgain() throws {
    let storage = FaultInjectingStorage()
    let fixture = try StoreFixture { $0.storage = storage }
    try fixture.store.openNamespace(Self.identity).offload(Self.first)
    try fixture.store.flush()
    try fixture.reopen()
    let namespace = try fixture.store.openNamespace(Self.identity)
    let next = storage.count(of: .read) + 1
    storage.add(.init(.read, number: next, errno: EIO, isLasting: true))
    let (failed, _) = try namespace.restore(Self.first)
    #expect(failed.doneBlockCount == 0)
    storage.removeFaults()
    let statistics = try fixture.store.statistics()
    #expect(statistics.missesCorrupt == 0 && statistics.missesUnreadable == 1)
    #expect(try namespace.match(Self.first, .peek).blockCount == 0)
    try namespace.offload(Self.first)
    #expect(try fixture.store.flush().durableBlockCount == 10)
    try fixture.reopen()
    let (result, isRight) = try fixture.store.openNamespace(Self.identity).restore(Self.first)
    #expect(isRight && result.doneBlockCount == 10)
  }

  @Test func aReadThatTheProcessHasNoDescriptorForLosesNothing() throws {
    let storage = FaultInjectingStorage()
    let fixture = try StoreFixture { $0.storage = storage }
    try fixture.store.openNamespace(Self.identity).offload(Self.first)
    try fixture.store.flush()
    try fixture.reopen()
    let namespace = try fixture.store.openNamespace(Self.identity)
    storage.add(.init(.open, number: storage.count(of: .open) + 1, errno: EMFILE, isLasting: true))
    let (failed, _) = try namespace.restore(Self.first)
    #expect(failed.doneBlockCount == 0)
    #expect(try fixture.store.statistics().missesUnreadable > 0)
    storage.removeFaults()
    let (result, isRight) = try namespace.restore(Self.first)
    #expect(isRight && result.doneBlockCount == 10)
  }
}
