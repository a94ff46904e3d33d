import KVCodec
import KVTestSupport

/// Payload bytes to put a codec to the test with.
enum KVSample: String, CaseIterable, Sendable {
  /// Like real KV: each channel has a scale and a sign of its own.
  case channels
  /// Any bits at all, so NaNs with payloads and denormals too.
  case random
  /// NaNs of all kinds, infinities, zeros of both signs, denormals, the largest numbers.
  case extremes
  case zeros
  /// A text that repeats.
  case repeating

  /// `byteCount` bytes; `channelCount` matters to `channels`.
  func bytes(
    _ type: ElementType,
    byteCount: Int,
    channelCount: Int,
    _ random: inout SeededGenerator
  ) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(byteCount + 4)
    switch self {
    case .random:
      while bytes.count < byteCount { bytes.append(.random(in: 0...255, using: &random)) }
    case .zeros: bytes = Array(repeating: 0, count: byteCount)
    case .repeating: while bytes.count < byteCount { bytes += Array("the same words again; ".utf8) }
    case .extremes:
      let extremes = Self.extremes(type)
      while bytes.count < byteCount {
        Self.append(extremes.randomElement(using: &random) ?? 0, type, &bytes)
      }
    case .channels:
      let scales = (0..<max(channelCount, 1)).map { _ in Float.random(in: -6...6, using: &random) }
      let signs = scales.map { _ in Float(Int.random(in: 0...1, using: &random)) }
      var channel = 0
      while bytes.count < byteCount {
        // Four uniform numbers are normal enough.
        var normal: Float = 0
        for _ in 0..<4 { normal += Float.random(in: -0.5...0.5, using: &random) }
        let value = (normal + 0.7 * signs[channel]) * Self.exp2(scales[channel])
        Self.append(Self.pattern(value, type), type, &bytes)
        channel = (channel + 1) % scales.count
      }
    }
    return Array(bytes.prefix(byteCount))
  }

  private static func append(_ pattern: UInt32, _ type: ElementType, _ bytes: inout [UInt8]) {
    for index in 0..<type.byteCount {
      bytes.append(UInt8(truncatingIfNeeded: pattern >> (8 * index)))
    }
  }

  private static func pattern(_ value: Float, _ type: ElementType) -> UInt32 {
    switch type {
    case .fp16: halfPattern(value)
    case .bf16: value.bitPattern >> 16
    case .fp32: value.bitPattern
    case .fp8E5M2: halfPattern(value) >> 8
    case .fp8E4M3, .int8, .q8_0, .opaque: UInt32(UInt8(bitPattern: Int8(clamping: Int(value * 16))))
    }
  }

  /// Truncated to fp16; out of its range is infinite, below it zero.
  private static func halfPattern(_ value: Float) -> UInt32 {
    let bits = value.bitPattern
    let exponent = Int(bits >> 23 & 0xFF) - 127 + 15
    let sign = bits >> 16 & 0x8000
    if exponent <= 0 { return sign }
    if exponent >= 31 { return sign | 0x7C00 }
    return sign | UInt32(exponent) << 10 | (bits >> 13 & 0x3FF)
  }

  private static func extremes(_ type: ElementType) -> [UInt32] {
    switch type {
    case .fp16:
      [
        0, 0x8000, 1, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7C01, 0x7E00,
        0xFFFF,
      ]
    case .bf16:
      [0, 0x8000, 1, 0x8001, 0x007F, 0x0080, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7F81, 0xFFFF]
    case .fp32:
      [
        0, 0x8000_0000, 1, 0x8000_0001, 0x007F_FFFF, 0x7F7F_FFFF, 0x7F80_0000, 0xFF80_0000,
        0x7F80_0001, .max,
      ]
    case .fp8E4M3, .fp8E5M2, .int8, .q8_0, .opaque:
      [0, 0x80, 1, 0x81, 0x7F, 0xFF, 0x7C, 0xFC, 0x7E, 0x78]
    }
  }

  private static func exp2(_ value: Float) -> Float {
    var result: Float = 1
    for _ in 0..<Int(value.magnitude.rounded(.down)) { result *= 2 }
    return value < 0 ? 1 / result : result
  }
}
