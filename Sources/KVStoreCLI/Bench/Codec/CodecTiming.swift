import Glibc
import KVCodec
import KVCore
import KVFile

/// One codec on one set of blocks.
struct CodecTiming {
  /// A line of the report.
  struct Row: CommandDocument {
    static let schema = "bench-codec"

    var workload = "codec"
    var codec: String
    var elementType: String
    var compressionRatio: Double
    var encodeBytesPerSecond: Double
    var decodeBytesPerSecond: Double
    /// Stored ÷ raw bytes of the block that shrank least; 1 for one that is stored as it is.
    var largestBlockRatio: Double
    var blocks: Int
    var rawBytes: Int
    var storedBytes: Int
    var runs: Int

    private enum CodingKeys: String, CodingKey {
      case workload, codec, blocks, runs
      case elementType = "element_type"
      case compressionRatio = "compression_ratio"
      case encodeBytesPerSecond = "encode_bytes_per_second"
      case decodeBytesPerSecond = "decode_bytes_per_second"
      case largestBlockRatio = "largest_block_ratio"
      case rawBytes = "raw_bytes"
      case storedBytes = "stored_bytes"
    }
  }

  private let codec: any BlockCodec
  private let blocks: [BlockBytes]
  private let runs: Int
  /// Each block has its room here, and its decoded bytes there, so that the processor's caches do not hold them.
  private let encoded: [AlignedBuffer]
  private let decoded: [AlignedBuffer]

  init(_ codec: any BlockCodec, _ blocks: [BlockBytes], runs: Int) throws {
    self.codec = codec
    self.blocks = blocks
    self.runs = runs
    encoded = try blocks.map { try AlignedBuffer(byteCount: codec.bound($0.byteCount)) }
    decoded = try blocks.map { try AlignedBuffer(byteCount: $0.byteCount) }
  }

  /// Encodes, decodes, compares, and times both.
  func row(_ type: ElementType) throws -> Row {
    var encodeTimes = Series()
    var decodeTimes = Series()
    var storedCounts: [Int?] = []
    for _ in 0..<runs {
      encodeTimes.values.append(Double(threadCPUNanoseconds { storedCounts = encodeAll() }))
    }
    // The first pass faults the memory in, and is the one that is compared.
    try decodeAll(storedCounts)
    for (block, copy) in zip(blocks, decoded) {
      let copied = unsafe UnsafeRawBufferPointer(rebasing: copy.readOnly[0..<block.byteCount])
      guard unsafe sameBytes(block.bytes, copied)
      else { throw CommandFailure("\(codec.name) gave back other bytes than it was given") }
    }
    for _ in 0..<runs {
      decodeTimes.values.append(Double(try threadCPUNanoseconds { try decodeAll(storedCounts) }))
    }
    let sizes = zip(blocks, storedCounts).map { block, stored in stored ?? block.byteCount }
    let raw = blocks.reduce(0) { $0 + $1.byteCount }
    let stored = sizes.reduce(0, +)
    return Row(
      codec: codec.name,
      elementType: type.name,
      compressionRatio: Double(raw) / Double(stored),
      encodeBytesPerSecond: 1e9 * Double(raw) / encodeTimes.median,
      decodeBytesPerSecond: 1e9 * Double(raw) / decodeTimes.median,
      largestBlockRatio: zip(blocks, sizes).map { Double($1) / Double($0.byteCount) }.max() ?? 1,
      blocks: blocks.count,
      rawBytes: raw,
      storedBytes: stored,
      runs: runs
    )
  }

  private func sameBytes(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
    guard let a = a.baseAddress, let first = b.baseAddress else { return false }
    return unsafe memcmp(a, first, b.count) == 0
  }

  private func encodeAll() -> [Int?] {
    blocks.indices.map { unsafe codec.encode(blocks[$0].bytes, into: encoded[$0].bytes) }
  }

  /// A block that did not shrink is stored as it is, so decoding is a copy.
  private func decodeAll(_ storedCounts: [Int?]) throws {
    for index in blocks.indices {
      let target = unsafe UnsafeMutableRawBufferPointer(
        rebasing: decoded[index].bytes[0..<blocks[index].byteCount]
      )
      if let count = storedCounts[index] {
        let stored = unsafe UnsafeRawBufferPointer(rebasing: encoded[index].readOnly[0..<count])
        guard unsafe codec.decode(stored, into: target) else {
          throw CommandFailure("\(codec.name) cannot decode what it has encoded")
        }
      } else {
        unsafe target.copyMemory(from: blocks[index].bytes)
      }
    }
  }
}
