internal import KVCatalog
internal import KVCore

/// The prefixes at which side sections may stand: those of the blocks that a repair gives back.
struct SectionOwners {
  /// By the digest of the identity record of a namespace that has sections: of each of its blocks the digest of the prefix.
  private var stored: [[UInt8]: Set<[UInt8]>] = [:]

  init(_ namespaces: some Sequence<RepairNamespace>) {
    for namespace in namespaces {
      if let section = namespace.identity.sideSection { stored[section.ownerDigest] = [] }
    }
  }

  /// What the sections of a namespace call it; nil when there are none.
  func owner(_ namespace: RepairNamespace) -> [UInt8]? {
    guard !stored.isEmpty else { return nil }
    let digest = SHA256.hash(namespace.row.identityRecord)
    return stored[digest] == nil ? nil : digest
  }

  /// Takes in a block that is given back, behind a prefix; returns the prefix that it ends.
  mutating func note(
    _ block: NewCatalog.Block,
    after prefix: PrefixDigest,
    _ namespace: RepairNamespace,
    _ owner: [UInt8]
  ) -> PrefixDigest {
    guard namespace.identity.identityMode == .tokens else {
      stored[owner]?.insert(block.words)
      return prefix
    }
    var digest = prefix
    unsafe block.words.withUnsafeBytes { words in
      unsafe block.extra.withUnsafeBytes { unsafe digest.append(words: words, extra: $0) }
    }
    stored[owner]?.insert(digest.bytes)
    return digest
  }

  /// Whether a block may be given back; a section only with the block that it stands behind.
  func hasBlock(of block: NewCatalog.Block, _ namespace: RepairNamespace) -> Bool {
    guard let section = namespace.identity.sideSection else { return true }
    return stored[section.ownerDigest]?.contains(block.words) ?? false
  }
}
