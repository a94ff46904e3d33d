internal import KVCore

/// The digests of a prompt's prefixes, as its namespace's side sections are found by them.
struct SectionDigests {
  /// Digest mode: the caller's own digest of each block, which stands for its whole prefix.
  fileprivate var given: [[UInt8]] = []
  /// Tokens mode: after each block.
  fileprivate var computed: [PrefixDigest] = []

  /// Of the first `count` blocks, at least one.
  func digest(ofBlocks count: Int) -> [UInt8] {
    given.isEmpty ? computed[count - 1].bytes : given[count - 1]
  }
}

extension NamespaceCore {
  /// The digests of each of the prompt's `blockCount` leading prefixes.
  func sectionDigests(of prompt: Prompt, upTo blockCount: Int) -> SectionDigests {
    var digests = SectionDigests()
    var digest = PrefixDigest()
    for block in 0..<blockCount {
      guard let block = self.block(block, of: prompt) else { break }
      switch identity.identityMode {
      case .digest: unsafe digests.given.append(Array(block.wordBytes))
      case .tokens:
        unsafe digest.append(words: block.wordBytes, extra: block.extra)
        digests.computed.append(digest)
      }
    }
    return digests
  }
}
