import Foundation
import KVAdmin
import KVCore
import KVStore
import Testing

/// A store that is larger than its capacity comes back into it: it was opened with less than before.
@Suite struct CapacityTests {
  private static let small = 64 << 20
  private static let sizes = [[131_072, 131_072], [65_536, 24_000]]

  private static func fixture(_ change: (inout StoreConfiguration) -> Void = { _ in }) throws
    -> StoreFixture
  {
    try StoreFixture {
      $0.evictionPolicy = .lru
      $0.capacityBytes = 192 << 20
      $0.catalogBytes = 32 << 20
      $0.hostBytes = 8 << 20
      change(&$0)
    }
  }

  private static func prompt(_ number: Int, blocks: Int = 8) -> [UInt32] {
    (0..<blocks * 4).map { UInt32(number * 100_000 + $0) }
  }

  /// Prompts of two slot sizes, the first of which was used last.
  private static func fill(_ store: Store, _ count: Int = 44) throws -> [Namespace] {
    let namespaces = try sizes.map { try store.openNamespace(StoreFixture.identity($0)) }
    for number in 0..<count {
      for namespace in namespaces {
        #expect(try namespace.offload(prompt(number)).doneBlockCount == 8)
      }
    }
    try store.flush()
    for namespace in namespaces { #expect(try namespace.touch(prompt(0)) == 8) }
    try store.flush()
    return namespaces
  }

  private static func wait(_ seconds: Int = 60, until isTrue: () throws -> Bool) throws -> Bool {
    for _ in 0..<seconds * 50 {
      if try isTrue() { return true }
      usleep(20_000)
    }
    return try isTrue()
  }

  private static func isWithin(_ bound: Int, _ store: Store) throws -> Bool {
    try store.statistics().diskBytesUsed <= bound
  }

  /// What was used last stays, with its bytes; nothing dangles.
  @Test func aLowerCapacityIsCameDownTo() throws {
    let fixture = try Self.fixture()
    _ = try Self.fill(fixture.store)
    #expect(try fixture.store.statistics().diskBytesUsed > 100 << 20)
    let before = try fixture.store.statistics().blocksStored
    try fixture.reopen { $0.capacityBytes = Self.small }
    #expect(try Self.wait { try Self.isWithin(Self.small, fixture.store) })
    #expect(try EvictionTests.diskBytes(fixture.configuration.path) <= Self.small)
    let statistics = try fixture.store.statistics()
    #expect(statistics.blocksStored < before && statistics.blocksStored > 8)
    for size in Self.sizes {
      let namespace = try fixture.store.openNamespace(StoreFixture.identity(size))
      #expect(try namespace.peek(Self.prompt(0)) == 8)
      for number in 0..<44 { #expect(try namespace.restore(Self.prompt(number)).isRight) }
      #expect(try namespace.offload(Self.prompt(100)).doneBlockCount == 8)
    }
    try fixture.store.flush()
    #expect(try Self.isWithin(Self.small, fixture.store))
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  /// Pins win, until they end.
  @Test func whatIsPinnedStays() throws {
    let fixture = try Self.fixture()
    let namespace = try Self.fill(fixture.store, 1)[0]
    let long = Self.prompt(7, blocks: 300)
    #expect(try namespace.offload(long).doneBlockCount == 300)
    try fixture.store.flush()
    let pin = try Prompt.with(long) { (prompt) throws(StoreError) in
      try namespace.pin(prompt, nanoseconds: 3_600_000_000_000)
    }
    try fixture.reopen { $0.capacityBytes = Self.small }
    let again = try fixture.store.openNamespace(StoreFixture.identity(Self.sizes[0]))
    #expect(try Self.wait { try again.peek(Self.prompt(0)) == 0 })
    // The looks that come after find nothing that may go.
    usleep(1_500_000)
    #expect(try again.peek(long) == 300)
    #expect(try !Self.isWithin(Self.small, fixture.store))
    #expect(try again.restore(long).isRight)
    #expect(try fixture.store.unpin(try #require(pin).id))
    #expect(try Self.wait { try Self.isWithin(Self.small, fixture.store) })
    #expect(try again.peek(long) > 0)
    #expect(try again.restore(long).isRight)
  }

  /// With an archive what leaves the disk is still stored; an archive that is given less loses its coldest.
  @Test func anArchiveIsFilledAndCameDownTo() throws {
    let fixture = try Self.fixture {
      $0.archiveBytesMin = 1
      $0.archiveBytes = 256 << 20
      $0.archiveFileBytes = 1 << 20
    }
    _ = try Self.fill(fixture.store, 16)
    let before = try fixture.store.statistics().blocksStored
    try fixture.reopen { $0.capacityBytes = Self.small }
    #expect(try Self.wait { try fixture.store.statistics().archiveBytesUsed > 4 << 20 })
    #expect(try fixture.store.statistics().blocksStored == before)
    try fixture.reopen { $0.archiveBytes = 2 << 20 }
    #expect(try Self.wait { try fixture.store.statistics().archiveBytesUsed <= 2 << 20 })
    for size in Self.sizes {
      let namespace = try fixture.store.openNamespace(StoreFixture.identity(size))
      #expect(try namespace.peek(Self.prompt(0)) == 8)
      for number in 0..<16 { #expect(try namespace.restore(Self.prompt(number)).isRight) }
    }
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  /// A file whose emptying was interrupted is used again once there is room.
  @Test func aHigherCapacityEndsIt() throws {
    let fixture = try Self.fixture()
    _ = try Self.fill(fixture.store)
    // Whatever it comes to in between.
    for _ in 0..<5 {
      try fixture.reopen { $0.capacityBytes = Self.small }
      usleep(30_000)
      try fixture.reopen { $0.capacityBytes = 192 << 20 }
      _ = try Self.fill(fixture.store)
    }
    let statistics = try fixture.store.statistics()
    #expect(statistics.blocksStored >= 2 * 44 * 8)
    #expect(statistics.diskBytesUsed <= 192 << 20)
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  /// A tool that only looks after a store takes nothing from it.
  @Test func aToolLeavesItAsItIs() throws {
    let fixture = try Self.fixture()
    _ = try Self.fill(fixture.store)
    let before = try fixture.store.statistics().blocksStored
    try fixture.reopen {
      $0.capacityBytes = Self.small
      $0.holdsToCapacity = false
    }
    usleep(500_000)
    #expect(try fixture.store.statistics().blocksStored == before)
  }
}
