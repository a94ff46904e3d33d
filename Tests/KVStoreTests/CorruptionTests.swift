import Foundation
import KVCore
import KVStore
import Testing

/// Damaged slot files: a miss, counted and quarantined, never wrong bytes.
@Suite struct CorruptionTests {
  private static let identity = StoreFixture.identity([40_000, 24_000])
  private static let prompt = tokens(0..<40)

  /// A store of one prompt of ten blocks, closed, its slot file changed by `damage`, and opened again.
  private static func damaged(_ damage: (FileHandle, Int) throws -> Void) throws -> StoreFixture {
    let fixture = try StoreFixture()
    try fixture.store.openNamespace(identity).offload(prompt)
    try fixture.store.flush()
    let folder = fixture.configuration.path + "/slots"
    try fixture.reopen { _ in }
    let name = try #require(try FileManager.default.contentsOfDirectory(atPath: folder).first)
    let file = try #require(FileHandle(forUpdatingAtPath: folder + "/" + name))
    // Header page and payload, rounded up to pages.
    try damage(file, 4096 + 65_536)
    try file.synchronize()
    try file.close()
    return fixture
  }

  private static func flip(_ file: FileHandle, at offset: Int) throws {
    try file.seek(toOffset: UInt64(offset))
    let byte = try #require(try file.read(upToCount: 1)?.first)
    try file.seek(toOffset: UInt64(offset))
    try file.write(contentsOf: Data([byte ^ 0x10]))
  }

  @Test(arguments: [0, 9, 20, 50, 60, 75, 90, 170, 200, 4096, 30_000, 4096 + 40_000, 4096 + 63_999])
  func aFlippedByteIsAMiss(_ offset: Int) throws {
    let fixture = try Self.damaged { file, slotByteCount in
      try Self.flip(file, at: 5 * slotByteCount + offset)
    }
    let namespace = try fixture.store.openNamespace(Self.identity)
    #expect(try namespace.peek(Self.prompt) == 10)
    let (result, isRight) = try namespace.restore(Self.prompt)
    #expect(isRight && result.doneBlockCount == 5)
    let statistics = try fixture.store.statistics()
    #expect(statistics.missesCorrupt == 1 && statistics.missesStale == 0)
    // Hidden at once, removed by the writer with everything below it, and offered again.
    #expect(try namespace.peek(Self.prompt) == 5)
    try namespace.offload(Self.prompt)
    try fixture.store.flush()
    #expect(try fixture.store.statistics().blocksQuarantined == 5)
    let (again, isRightAgain) = try namespace.restore(Self.prompt)
    #expect(isRightAgain && again.doneBlockCount == 10)
  }

  @Test func swappedSlotsAreMisses() throws {
    let fixture = try Self.damaged { file, slotByteCount in
      try file.seek(toOffset: UInt64(2 * slotByteCount))
      let second = try #require(try file.read(upToCount: slotByteCount))
      let third = try #require(try file.read(upToCount: slotByteCount))
      try file.seek(toOffset: UInt64(2 * slotByteCount))
      try file.write(contentsOf: third + second)
    }
    let (result, isRight) = try fixture.store.openNamespace(Self.identity).restore(Self.prompt)
    #expect(isRight && result.doneBlockCount == 2)
  }

  @Test func aCutOffSlotFileIsAMiss() throws {
    let fixture = try Self.damaged { file, slotByteCount in
      try file.truncate(atOffset: UInt64(4 * slotByteCount + 100))
    }
    let (result, isRight) = try fixture.store.openNamespace(Self.identity).restore(Self.prompt)
    #expect(isRight && result.doneBlockCount == 4)
  }

  @Test func zeroedSlotFilesAreMisses() throws {
    let fixture = try Self.damaged { file, slotByteCount in
      try file.seek(toOffset: 0)
      try file.write(contentsOf: Data(count: 10 * slotByteCount))
    }
    let (result, _) = try fixture.store.openNamespace(Self.identity).restore(Self.prompt)
    #expect(result.doneBlockCount == 0)
  }

  /// The rows of another store's catalog do not fit these slots.
  @Test func slotsOfAnotherStoreAreMisses() throws {
    let first = try StoreFixture()
    try first.store.openNamespace(Self.identity).offload(Self.prompt)
    try first.store.flush()
    let second = try StoreFixture()
    try second.store.openNamespace(Self.identity).offload(Self.prompt)
    try second.store.flush()
    let slots = second.configuration.path + "/slots"
    let others = first.configuration.path + "/slots"
    try second.reopen()
    for name in try FileManager.default.contentsOfDirectory(atPath: others) {
      let bytes = try Data(contentsOf: URL(filePath: others + "/" + name))
      try bytes.write(to: URL(filePath: slots + "/" + name))
    }
    let (result, _) = try second.store.openNamespace(Self.identity).restore(Self.prompt)
    #expect(result.doneBlockCount == 0)
  }
}
