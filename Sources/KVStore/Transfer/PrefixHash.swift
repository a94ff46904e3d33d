internal import KVCore

/// A hash of the blocks before one, with a key that only this process has.
///
/// A block key can be forged, and with it that of a block that has the same words behind other ones. Who forges keys does not know
/// this one's: two prefixes that have one block key each other's have different hashes.
struct PrefixHash {
  private var hasher = Hasher()
  private var blockCount = 0

  /// Of the blocks before `block`, which is not before the one of the last call.
  mutating func value(before block: Int, of prompt: Prompt, _ namespace: NamespaceCore) -> Int {
    // A digest stands for all before it, and is compared whole.
    guard namespace.identity.identityMode == .tokens else { return 0 }
    while blockCount < block, let next = namespace.block(blockCount, of: prompt) {
      unsafe hasher.combine(bytes: next.wordBytes)
      hasher.combine(unsafe next.extra.count)
      unsafe hasher.combine(bytes: next.extra)
      blockCount += 1
    }
    return hasher.finalize()
  }
}
