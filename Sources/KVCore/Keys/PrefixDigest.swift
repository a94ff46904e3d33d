/// The digest of a prefix of whole blocks, one block after the other: what a side section is found by.
///
/// SHA-256 over each block's words (u32, little-endian), the byte count of its extra bytes (u32) and these; docs/file-format.md,
/// "Side sections". The bytes of a section cannot be proven by token ids, so the digest must not be forgeable.
package struct PrefixDigest: Sendable {
  private var hasher = SHA256()

  /// Of no blocks.
  package init() {}

  /// Goes on with a block.
  package mutating func append(words: UnsafeRawBufferPointer, extra: UnsafeRawBufferPointer) {
    unsafe hasher.update(words)
    var extraByteCount = UInt32(extra.count).littleEndian
    unsafe withUnsafeBytes(of: &extraByteCount) { unsafe hasher.update($0) }
    unsafe hasher.update(extra)
  }

  /// 32 bytes.
  package var bytes: [UInt8] { hasher.finished() }
}
