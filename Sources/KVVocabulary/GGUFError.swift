/// Why a GGUF file has no vocabulary to give.
package enum GGUFError: Error, Equatable {
  /// It cannot be read.
  case io(errno: Int32)
  /// It is something else.
  case notGGUF
  /// Of a version that is not read: 1, a newer one, or written big-endian.
  case version(UInt32)
  /// It ends, or says what cannot be, at this offset.
  case malformed(offset: Int)
  /// Its metadata are sound, and have no tokens.
  case noTokens
}
