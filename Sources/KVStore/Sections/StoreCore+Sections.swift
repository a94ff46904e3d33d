internal import KVCatalog
internal import KVCore

/// What leaves takes its sections along: they tell as much of a prompt as its blocks.
extension StoreCore {
  /// The namespaces of sections beside the one of this record.
  func sectionNamespaces(ofRecord record: [UInt8]) throws(StoreError) -> [NamespaceRow] {
    try catalogRead { (transaction) throws(CatalogError) in
      // Most stores have none: no digest, then.
      let rows = try transaction.namespaces().filter {
        NamespaceIdentity(record: $0.identityRecord)?.sideSection != nil
      }
      guard !rows.isEmpty else { return [] }
      let digest = SHA256.hash(record)
      return rows.filter {
        NamespaceIdentity(record: $0.identityRecord)?.sideSection?.ownerDigest == digest
      }
    }
  }

  /// The digests of all prefixes that end at the block `end` or below it; `end` is the last of the prompt's `blockCount` leading ones.
  func sectionDigests(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    blockCount: Int,
    below end: BlockPosition
  ) throws(StoreError) -> [[UInt8]] {
    let isDigestMode = namespace.identity.identityMode == .digest
    let prefixes = namespace.sectionDigests(of: prompt, upTo: blockCount)
    return try catalogRead { (transaction) throws(CatalogError) in
      var digests = [prefixes.digest(ofBlocks: blockCount)]
      var ends = [(at: end, digest: prefixes.last)]
      // A list instead of recursion: runs can hang below one another as deep as a chain is long.
      while let (at, before) = ends.popLast() {
        var nexts = try transaction.children(namespace.id, at).map {
          BlockPosition(run: $0, position: 0)
        }
        nexts.append(BlockPosition(run: at.run, position: at.position &+ 1))
        for next in nexts {
          guard let row = try transaction.row(namespace.id, next) else { continue }
          var digest = before
          if isDigestMode {
            digests.append(row.words)
          } else {
            unsafe row.words.withUnsafeBytes { words in
              unsafe row.extra.withUnsafeBytes { unsafe digest.append(words: words, extra: $0) }
            }
            digests.append(digest.bytes)
          }
          ends.append((next, digest))
        }
      }
      return digests
    }
  }

  /// Removes the sections behind these prefixes, durably.
  func removeSections(
    _ rows: [NamespaceRow],
    _ digests: [[UInt8]],
    erases: Bool
  ) throws(StoreError) {
    for row in rows {
      guard let section = try openSection(row) else { continue }
      for digest in digests {
        try Prompt.with(wordsOfDigest(digest)) { (prompt) throws(StoreError) in
          let isStored = try withStoredPrefix(section, prompt, blockCount: 1, touch: false) {
            $1.blockCount == 1
          }
          guard isStored else { return }
          _ =
            try erases
            ? purge(section, prompt, onlyTail: false) : forget(section, prompt)
        }
      }
    }
  }

  /// A section's namespace by its row: its salt is not known, and not needed to remove.
  private func openSection(_ row: NamespaceRow) throws(StoreError) -> NamespaceCore? {
    guard let identity = NamespaceIdentity(record: row.identityRecord) else { return nil }
    return adopt(row, identity)
  }
}
