import KVCodec
import KVTestSupport
import Testing

struct NoMemory: Error {}

/// What an encoder made of a payload.
struct EncodedPayload {
  var stored: [UInt8]
  /// Of each region; nil when the payload is to be stored as it is.
  var storedByteCounts: [Int]?

  init(_ payload: [UInt8], _ regions: [Int], _ format: PayloadFormat) throws {
    guard let encoder = PayloadEncoder() else { throw NoMemory() }
    var target = [UInt8](repeating: 0xAA, count: PayloadEncoder.bound(regions))
    storedByteCounts = payload.withUnsafeBytes { payload in
      target.withUnsafeMutableBytes {
        encoder.encode(payload, regionByteCounts: regions, format, into: $0)
      }
    }
    stored =
      storedByteCounts == nil ? payload : Array(target.prefix(storedByteCounts?.reduce(0, +) ?? 0))
  }

  /// Decodes the bytes into a target with guards around it; nil when they are refused.
  static func decode(_ stored: [UInt8], byteCount: Int) throws -> [UInt8]? {
    guard let decoder = FrameDecoder() else { throw NoMemory() }
    let guardByteCount = 256
    var memory = [UInt8](repeating: 0xC3, count: byteCount + 2 * guardByteCount)
    // A copy of its own, so that the address sanitizer sees a read beyond its end.
    let source = UnsafeMutableRawBufferPointer.allocate(byteCount: stored.count, alignment: 1)
    defer { source.deallocate() }
    source.copyBytes(from: stored)
    let read = memory.withUnsafeMutableBytes { memory in
      decoder.decode(
        UnsafeRawBufferPointer(source),
        into: UnsafeMutableRawBufferPointer(
          rebasing: memory[guardByteCount..<guardByteCount + byteCount]
        )
      )
    }
    #expect(memory.prefix(guardByteCount).allSatisfy { $0 == 0xC3 }, "written before the target")
    #expect(memory.suffix(guardByteCount).allSatisfy { $0 == 0xC3 }, "written behind the target")
    guard let read else { return nil }
    #expect(read <= stored.count)
    return Array(memory.dropFirst(guardByteCount).prefix(byteCount))
  }
}

@Suite struct PayloadCodecTests {
  /// Every type, every kind of data, region and row lengths that fit and that do not.
  @Test(arguments: ElementType.allCases)
  func whatIsEncodedComesBack(_ type: ElementType) throws {
    for seed in UInt64(1)...24 {
      var random = SeededGenerator(seed: seed)
      let sample = try #require(KVSample.allCases.randomElement(using: &random))
      let channels = try #require([1, 3, 32, 64, 100, 256].randomElement(using: &random))
      let row = try #require([0, channels * type.byteCount, 7].randomElement(using: &random))
      var format = PayloadFormat(elementType: type, rowByteCount: row)
      if Bool.random(using: &random) {
        format.tensorByteCount = Int.random(in: 0...9000, using: &random)
      }
      let regions: [Int] =
        switch Int.random(in: 0...2, using: &random) {
        case 0: [Int.random(in: 1...40_000, using: &random)]
        case 1:
          Array(
            repeating: 16 * channels * type.byteCount,
            count: Int.random(in: 1...6, using: &random)
          )
        default: (0..<5).map { _ in Int.random(in: 0...5000, using: &random) }
        }
      let byteCount = regions.reduce(0, +)
      let payload = sample.bytes(type, byteCount: byteCount, channelCount: channels, &random)
      let encoded = try EncodedPayload(payload, regions, format)
      let words = "seed \(seed), \(sample), \(format), \(regions)"
      #expect(encoded.stored.count <= payload.count, "larger than raw: \(words)")
      guard let counts = encoded.storedByteCounts else {
        #expect(sample != .zeros || byteCount < 64, "zeros did not shrink: \(words)")
        continue
      }
      #expect(encoded.stored.count < payload.count)
      #expect(
        try EncodedPayload.decode(encoded.stored, byteCount: byteCount) == payload,
        "\(words)"
      )
      try expectGroupsDecodeAlone(payload, regions, counts, encoded.stored, words)
    }
  }

  /// A region with stored bytes, and those behind it without, make a group that decodes without the others.
  private func expectGroupsDecodeAlone(
    _ payload: [UInt8],
    _ regions: [Int],
    _ counts: [Int],
    _ stored: [UInt8],
    _ words: String
  ) throws {
    var raw = 0
    var at = 0
    var region = 0
    while region < regions.count {
      var past = region + 1
      while past < regions.count, counts[past] == 0 { past += 1 }
      let byteCount = regions[region..<past].reduce(0, +)
      let group = Array(stored[at..<at + counts[region]])
      let expected = Array(payload[raw..<raw + byteCount])
      if byteCount > 0 {
        #expect(try EncodedPayload.decode(group, byteCount: byteCount) == expected, "\(words)")
      }
      raw += byteCount
      at += counts[region]
      region = past
    }
  }

  /// All bit patterns of an element, in an order that gives each channel its own part of them.
  @Test(arguments: [ElementType.fp16, .bf16, .fp8E4M3, .fp8E5M2, .int8, .q8_0])
  func everyBitPatternComesBack(_ type: ElementType) throws {
    var payload: [UInt8] = []
    let count = type.byteCount == 2 ? 65_536 : 256
    for repeated in 0..<(count == 256 ? 16 : 1) {
      for index in 0..<count {
        // Sixteen channels, one for each value of the topmost bits.
        let pattern = (index % 16) * (count / 16) + (index / 16 + repeated) % (count / 16)
        payload.append(UInt8(truncatingIfNeeded: pattern))
        if type.byteCount == 2 { payload.append(UInt8(truncatingIfNeeded: pattern >> 8)) }
      }
    }
    let format = PayloadFormat(elementType: type, rowByteCount: 16 * type.byteCount)
    let encoded = try EncodedPayload(payload, [payload.count], format)
    // Each channel is of one magnitude: without the shifts there would be nothing to gain.
    #expect(encoded.storedByteCounts != nil && encoded.stored[0] == 2)
    #expect(try EncodedPayload.decode(encoded.stored, byteCount: payload.count) == payload)
  }

  @Test func noiseIsStoredAsItIs() throws {
    for type in ElementType.allCases {
      var random = SeededGenerator(seed: 5)
      let payload = KVSample.random.bytes(type, byteCount: 20_000, channelCount: 1, &random)
      let format = PayloadFormat(elementType: type, rowByteCount: 64 * type.byteCount)
      #expect(try EncodedPayload(payload, [12_000, 8_000], format).storedByteCounts == nil)
    }
  }

  /// A frame that does not shrink does so raw, with 20 bytes of framing, beside one that does.
  @Test func aFrameThatDoesNotShrinkIsRaw() throws {
    var random = SeededGenerator(seed: 6)
    let noise = KVSample.random.bytes(.fp16, byteCount: 4001, channelCount: 1, &random)
    let zeros = [UInt8](repeating: 0, count: 4000)
    let encoded = try EncodedPayload(
      noise + zeros,
      [4001, 4000],
      PayloadFormat(elementType: .fp16, rowByteCount: 64)
    )
    #expect(encoded.storedByteCounts?[0] == 4001 + 20)
    #expect(Array(encoded.stored[20..<4021]) == noise)
    #expect(try EncodedPayload.decode(encoded.stored, byteCount: 8001) == noise + zeros)
  }

  /// The shifts are what makes the difference: data with a scale for each channel, with and without them.
  @Test(arguments: [ElementType.fp16, .bf16, .fp32, .fp8E5M2])
  func channelsShrinkFurtherWithTheirRow(_ type: ElementType) throws {
    var random = SeededGenerator(seed: 7)
    let payload = KVSample.channels.bytes(
      type,
      byteCount: 64 * 256 * type.byteCount,
      channelCount: 256,
      &random
    )
    func size(_ row: Int) throws -> Int {
      try EncodedPayload(
        payload,
        [payload.count],
        PayloadFormat(elementType: type, rowByteCount: row)
      ).stored.count
    }
    let shifted = try size(256 * type.byteCount)
    let plain = try size(0)
    #expect(Double(shifted) < 0.97 * Double(plain), "\(shifted) against \(plain) bytes")
  }

  @Test func theRowIsFound() {
    for (type, channels) in [(ElementType.fp16, 256), (.bf16, 128), (.fp16, 64)] {
      var random = SeededGenerator(seed: 8)
      let payload = KVSample.channels.bytes(
        type,
        byteCount: 65_536,
        channelCount: channels,
        &random
      )
      let format = payload.withUnsafeBytes { PayloadFormat.detect($0, type) }
      #expect(format.rowByteCount == channels * type.byteCount)
    }
    var random = SeededGenerator(seed: 9)
    let noise = KVSample.random.bytes(.fp16, byteCount: 65_536, channelCount: 1, &random)
    #expect(noise.withUnsafeBytes { PayloadFormat.detect($0, .fp16) }.rowByteCount == 0)
  }

  @Test func elementTypesAreKnownByTheirNames() {
    for type in ElementType.allCases { #expect(ElementType(name: type.name) == type) }
    #expect(ElementType(name: "Float16") == .fp16 && ElementType(name: "bfloat16") == .bf16)
    #expect(ElementType(name: "fp8_e4m3") == .fp8E4M3 && ElementType(name: "q4_0") == nil)
  }
}
