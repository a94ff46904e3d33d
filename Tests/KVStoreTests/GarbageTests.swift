import Foundation
import KVAdmin
import KVCore
import KVReplaySupport
import KVStore
import Testing

@Suite struct GarbageTests {
  private static func tokens(_ first: Int, blocks: Int) -> [UInt32] {
    (0..<blocks * 4).map { UInt32(first * 1000 + $0) }
  }

  private func slotFileCount(_ fixture: StoreFixture) throws -> Int {
    try FileManager.default.contentsOfDirectory(atPath: fixture.configuration.path + "/slots").count
  }

  /// What a look says is what is removed, and looking removes nothing.
  @Test func whatHasExpiredGoesAndItsRoomIsGivenBack() throws {
    let clock = ManualClock()
    let fixture = try StoreFixture { $0.clock = clock }
    let slots = StoreFixture.identity([1 << 20])
    let minute = NamespaceLimits(timeToLive: .idle(nanoseconds: 60_000_000_000))
    let short = try fixture.store.openNamespace(slots, limits: minute)
    let kept = try fixture.store.openNamespace(StoreFixture.identity([40_000]))
    // A path and a branch of it.
    let path = Self.tokens(1, blocks: 8)
    try short.offload(path)
    try short.offload(path.prefix(20) + Self.tokens(2, blocks: 4))
    let staying = Self.tokens(3, blocks: 2)
    try kept.offload(staying)
    try fixture.store.flush()
    #expect(try fixture.store.garbage() == Garbage())
    let filesBefore = try slotFileCount(fixture)
    let stray = fixture.configuration.path + "/slots/0200000099.kvs"
    try fixture.whileClosed {
      clock.advance(seconds: 61)
      try Data(count: 8192).write(to: URL(filePath: stray))
      var readOnly = fixture.configuration
      readOnly.readOnly = true
      let look = try Store.open(readOnly)
      let garbage = try look.garbage()
      #expect(garbage.expiredBlockCount == 12)
      #expect(garbage.strayFileCount == 1)
      #expect(garbage.strayByteCount == 8192)
      #expect(garbage.emptyFileCount == 0)
      #expect(try slotFileCount(fixture) == filesBefore + 1)
      try look.close()
    }
    let removed = try fixture.store.collectGarbage()
    #expect(try fixture.store.statistics().blocksExpired == 12)
    #expect(removed.fileCount >= 1)
    #expect(removed.byteCount >= 12 << 20)
    #expect(
      try slotFileCount(fixture) == filesBefore - removed.fileCount,
      "\(filesBefore) \(removed)"
    )
    let left = try fixture.store.garbage()
    #expect(left == Garbage(), "\(left)")
    #expect(try fixture.store.verify().findings.isEmpty)
    // The store takes blocks of that size again.
    let again = try fixture.store.openNamespace(slots)
    let reopened = try fixture.store.openNamespace(StoreFixture.identity([40_000]))
    #expect(try reopened.peek(staying) == 2)
    try again.offload(path)
    try fixture.store.flush()
    #expect(try again.peek(path) == 8)
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  /// Beside another handle that writes all the time: nothing of it is lost.
  @Test func goesOnBesideAWriter() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([1 << 20]))
    for round in 1...4 {
      let prompt = Self.tokens(round, blocks: 4)
      try namespace.offload(prompt)
      _ = try fixture.store.collectGarbage()
      try fixture.store.flush()
      #expect(try namespace.restore(prompt).result.doneBlockCount == 4)
      if round % 2 == 0 { _ = try namespace.forget([]) }
    }
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  @Test func aPinByNumberNeedsNoSalt() throws {
    let fixture = try StoreFixture()
    let identity = StoreFixture.identity([4096]) { $0.salt = Array("secret".utf8) }
    let namespace = try fixture.store.openNamespace(identity)
    let prompt = Self.tokens(1, blocks: 6)
    try namespace.offload(Array(prompt[..<16]))
    try fixture.store.flush()
    let pin = try #require(
      try fixture.store.pin(prompt, in: namespace.id, nanoseconds: 60_000_000_000)
    )
    #expect(pin.blockCount == 4)
    #expect(try fixture.store.inspector.pins().map(\.id) == [pin.id])
    #expect(try fixture.store.pin([9, 9, 9, 9], in: namespace.id, nanoseconds: 1) == nil)
    #expect(throws: StoreError.invalidArgument(.namespace)) {
      try fixture.store.pin(prompt, in: NamespaceID(rawValue: 77), nanoseconds: 1)
    }
    #expect(throws: StoreError.invalidArgument(.pinDuration)) {
      try fixture.store.pin(prompt, in: namespace.id, nanoseconds: 0)
    }
    #expect(try fixture.store.unpin(pin.id))
    #expect(try !fixture.store.unpin(pin.id))
  }
}
