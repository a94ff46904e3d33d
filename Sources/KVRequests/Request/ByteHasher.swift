internal import KVCore

// Unsafe: lends the bytes of an array to XXH3, within its bounds.

/// 64-bit hashes of pieces of a text.
///
/// What they find alike is compared before anything is said about it.
struct ByteHasher {
  static func hash(_ bytes: [UInt8], _ range: Range<Int>) -> UInt64 {
    unsafe bytes.withUnsafeBytes {
      unsafe xxh3Checksum(UnsafeRawBufferPointer(rebasing: $0[range]))
    }
  }

  /// A hash that goes on from an earlier one.
  static func combined(_ a: UInt64, _ b: UInt64) -> UInt64 {
    var value = (a ^ (b &* 0x9E37_79B9_7F4A_7C15)) &* 0xD6E8_FEB8_6659_FD93
    value ^= value >> 32
    return value &* 0xD6E8_FEB8_6659_FD93
  }
}
