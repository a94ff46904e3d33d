package import KVCore

/// Reads of namespaces and of what they hold.
extension ReadTransaction {
  /// A namespace by its id.
  package func namespace(_ id: NamespaceID) throws(CatalogError) -> NamespaceRow? {
    guard let value = unsafe try getChecked(.namespaces, .namespace(id, kind: .namespace)) else {
      return nil
    }
    guard let row = unsafe NamespaceRow(id: id, value) else { throw .corrupt(.namespace) }
    return row
  }

  /// All namespaces, by id.
  package func namespaces() throws(CatalogError) -> [NamespaceRow] {
    var rows: [NamespaceRow] = []
    for id in try namespaceIDs() {
      if let row = try namespace(id) { rows.append(row) }
    }
    return rows
  }

  /// The numbers of all namespaces, from one on.
  package func namespaceIDs(
    from first: NamespaceID = NamespaceID(rawValue: 0)
  ) throws(CatalogError) -> [NamespaceID] {
    try namespaceIDs(from: first, limit: .max).ids
  }

  /// The numbers of some namespaces, from one on, and the number of the next; nil behind the last one.
  func namespaceIDs(
    from first: NamespaceID,
    limit: Int
  ) throws(CatalogError) -> (ids: [NamespaceID], next: NamespaceID?) {
    var ids: [NamespaceID] = []
    var cursor = try cursor(.namespaces)
    var isThere = try cursor.seek(.namespace(first, kind: .namespace))
    while isThere {
      if let (id, kind) = unsafe namespaceKey(cursor.key),
        kind == NamespaceRowKind.namespace.rawValue
      {
        if ids.count == limit { return (ids, id) }
        ids.append(id)
      }
      isThere = try cursor.next()
    }
    return (ids, nil)
  }

  /// The namespace with this root key.
  ///
  /// The identity record has still to be compared.
  package func namespaceID(rootKey: BlockKey) throws(CatalogError) -> NamespaceID? {
    guard let target = try keyTarget(.ofRootKeys, rootKey),
      let id = UInt32(exactly: target.run.rawValue)
    else { return nil }
    return NamespaceID(rawValue: id)
  }

  /// What a namespace holds.
  package func accounting(_ id: NamespaceID) throws(CatalogError) -> Accounting {
    try settle()
    return try storedAccounting(id)
  }

  func storedAccounting(_ id: NamespaceID) throws(CatalogError) -> Accounting {
    guard let value = unsafe try getChecked(.namespaces, .namespace(id, kind: .accounting)) else {
      return Accounting()
    }
    guard let accounting = unsafe Accounting(value) else { throw .corrupt(.namespace) }
    return accounting
  }
}
