import Foundation
import KVAdmin
import KVCore
import KVStore
import Testing

/// A catalog that is full evicts; grown, it keeps more.
@Suite struct GrowCatalogTests {
  private static func prompt(_ number: Int) -> [UInt32] {
    (0..<16).map { UInt32(number * 100 + $0) }
  }

  /// Blocks that are there of prompts whose payload lives in the catalog.
  private static func fill(_ fixture: StoreFixture, _ prompts: Range<Int>) throws -> Int {
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([9_000, 3_000]))
    for number in prompts {
      try namespace.offload(prompt(number))
      if number % 16 == 15 { _ = try fixture.store.flush() }
    }
    _ = try fixture.store.flush()
    return try prompts.reduce(0) { $0 + (try namespace.peek(prompt($1))) }
  }

  @Test func grownCatalogKeepsMore() throws {
    let fixture = try StoreFixture { $0.catalogBytes = 4 << 20 }
    let before = try Self.fill(fixture, 0..<160)
    // 640 blocks of 12 KB are more than it can hold.
    #expect(before < 400)
    #expect(throws: StoreError.locked(.inUse)) {
      try Store.growCatalog(fixture.configuration, to: 32 << 20)
    }
    try fixture.whileClosed {
      let growth = try Store.growCatalog(fixture.configuration, to: 32 << 20)
      #expect(growth.catalogBytesBefore == 4 << 20)
      #expect(growth.catalogBytes == 32 << 20)
    }
    #expect(try fixture.store.statistics().catalogBytesCapacity == 32 << 20)
    #expect(try Self.fill(fixture, 0..<160) == 640)
    try fixture.reopen()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([9_000, 3_000]))
    for number in 0..<160 { #expect(try namespace.restore(Self.prompt(number)).isRight) }
    #expect(try fixture.store.verify().findings == [])
    // A repair makes its catalog as large again, from identities.kvs alone.
    try fixture.whileClosed {
      try FileManager.default.removeItem(atPath: fixture.configuration.path + "/catalog.mdb")
      _ = try Store.repair(fixture.configuration)
    }
    #expect(try fixture.store.statistics().catalogBytesCapacity == 32 << 20)
  }

  /// The bound of the disk holds: what the catalog may take is not the slot files' any more.
  @Test func growthThatTheCapacityDoesNotHoldIsRefused() throws {
    let fixture = try StoreFixture {
      $0.capacityBytes = 64 << 20
      $0.catalogBytes = 4 << 20
    }
    let namespace = try fixture.store.openNamespace(StoreFixture.identity())
    for number in 0..<300 { try namespace.offload(Self.prompt(number)) }
    _ = try fixture.store.flush()
    try fixture.whileClosed {
      #expect(throws: StoreError.full) {
        try Store.growCatalog(fixture.configuration, to: 32 << 20)
      }
      for wrong in [0, 4 << 20, 1 << 20, 63 << 20, .max] {
        #expect(throws: StoreError.invalidArgument(.catalogSize)) {
          try Store.growCatalog(fixture.configuration, to: wrong)
        }
      }
      var larger = fixture.configuration
      larger.capacityBytes = 96 << 20
      let growth = try Store.growCatalog(larger, to: 32 << 20)
      #expect(growth.capacityBytesNeeded <= 96 << 20)
      #expect(try Store.recordedCapacity(larger) == 96 << 20)
    }
  }
}
