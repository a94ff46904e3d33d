/// Derives the block keys of one namespace.
///
/// In tokens mode each key is chained over its parent's; in digest mode the caller's digest is chained already, and
/// each key stands alone. The bytes that are hashed are defined in docs/file-format.md.
package struct KeyChain: Sendable {
  package let rootKey: BlockKey
  package let identityMode: IdentityMode
  /// Words (u32) of each block: its token ids, or its digest.
  package let wordsPerBlock: Int
  /// Bits of each key that are kept.
  ///
  /// Tests narrow it to force collisions; 128 otherwise.
  package let keyBitCount: Int

  package init(
    rootKey: BlockKey,
    identityMode: IdentityMode,
    wordsPerBlock: Int,
    keyBitCount: Int = 128
  ) {
    self.rootKey = rootKey
    self.identityMode = identityMode
    self.wordsPerBlock = wordsPerBlock
    self.keyBitCount = keyBitCount
  }

  /// The key of the block with these `wordsPerBlock` words (host byte order = little-endian) after `parentKey`.
  package func key(
    after parentKey: BlockKey,
    words: UnsafeRawPointer,
    extra: UnsafeRawBufferPointer
  ) -> BlockKey {
    let wordByteCount = wordsPerBlock * 4
    let byteCount = 16 + 4 + wordByteCount + 4 + extra.count
    let parent = identityMode == .digest ? rootKey : parentKey
    let key = unsafe withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: 8) { buffer in
      unsafe buffer.storeBytes(of: parent.high.bigEndian, toByteOffset: 0, as: UInt64.self)
      unsafe buffer.storeBytes(of: parent.low.bigEndian, toByteOffset: 8, as: UInt64.self)
      unsafe buffer.storeBytes(
        of: UInt32(truncatingIfNeeded: wordsPerBlock).littleEndian,
        toByteOffset: 16,
        as: UInt32.self
      )
      unsafe buffer.baseAddress.unsafelyUnwrapped.advanced(by: 20)
        .copyMemory(from: words, byteCount: wordByteCount)
      unsafe buffer.storeBytes(
        of: UInt32(truncatingIfNeeded: extra.count).littleEndian,
        toByteOffset: 20 + wordByteCount,
        as: UInt32.self
      )
      if let extraBase = extra.baseAddress, unsafe !extra.isEmpty {
        unsafe buffer.baseAddress.unsafelyUnwrapped.advanced(by: 24 + wordByteCount)
          .copyMemory(from: extraBase, byteCount: extra.count)
      }
      return xxh3Key(UnsafeRawBufferPointer(buffer))
    }
    return narrowed(key)
  }

  private func narrowed(_ key: BlockKey) -> BlockKey {
    if keyBitCount >= 128 { return key }
    let mask = keyBitCount >= 64 ? UInt64.max : (1 << UInt64(keyBitCount)) - 1
    return BlockKey(high: 0, low: key.low & mask)
  }
}
