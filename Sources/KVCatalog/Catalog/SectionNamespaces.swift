internal import KVCore

/// A namespace of side sections, as a removal needs it.
struct SectionNamespace: Sendable {
  let id: NamespaceID
  let chain: KeyChain
}

/// Which namespaces hold side sections, and of whom.
///
/// A namespace's number is given once, and what it holds never changes, so each is looked at once in a process.
struct SectionNamespaces: Sendable {
  /// By the SHA-256 of their owner's identity record; some may have left.
  private(set) var byOwner: [[UInt8]: [SectionNamespace]] = [:]
  private var next = NamespaceID(rawValue: 0)
  private var addedCount = 0

  /// After so many, those are forgotten that have left.
  private static let addedCountMax = 4096

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
      addedCount += 1
    }
    guard addedCount > Self.addedCountMax else { return }
    addedCount = 0
    let there = Set(try transaction.namespaceIDs())
    byOwner = byOwner.mapValues { $0.filter { there.contains($0.id) } }.filter { !$0.value.isEmpty }
  }
}
