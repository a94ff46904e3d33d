package import KVCore

/// Namespaces come, and count what they hold.
extension WriteTransaction {
  /// The namespace with this identity, made when it is not there; it gets its number here.
  package func createNamespace(_ new: NamespaceRow) throws(CatalogError) -> NamespaceID {
    if let id = try namespaceID(rootKey: new.rootKey) {
      guard let row = try namespace(id), row.identityRecord == new.identityRecord else {
        throw .identityCollision
      }
      return id
    }
    guard new.slotByteCount % 4096 == 0, new.slotByteCount == 0 || new.slotByteCount >= 4096 else {
      throw .invalidArgument
    }
    let id = NamespaceID(rawValue: counters.namespace)
    counters.namespace += 1
    sectionsAreComplete = false
    sectionsByOwner = [:]
    var row = new
    row.id = id
    try putNamespace(row)
    try putKey(
      .ofRootKeys,
      new.rootKey,
      BlockPosition(run: RunID(rawValue: UInt64(id.rawValue)), position: 0)
    )
    try changeAccounting(id) { _ in }
    return id
  }

  func changeAccounting(
    _ id: NamespaceID,
    _ change: (inout Accounting) -> Void
  ) throws(CatalogError) {
    var accounting: Accounting
    if let pending = accountings[id] {
      accounting = pending
    } else {
      accounting = try storedAccounting(id)
    }
    change(&accounting)
    accountings[id] = accounting
  }

  func putNamespace(_ row: NamespaceRow) throws(CatalogError) {
    try put(.namespaces, .namespace(row.id, kind: .namespace), row.encoded)
    namespaceRows[row.id] = row
  }

  /// Notes in the namespace's row what holds for its blocks from now on.
  func noteFact(_ fact: NamespaceFlags, of id: NamespaceID) throws(CatalogError) {
    guard var row = try cachedNamespace(id), !row.facts.contains(fact) else { return }
    row.facts.formUnion(fact)
    try putNamespace(row)
  }

  func cachedNamespace(_ id: NamespaceID) throws(CatalogError) -> NamespaceRow? {
    if let row = namespaceRows[id] { return row }
    let row = try namespace(id)
    namespaceRows[id] = row
    return row
  }
}
