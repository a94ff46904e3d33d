import Foundation
import KVCore
import KVStore
import Testing

/// A namespace over its quota evicts its own blocks, and nobody else's.
@Suite struct QuotaTests {
  /// Bytes of a slot of `slotIdentity`: 4 KiB of header, 64 KiB of payload.
  static let slotBytes = 68 << 10
  static let slotIdentity = StoreFixture.identity([65_536])
  static let inlineIdentity = StoreFixture.identity([1000])

  static func prompt(_ number: Int, blocks: Int = 4) -> [UInt32] {
    (0..<blocks * 4).map { UInt32(number * 100_000 + $0) }
  }

  @Test(arguments: [(slotIdentity, slotBytes), (inlineIdentity, 1000)])
  func onlyItsOwnBlocksLeaveOldestFirst(identity: NamespaceIdentity, bytesPerBlock: Int) throws {
    let fixture = try StoreFixture()
    let other = try fixture.store.openNamespace(
      StoreFixture.identity(identity.regionByteCounts) { $0.modelName = "other" }
    )
    for number in 0..<6 { try other.offload(Self.prompt(number)) }
    let limited = try fixture.store.openNamespace(
      identity,
      limits: NamespaceLimits(quotaBytes: UInt64(10 * bytesPerBlock))
    )
    for number in 0..<6 {
      try limited.offload(Self.prompt(number))
      #expect(try fixture.store.flush().droppedFullBlockCount == 0)
      if number == 2 { #expect(try limited.touch(Self.prompt(1)) > 0) }
    }
    // 10 blocks: the last two prompts whole, and of the one before what comes first.
    let sizes = try (0..<6).map { try limited.peek(Self.prompt($0)) }
    #expect(sizes == [0, 0, 0, 2, 4, 4])
    #expect(try (0..<6).map { try other.peek(Self.prompt($0)) } == Array(repeating: 4, count: 6))
    // The same after a restart, from the catalog.
    try fixture.reopen()
    let reopened = try fixture.store.openNamespace(identity)
    #expect(try (0..<6).map { try reopened.peek(Self.prompt($0)) } == sizes)
    #expect(try reopened.restore(Self.prompt(5)).isRight)
  }

  @Test func aLongPromptKeepsItsFirstBlocks() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(
      Self.slotIdentity,
      limits: NamespaceLimits(quotaBytes: UInt64(5 * Self.slotBytes))
    )
    try namespace.offload(Self.prompt(1, blocks: 12))
    let flushed = try fixture.store.flush()
    #expect(flushed.durableBlockCount == 5 && flushed.droppedQuotaBlockCount == 7)
    #expect(try namespace.peek(Self.prompt(1, blocks: 12)) == 5)
    let (result, isRight) = try namespace.restore(Self.prompt(1, blocks: 5))
    #expect(result.doneBlockCount == 5 && isRight)
    // The slots of the seven are free again, and the next prompt takes its place.
    try namespace.offload(Self.prompt(2, blocks: 5))
    #expect(try fixture.store.flush().durableBlockCount == 5)
    #expect(try namespace.peek(Self.prompt(1, blocks: 5)) == 0)
    #expect(try namespace.restore(Self.prompt(2, blocks: 5)).isRight)
  }

  @Test func aQuotaMayChangeAndEnd() throws {
    let fixture = try StoreFixture()
    let open = { (quota: UInt64?) in
      try fixture.store.openNamespace(
        Self.inlineIdentity,
        limits: NamespaceLimits(quotaBytes: quota)
      )
    }
    let namespace = try open(nil)
    for number in 0..<5 { try namespace.offload(Self.prompt(number)) }
    try fixture.store.flush()
    #expect(try fixture.store.statistics().blocksStored == 20)
    // Kept at once, by the one that was there before as well.
    _ = try open(6000)
    #expect(try fixture.store.statistics().blocksStored == 6)
    #expect(try (0..<5).map { try namespace.peek(Self.prompt($0)) } == [0, 0, 0, 2, 4])
    // Opening without a word about it leaves it.
    try fixture.reopen()
    let reopened = try fixture.store.openNamespace(Self.inlineIdentity)
    for number in 5..<9 { try reopened.offload(Self.prompt(number)) }
    try fixture.store.flush()
    #expect(try fixture.store.statistics().blocksStored == 6)
    _ = try fixture.store.openNamespace(
      Self.inlineIdentity,
      limits: NamespaceLimits(quotaBytes: 0)
    )
    for number in 10..<15 { try reopened.offload(Self.prompt(number)) }
    try fixture.store.flush()
    #expect(try fixture.store.statistics().blocksStored == 26)
  }

  @Test func leasedBlocksStayAndTheNewOnesGo() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(
      Self.slotIdentity,
      limits: NamespaceLimits(quotaBytes: UInt64(4 * Self.slotBytes))
    )
    try namespace.offload(Self.prompt(1))
    try fixture.store.flush()
    let lease = try namespace.match(Self.prompt(1)).lease
    try namespace.offload(Self.prompt(2))
    // The writer may take them in two batches: then the first ones are refused, and those behind them lack their parent.
    let flushed = try fixture.store.flush()
    #expect(flushed.droppedQuotaBlockCount > 0)
    #expect(flushed.droppedQuotaBlockCount + flushed.droppedParentBlockCount == 4)
    #expect(try namespace.peek(Self.prompt(1)) == 4)
    #expect(try namespace.peek(Self.prompt(2)) == 0)
    #expect(try fixture.store.releaseLease(lease))
    try namespace.offload(Self.prompt(2))
    #expect(try fixture.store.flush().durableBlockCount == 4)
    #expect(try namespace.peek(Self.prompt(1)) == 0)
  }
}
