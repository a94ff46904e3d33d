import KVCodec
import KVCore
import KVTestSupport
import Testing

/// Slots of the disk tier become slots of the archive tier, and come back.
@Suite struct SlotCodingTests {
  private static let headerByteCount = 4096
  private static let format = PayloadFormat(elementType: .fp16, rowByteCount: 128)

  /// A raw slot whose regions are as long as given.
  private static func slot(_ regions: [Int], _ sample: KVSample, seed: UInt64) -> [UInt8] {
    var random = SeededGenerator(seed: seed)
    let byteCount = regions.reduce(0, +)
    let payload = sample.bytes(.fp16, byteCount: byteCount, channelCount: 64, &random)
    var header = SlotHeaderTests.header()
    header.payloadByteCount = UInt32(byteCount)
    header.storedByteCount = UInt32(byteCount)
    var offset = 0
    header.regions = regions.map { count in
      defer { offset += count }
      let checksum = payload[offset..<offset + count].withUnsafeBytes { xxh3Checksum($0) }
      return SlotHeader.Region(
        rawByteCount: UInt32(count),
        storedByteCount: UInt32(count),
        checksum: checksum
      )
    }
    var bytes = [UInt8](repeating: 0, count: headerByteCount)
    bytes.withUnsafeMutableBytes { _ = header.encode(into: $0) }
    return bytes + payload
  }

  private static func encode(
    _ slot: [UInt8],
    _ regions: [Int]
  ) throws -> (result: SlotEncoder.Result, bytes: [UInt8])? {
    guard let encoder = SlotEncoder() else { throw NoMemory() }
    let bound = SlotEncoder.bound(headerByteCount: headerByteCount, regionByteCounts: regions)
    var target = [UInt8](repeating: 0xAA, count: bound)
    let result = slot.withUnsafeBytes { slot in
      target.withUnsafeMutableBytes { target in
        encoder.encode(
          slot,
          headerByteCount: headerByteCount,
          format,
          generation: Generation(rawValue: 1234),
          into: target
        )
      }
    }
    return result.map { ($0, Array(target.prefix($0.byteCount))) }
  }

  private static func decode(_ bytes: [UInt8], _ wanted: Range<Int>, byteCount: Int) throws
    -> [UInt8]?
  {
    guard let decoder = SlotDecoder() else { throw NoMemory() }
    var target = [UInt8](repeating: 0, count: byteCount)
    let isGood = bytes.withUnsafeBytes { bytes in
      target.withUnsafeMutableBytes {
        decoder.decode(bytes, headerByteCount: headerByteCount, regions: [wanted], into: $0)
      }
    }
    return isGood ? target : nil
  }

  @Test(
    arguments: [[8192], [8192, 8192, 8192, 100], [0, 70_000, 5, 0], [300_000]],
    [KVSample.channels, .random, .zeros]
  )
  func aSlotComesBack(_ regions: [Int], _ sample: KVSample) throws {
    let slot = Self.slot(regions, sample, seed: 3)
    let (result, bytes) = try #require(try Self.encode(slot, regions))
    #expect(result.byteCount % 4096 == 0 && result.byteCount == bytes.count)
    #expect(result.codec == (sample == .random ? 0 : 1))
    #expect(bytes.count <= (slot.count + 4095) / 4096 * 4096)
    let view = try #require(bytes.withUnsafeBytes { SlotHeaderView($0)?.checksum })
    #expect(view == result.headerChecksum)
    let decoded = try #require(
      try Self.decode(bytes, 0..<regions.count, byteCount: slot.count)
    )
    #expect(decoded[Self.headerByteCount...] == slot[Self.headerByteCount...])
    // The header is the raw slot's again, but for the generation.
    try decoded.withUnsafeBytes { decoded in
      try slot.withUnsafeBytes { slot in
        let new = SlotHeader(try #require(SlotHeaderView(decoded)))
        var old = SlotHeader(try #require(SlotHeaderView(slot)))
        old.generation = Generation(rawValue: 1234)
        #expect(new == old)
      }
    }
  }

  @Test func someRegionsAreDecodedAlone() throws {
    let regions = Array(repeating: 40_000, count: 5)
    let slot = Self.slot(regions, .channels, seed: 4)
    var (_, bytes) = try #require(try Self.encode(slot, regions))
    // What is not asked for is not looked at: the last region's bytes may be damaged.
    let last = try #require(bytes.lastIndex { $0 != 0 })
    bytes[last] ^= 1
    let decoded = try #require(try Self.decode(bytes, 1..<3, byteCount: slot.count))
    let start = Self.headerByteCount + 40_000
    #expect(decoded[start..<start + 80_000] == slot[start..<start + 80_000])
    #expect(try Self.decode(bytes, 0..<5, byteCount: slot.count) == nil)
    #expect(try Self.decode(bytes, 4..<5, byteCount: slot.count) == nil)
  }

  @Test func damageIsNotHandedOn() throws {
    let regions = [8192, 8192]
    var slot = Self.slot(regions, .channels, seed: 5)
    slot[Self.headerByteCount + 9000] ^= 4
    #expect(try Self.encode(slot, regions) == nil)
    slot = Self.slot(regions, .channels, seed: 5)
    slot.removeLast()
    #expect(try Self.encode(slot, regions) == nil)
  }

  /// Every byte of an archive slot: refused, or what it was.
  @Test func everyFlippedByteIsSeen() throws {
    let regions = [4096, 4096]
    let slot = Self.slot(regions, .channels, seed: 6)
    let (result, bytes) = try #require(try Self.encode(slot, regions))
    let used = Self.headerByteCount + result.storedByteCount
    for index in [Int](0..<230) + [Int](Self.headerByteCount..<used) {
      var damaged = bytes
      damaged[index] ^= 0x10
      guard let decoded = try Self.decode(damaged, 0..<2, byteCount: slot.count) else { continue }
      #expect(decoded[Self.headerByteCount...] == slot[Self.headerByteCount...], "byte \(index)")
    }
    for count in [0, 100, 4096, 4097, used - 1] {
      #expect(try Self.decode(Array(bytes.prefix(count)), 0..<2, byteCount: slot.count) == nil)
    }
    #expect(try Self.decode(bytes, 0..<2, byteCount: slot.count - 1) == nil)
  }
}
