internal import KVCatalog
internal import KVCore

/// Sections of a prompt whose blocks are gone already, or never came: nothing else leads to them.
struct LeftOverSections: Sendable {
  /// Of the prompt's leading blocks, and of the prefixes that end at them.
  let keys: [BlockKey]
  let digests: [[UInt8]]

  /// Removes those at prefixes of the prompt whose last block is not stored.
  func remove(
    _ namespace: NamespaceCore,
    _ transaction: WriteTransaction
  ) throws(CatalogError) -> RemovedSummary {
    var storedCount = keys.count
    // Where a block is stored, all before it are.
    while storedCount > 0, try transaction.find(namespace.id, keys[storedCount - 1]) == nil {
      storedCount -= 1
    }
    return try transaction.removeSections(
      of: namespace.id,
      Array(digests[storedCount...]),
      reason: .forgotten
    )
  }
}

extension StoreCore {
  /// The namespaces of sections beside the one of this record.
  func sectionNamespaces(ofRecord record: [UInt8]) throws(StoreError) -> [NamespaceRow] {
    do throws(CatalogError) { return try catalog.sectionNamespaces(ofRecord: record) } catch {
      throw StoreError(error)
    }
  }

  /// What a removal of this prompt takes along though no block leads to it; nil where there are no sections.
  func leftOverSections(
    _ namespace: NamespaceCore,
    _ prompt: Prompt
  ) throws(StoreError) -> LeftOverSections? {
    guard try !sectionNamespaces(ofRecord: namespace.record).isEmpty else { return nil }
    let keys = namespace.keys(of: prompt)
    let digests = namespace.sectionDigests(of: prompt, upTo: keys.count)
    return LeftOverSections(
      keys: keys,
      digests: keys.indices.map { digests.digest(ofBlocks: $0 + 1) }
    )
  }

  /// Marks the removal of sections, so that no repair raises the dead; before the transaction commits.
  func markSections(
    _ sections: [RemovedSummary.Section],
    _ transaction: WriteTransaction
  ) throws(CatalogError) {
    guard !sections.isEmpty else { return }
    var floors: [NamespaceID: UInt64] = [:]
    for id in Set(sections.map(\.namespace)) {
      floors[id] = try transaction.markRemoval(in: id).rawValue
    }
    try identities.append(
      sections.map {
        .removal(
          IdentityFile.Removal(
            rootKey: $0.rootKey,
            top: $0.blockKey,
            generationFloor: floors[$0.namespace] ?? 0
          )
        )
      },
      transaction
    )
  }
}

extension RemovedSummary {
  /// What the caller of a removal is told: how many blocks went, or sections where nothing else was left.
  var countOfBlocksOrSections: Int { blockCount > 0 ? blockCount : sections.count }
}
