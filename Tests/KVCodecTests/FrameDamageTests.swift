import KVCodec
import KVTestSupport
import Testing

/// The decoder takes any bytes: it answers or refuses, and stays within its target.
@Suite struct FrameDamageTests {
  private static func encoded(
    _ type: ElementType,
    _ random: inout SeededGenerator
  ) throws -> (stored: [UInt8], byteCount: Int) {
    let byteCount = 4096 * type.byteCount + Int.random(in: 0...3, using: &random)
    let payload = KVSample.channels.bytes(type, byteCount: byteCount, channelCount: 64, &random)
    let format = PayloadFormat(elementType: type, rowByteCount: 64 * type.byteCount)
    let encoded = try EncodedPayload(payload, [byteCount], format)
    try #require(encoded.storedByteCounts != nil)
    return (encoded.stored, byteCount)
  }

  /// Each byte of the header, each bit of it; and the length of the target.
  @Test(arguments: [ElementType.fp16, .bf16, .fp32, .int8, .opaque])
  func damagedHeaders(_ type: ElementType) throws {
    var random = SeededGenerator(seed: 1)
    let (stored, byteCount) = try Self.encoded(type, &random)
    for index in 0..<20 {
      for bit in 0..<8 {
        var damaged = stored
        damaged[index] ^= 1 << bit
        _ = try EncodedPayload.decode(damaged, byteCount: byteCount)
      }
    }
    for wrong in [0, 1, byteCount - 1, byteCount + 1, 2 * byteCount] where wrong > 0 {
      #expect(try EncodedPayload.decode(stored, byteCount: wrong) == nil)
    }
    for count in [0, 1, 19, 20, 21, stored.count / 2, stored.count - 1] {
      #expect(try EncodedPayload.decode(Array(stored.prefix(count)), byteCount: byteCount) == nil)
    }
  }

  /// Headers made of likely and of extreme numbers, before a real body.
  @Test(arguments: [UInt64(1), 2, 3, 4])
  func hostileHeaders(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let type = try #require([ElementType.fp16, .fp32, .int8].randomElement(using: &random))
    let (stored, byteCount) = try Self.encoded(type, &random)
    var accepted = 0
    for _ in 0..<3000 {
      var hostile = stored
      hostile[0] = .random(in: 0...3, using: &random)
      hostile[1] = .random(in: 0...8, using: &random)
      for offset in stride(from: 4, to: 20, by: 4) where Bool.random(using: &random) {
        let numbers = [
          0, 1, 2, 63, 64, 128, 256, byteCount, byteCount - 1, byteCount + 1, stored.count - 20,
          stored.count - 19, Int(Int32.max), Int(UInt32.max),
          .random(in: 0...2 * byteCount, using: &random),
        ]
        let number = numbers.randomElement(using: &random) ?? 0
        for byte in 0..<4 {
          hostile[offset + byte] = UInt8(truncatingIfNeeded: number >> (8 * byte))
        }
      }
      if try EncodedPayload.decode(hostile, byteCount: byteCount) != nil { accepted += 1 }
    }
    // The original header comes up now and then; that anything is decoded shows that the bodies were reached.
    #expect(accepted > 0 && accepted < 3000)
  }

  /// Bytes flipped, cut out, doubled anywhere.
  @Test(arguments: [UInt64(11), 12, 13, 14, 15, 16])
  func damagedBodies(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    let type = try #require(ElementType.allCases.randomElement(using: &random))
    let (stored, byteCount) = try Self.encoded(type, &random)
    for _ in 0..<400 {
      var damaged = stored
      for _ in 0..<Int.random(in: 1...8, using: &random) where !damaged.isEmpty {
        let index = Int.random(in: 0..<damaged.count, using: &random)
        switch Int.random(in: 0...3, using: &random) {
        case 0: damaged[index] = .random(in: 0...255, using: &random)
        case 1: damaged[index] ^= 1 << UInt8.random(in: 0...7, using: &random)
        case 2: damaged.removeSubrange(index..<min(damaged.count, index + 40))
        default:
          damaged.insert(contentsOf: damaged[index..<min(damaged.count, index + 40)], at: index)
        }
      }
      _ = try EncodedPayload.decode(damaged, byteCount: byteCount)
    }
  }

  @Test(arguments: [UInt64(21), 22])
  func anyBytes(_ seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    for _ in 0..<2000 {
      let count = Int.random(in: 0...200, using: &random)
      let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
      _ = try EncodedPayload.decode(bytes, byteCount: Int.random(in: 1...1000, using: &random))
    }
  }
}
