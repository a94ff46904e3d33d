import KVCodec
import KVCore
import KVTestSupport
import Testing

@Suite struct SlotHeaderTests {
  static func header() -> SlotHeader {
    var header = SlotHeader()
    header.namespaceID = NamespaceID(rawValue: 7)
    header.storeUUID = Array(1...16)
    header.generation = Generation(rawValue: 99)
    header.rootKey = BlockKey(high: 1, low: 2)
    header.blockKey = BlockKey(high: 3, low: 4)
    header.parentKey = BlockKey(high: 5, low: 6)
    header.depth = 12
    header.payloadByteCount = 300
    header.storedByteCount = 300
    header.expiry = 1 << 60
    header.created = 1 << 59
    header.priority = 50
    header.regions = [
      .init(rawByteCount: 100, storedByteCount: 100, checksum: 0x1122),
      .init(rawByteCount: 200, storedByteCount: 200, checksum: 0x3344),
    ]
    header.words = [1, 0, 0, 0, 2, 0, 0, 0]
    header.extra = [9, 8, 7]
    return header
  }

  static func encoded() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 4096)
    bytes.withUnsafeMutableBytes { buffer in _ = header().encode(into: buffer) }
    return bytes
  }

  @Test func offsetsAreThoseOfTheFormat() {
    let bytes = Self.encoded()
    #expect(Array(bytes[0..<8]) == Array("KVSLOT".utf8) + [1, 10])
    #expect(bytes[8] == 1 && bytes[28] == 7 && bytes[48] == 99 && bytes[104] == 12)
    #expect(bytes[24] == UInt8(160 + 32 + 8 + 3))
    #expect(Array(bytes[32..<48]) == Array(1...16))
    #expect(bytes[63] == 1 && bytes[71] == 2 && bytes[79] == 3 && bytes[87] == 4)
    #expect(bytes[95] == 5 && bytes[103] == 6)
    #expect(bytes[108] == 2 && bytes[112] == 3 && bytes[116] == 2)
    #expect(bytes[145] == 2 && bytes[147] == 50)
    #expect(bytes[160] == 100 && bytes[168] == 0x22 && bytes[176] == 200)
    #expect(Array(bytes[192..<203]) == [1, 0, 0, 0, 2, 0, 0, 0, 9, 8, 7])
  }

  /// While the writer seals a header, generation and checksum do not agree: its regions can be read all the same.
  @Test func aTrustedHeaderIsReadWhileItIsSealed() throws {
    var bytes = Self.encoded()
    bytes[48] = 100
    try bytes.withUnsafeBytes { bytes in
      #expect(SlotHeaderView(bytes) == nil)
      let view = try #require(SlotHeaderView(trusted: bytes))
      #expect(view.regionCount == 2 && view.region(1) == Self.header().regions[1])
    }
    bytes[116] = 3
    bytes.withUnsafeBytes { bytes in #expect(SlotHeaderView(trusted: bytes) == nil) }
  }

  @Test func aHeaderReadsBack() throws {
    try Self.encoded().withUnsafeBytes { bytes in
      let view = try #require(SlotHeaderView(bytes))
      let header = Self.header()
      #expect(view.namespaceID == header.namespaceID && view.generation == header.generation)
      #expect(view.rootKey == header.rootKey && view.blockKey == header.blockKey)
      #expect(view.parentKey == header.parentKey && view.depth == 12)
      #expect(view.regionCount == 2 && view.region(1) == header.regions[1])
      #expect(view.words.elementsEqual(header.words) && view.extra.elementsEqual(header.extra))
      #expect(view.expiry == header.expiry && view.created == header.created)
      #expect(view.usedByteCount == header.usedByteCount)
    }
  }

  /// Each bit of the used part flipped: no view, or one whose checksum is not the one that the catalog holds.
  @Test func everyFlippedByteIsSeen() throws {
    let bytes = Self.encoded()
    let good = try #require(bytes.withUnsafeBytes { SlotHeaderView($0)?.checksum })
    for index in 0..<Self.header().usedByteCount {
      for bit in 0..<8 where index < 8 || index >= 16 || bit == 0 {
        var damaged = bytes
        damaged[index] ^= 1 << bit
        let checksum = damaged.withUnsafeBytes { SlotHeaderView($0)?.checksum }
        // Offset 12 (headerByteCount) is outside the checksum; the reader takes the namespace's.
        if (12..<16).contains(index) { continue }
        #expect(checksum != good, "byte \(index), bit \(bit)")
      }
    }
  }

  @Test(arguments: [UInt64(1), 2, 3, 4])
  func arbitraryBytesAreRefusedQuietly(_ seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let good = Self.encoded()
    for _ in 0..<2000 {
      var bytes = good
      bytes.removeLast(Int.random(in: 0...4096, using: &random))
      for _ in 0..<Int.random(in: 1...40, using: &random) where !bytes.isEmpty {
        let index = Int.random(in: 8..<max(9, min(204, bytes.count)), using: &random)
        if index < bytes.count { bytes[index] = .random(in: 0...255, using: &random) }
      }
      bytes.withUnsafeBytes { _ = SlotHeaderView($0)?.region(0) }
    }
  }

  @Test func sealingChangesTheChecksumWithTheGeneration() {
    var bytes = Self.encoded()
    bytes.withUnsafeMutableBytes { buffer in
      let one = SlotHeader.seal(buffer, generation: Generation(rawValue: 1))
      let two = SlotHeader.seal(buffer, generation: Generation(rawValue: 2))
      #expect(one != nil && two != nil && one != two)
      #expect(SlotHeaderView(UnsafeRawBufferPointer(buffer))?.generation.rawValue == 2)
    }
  }

  @Test func layoutIsThatOfTheFormat() {
    let layout = SlotLayout(
      regionByteCounts: [100, 200],
      wordsPerBlock: 16,
      extraByteCountMax: 256
    )
    #expect(layout.headerByteCount == 4096 && layout.slotByteCount == 8192)
    #expect(layout.regionOffset(0) == 4096 && layout.regionOffset(1) == 4196)
    let wide = SlotLayout(
      regionByteCounts: Array(repeating: 4096, count: 400),
      wordsPerBlock: 1024,
      extraByteCountMax: 0
    )
    #expect(wide.headerByteCount == 12_288 && wide.slotByteCount == 12_288 + 400 * 4096)
  }
}
