import Foundation
import KVAdmin
import KVCore
import KVStore
import KVTestSupport
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

  // MARK: Every byte

  private static let small = StoreFixture.identity([8192])
  private static let smallSlotByteCount = 4096 + 8192
  /// Header, one region, four words.
  private static let headerByteCount = 160 + 16 + 16

  /// A closed store of one-block prompts; `damage` gets the slot file and the slot of each prompt.
  private static func damagedSlots(
    promptCount: Int,
    _ damage: (inout [UInt8], [Int]) throws -> Void
  ) throws -> StoreFixture {
    let fixture = try StoreFixture { $0.inlinePayloadBytesMax = 0 }
    let namespace = try fixture.store.openNamespace(small)
    for prompt in 0..<promptCount { try namespace.offload(onePrompt(prompt)) }
    try fixture.store.flush()
    let folder = fixture.configuration.path + "/slots/"
    let name = try #require(try FileManager.default.contentsOfDirectory(atPath: folder).first)
    try fixture.whileClosed {
      var bytes = [UInt8](try Data(contentsOf: URL(filePath: folder + name)))
      // The first word of a header tells whose the slot is.
      var slots = [Int](repeating: -1, count: promptCount)
      for slot in 0..<bytes.count / smallSlotByteCount
      where bytes[slot * smallSlotByteCount] == UInt8(ascii: "K") {
        let word = slot * smallSlotByteCount + 176
        slots[Int(bytes[word]) | Int(bytes[word + 1]) << 8] = slot
      }
      #expect(!slots.contains(-1))
      try damage(&bytes, slots)
      try Data(bytes).write(to: URL(filePath: folder + name))
    }
    return fixture
  }

  private static func onePrompt(_ prompt: Int) -> [UInt32] { [UInt32(prompt), 1, 2, 3] }

  /// Restores each prompt; returns which came back, and checks that those are right.
  private static func restored(_ fixture: StoreFixture, _ promptCount: Int) throws -> [Bool] {
    let namespace = try fixture.store.openNamespace(small)
    return try (0..<promptCount).map { prompt in
      let (result, isRight) = try namespace.restore(onePrompt(prompt))
      #expect(isRight, "prompt \(prompt)")
      return result.doneBlockCount == 1
    }
  }

  /// Each byte of a header in a slot of its own; one slot more is left as it was.
  @Test(arguments: [UInt8(0x01), 0x80, 0xFF])
  func everyByteOfTheHeaderCounts(_ mask: UInt8) throws {
    let count = Self.headerByteCount
    let fixture = try Self.damagedSlots(promptCount: count + 1) { bytes, slots in
      for offset in 0..<count { bytes[slots[offset] * Self.smallSlotByteCount + offset] ^= mask }
    }
    #expect(try fixture.store.verify().findingCount == count)
    let isThere = try Self.restored(fixture, count + 1)
    // What the header says of its own size (bytes 12 to 15) is not needed to read it, and not believed either.
    #expect((0..<count).filter { isThere[$0] } == [12, 13, 14, 15])
    #expect(isThere[count])
    #expect(try fixture.store.statistics().missesCorrupt == UInt64(count - 4))
    try fixture.store.flush()
    #expect(try fixture.store.statistics().blocksQuarantined == UInt64(count - 4))
    // What was quarantined is gone from the catalog; only the four sizes are left to be found.
    #expect(try fixture.store.verify().findingCount == 4)
  }

  @Test(arguments: [UInt64(1), 2]) func bytesOfThePayloadCount(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let count = 64
    let fixture = try Self.damagedSlots(promptCount: count) { bytes, slots in
      for slot in slots {
        let offset = 4096 + Int.random(in: 0..<8192, using: &random)
        bytes[slot * Self.smallSlotByteCount + offset] ^= UInt8.random(in: 1...255, using: &random)
      }
    }
    #expect(try fixture.store.verify().findings.count { $0.kind == .payload } == count)
    #expect(try Self.restored(fixture, count) == Array(repeating: false, count: count))
  }

  /// Slots as they were earlier: same store, same namespace, older generations.
  @Test func olderSlotsAreMisses() throws {
    let fixture = try StoreFixture { $0.inlinePayloadBytesMax = 0 }
    var namespace = try fixture.store.openNamespace(Self.small)
    let slots = fixture.configuration.path + "/slots/"
    for prompt in 0..<20 { try namespace.offload(Self.onePrompt(prompt), seed: 1) }
    try fixture.store.flush()
    let name = try #require(try FileManager.default.contentsOfDirectory(atPath: slots).first)
    let old = try Data(contentsOf: URL(filePath: slots + name))
    // The same slots are used again for the same prompts, with other bytes.
    for prompt in 0..<20 { #expect(try namespace.forget(Self.onePrompt(prompt)) == 1) }
    try fixture.reopen()
    namespace = try fixture.store.openNamespace(Self.small)
    for prompt in 0..<20 { try namespace.offload(Self.onePrompt(prompt), seed: 2) }
    try fixture.store.flush()
    try fixture.whileClosed { try old.write(to: URL(filePath: slots + name)) }
    #expect(try fixture.store.verify().findings.count { $0.kind == .slotHeader } == 20)
    namespace = try fixture.store.openNamespace(Self.small)
    for prompt in 0..<20 {
      let (result, _) = try namespace.restore(Self.onePrompt(prompt), seed: 2)
      #expect(result.doneBlockCount == 0)
    }
  }

  /// The catalog as it was earlier, beside newer slots: what it says is checked, so it is a miss or the right bytes.
  @Test func anOlderCatalogIsMissesOrRightBytes() throws {
    let fixture = try StoreFixture { $0.inlinePayloadBytesMax = 0 }
    var namespace = try fixture.store.openNamespace(Self.small)
    let catalog = URL(filePath: fixture.configuration.path + "/catalog.mdb")
    for prompt in 0..<40 { try namespace.offload(Self.onePrompt(prompt)) }
    try fixture.store.flush()
    var old = Data()
    try fixture.whileClosed { old = try Data(contentsOf: catalog) }
    namespace = try fixture.store.openNamespace(Self.small)
    for prompt in 0..<40 { #expect(try namespace.forget(Self.onePrompt(prompt)) == 1) }
    for prompt in 40..<60 { try namespace.offload(Self.onePrompt(prompt)) }
    try fixture.store.flush()
    try fixture.whileClosed { try old.write(to: catalog) }
    #expect(try Self.restored(fixture, 60).suffix(20).allSatisfy { !$0 })
  }
}
