/// Which prefixes a server has seen: the prompts of all requests, cut into blocks whose hashes are chained, as a store keys them.
///
/// A set of 64-bit hashes says how far a prompt was sent before, by whichever request, without keeping any of them.
struct PrefixBlocks {
  /// About 64 tokens.
  static let byteCount = 256

  /// Of each block, when it was used last: Unix seconds, 0 where no times are known.
  private var uses: [UInt64: UInt32] = [:]

  /// How much of a prompt was there.
  struct Found {
    /// Leading bytes that were there and are not too old.
    var byteCount: Int
    /// The same, however old.
    var presentByteCount: Int
  }

  /// Looks a prompt up, and enters it; `seed` is of what the whole prompt hangs on, blocks last used before `oldest` are forgotten.
  mutating func use(_ prompt: [UInt8], seed: UInt64, time: UInt32, oldest: UInt32) -> Found {
    var found = Found(byteCount: 0, presentByteCount: 0)
    var isPresent = true
    var isFresh = true
    var chain = seed
    var start = 0
    while start + Self.byteCount <= prompt.count {
      let end = start + Self.byteCount
      chain = ByteHasher.combined(chain, ByteHasher.hash(prompt, start..<end))
      if isPresent, let last = uses[chain] {
        found.presentByteCount = end
        if isFresh, last >= oldest { found.byteCount = end } else { isFresh = false }
      } else {
        isPresent = false
      }
      uses[chain] = time
      start = end
    }
    return found
  }
}
