import KVCodec
import Testing

/// Frames put together by hand from docs/file-format.md, so that what was written once stays readable.
@Suite struct FrameFormatTests {
  /// A zstd frame with one raw block (RFC 8878): magic, single segment, content size, last block.
  private static func zstd(_ bytes: [UInt8]) -> [UInt8] {
    [0x28, 0xB5, 0x2F, 0xFD, 0x20, UInt8(bytes.count), UInt8(bytes.count * 8 + 1), 0, 0] + bytes
  }

  private static func header(
    _ method: UInt8,
    _ type: UInt8,
    raw: Int,
    stored: Int,
    segment: Int = 0,
    row: Int = 0
  ) -> [UInt8] {
    [method, type, 0, 0]
      + [raw, stored, segment, row].flatMap { number in
        (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
      }
  }

  private static func words(_ words: [UInt16]) -> [UInt8] {
    words.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }
  }

  @Test func rawAndZstdFrames() throws {
    let bytes: [UInt8] = Array(0..<30)
    let raw = Self.header(0, 0, raw: 30, stored: 30) + bytes
    #expect(try EncodedPayload.decode(raw, byteCount: 30) == bytes)
    // A block of one repeated byte (RLE): type 1, size 200.
    let repeated: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0x20, 200, 0x43, 0x06, 0, 7]
    let frame = Self.header(1, 1, raw: 200, stored: repeated.count) + repeated
    #expect(
      try EncodedPayload.decode(raw + frame, byteCount: 230)
        == bytes + [UInt8](repeating: 7, count: 200)
    )
  }

  /// Two channels, two segments, a byte behind the last element.
  ///
  /// fp16: eeeee s mm | mmmmmmmm.
  @Test func shiftedFrameOfFP16() throws {
    // 1.0 = 0 01111 0000000000, -2.0 = 1 10000 0000000000, 0.5 = 0 01110 …, -3.5 = 1 10000 1100000000 and so on.
    let elements: [UInt16] = [0x3C00, 0xC000, 0x3801, 0xC3FF, 0x7C00, 0x8000, 0xFE55, 0x0001]
    // Shifts are in units of 4 here: half an exponent, so an odd one turns the sign around.
    let shifts: [UInt8] = [30, 33, 1, 62]
    var symbols: [UInt8] = []
    for (index, element) in elements.enumerated() {
      let exponent = UInt8(element >> 10 & 0x1F)
      let sign = UInt8(element >> 15)
      let high = exponent << 3 | sign << 2 | UInt8(element >> 8 & 3)
      symbols.append(high &- shifts[index / 4 * 2 + index % 2] << 2)
    }
    let body =
      Self.zstd(shifts) + Self.zstd(symbols) + elements.map { UInt8($0 & 0xFF) } + [0x99]
    // Only what shrinks is stored so; a header may not claim otherwise.
    let honest = Self.header(2, 1, raw: 17, stored: body.count, segment: 8, row: 4)
    #expect(try EncodedPayload.decode(honest + body, byteCount: 17) == nil)

    // The same with many rows: the second segment 100 times.
    let many = Array(elements[0..<4]) + (0..<100).flatMap { _ in elements[4..<8] }
    let manySymbols = Array(symbols[0..<4]) + (0..<100).flatMap { _ in symbols[4..<8] }
    let rest = many.map { UInt8($0 & 0xFF) } + [0x99]
    let manyShifts = Array(shifts[0..<2]) + (0..<100).flatMap { _ in shifts[2..<4] }
    // One zstd frame for both instead of two: what the frames hold lies side by side all the same.
    let content = manyShifts + manySymbols
    let encoded = try EncodedPayload(
      content,
      [content.count],
      PayloadFormat(elementType: .opaque, rowByteCount: 0)
    )
    #expect(encoded.stored[0] == 1)
    let manyBody = Array(encoded.stored[20...]) + rest
    let frame =
      Self.header(2, 1, raw: many.count * 2 + 1, stored: manyBody.count, segment: 8, row: 4)
      + manyBody
    #expect(
      try EncodedPayload.decode(frame, byteCount: many.count * 2 + 1) == Self.words(many) + [0x99]
    )
  }

  /// No channels: one segment, no shifts.
  ///
  /// bf16: the exponent | mantissa, sign.
  @Test func shiftedFrameOfBF16WithoutChannels() throws {
    let elements = [UInt16](repeating: 0xBF81, count: 64)
    // 1 01111111 0000001: exponent 127; rest 0000001 1. The symbols are one block of repeated bytes.
    let symbols: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0x20, 64, 0x03, 0x02, 0, 127]
    let body = symbols + [UInt8](repeating: 3, count: 64)
    let frame = Self.header(2, 2, raw: 128, stored: body.count, segment: 128) + body
    #expect(try EncodedPayload.decode(frame, byteCount: 128) == Self.words(elements))
  }
}
