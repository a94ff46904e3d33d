internal import KVCore

/// A namespace of side sections, as a removal needs it.
struct SectionNamespace: Sendable {
  let id: NamespaceID
  let chain: KeyChain
}

/// Which namespaces hold side sections, and of whom.
///
/// A namespace's number only grows, and what it holds never changes, so each is looked at once in a process.
struct SectionNamespaces: Sendable {
  /// By the SHA-256 of their owner's identity record.
  private(set) var byOwner: [[UInt8]: [SectionNamespace]] = [:]
  private var next = NamespaceID(rawValue: 0)

  /// Takes in those that came since.
  mutating func complete(_ transaction: ReadTransaction) throws(CatalogError) {
    for id in try transaction.namespaceIDs(from: next) {
      next = NamespaceID(rawValue: id.rawValue + 1)
      guard let row = try transaction.namespace(id),
        let identity = NamespaceIdentity(record: row.identityRecord),
        let section = identity.sideSection
      else { continue }
      let chain = KeyChain(
        rootKey: row.rootKey,
        identityMode: .digest,
        wordsPerBlock: identity.wordsPerBlock
      )
      byOwner[section.ownerDigest, default: []].append(SectionNamespace(id: id, chain: chain))
    }
  }
}
