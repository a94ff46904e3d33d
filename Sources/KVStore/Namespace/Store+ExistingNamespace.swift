internal import KVCatalog
public import KVCore

extension Store {
  /// Opens the namespace of this identity if it is there; nil, and nothing is written, when it is not.
  ///
  /// For who only looks things up, under names that a client may make up.
  public func openExistingNamespace(
    _ identity: NamespaceIdentity,
    limits: NamespaceLimits = NamespaceLimits()
  ) throws(StoreError) -> Namespace? {
    try enter()
    defer { leave() }
    guard try core.hasNamespace(identity) else { return nil }
    return try openNamespace(identity, limits: limits)
  }
}

extension StoreCore {
  fileprivate func hasNamespace(_ identity: NamespaceIdentity) throws(StoreError) -> Bool {
    if let argument = identity.firstInvalidArgument() { throw .invalidArgument(argument) }
    let record = identity.encoded(saltKey: catalog.meta.saltKey)
    let rootKey = unsafe record.withUnsafeBytes { xxh3Key($0) }
    return try catalogRead { (transaction) throws(CatalogError) in
      try transaction.namespaceID(rootKey: rootKey) != nil
    }
  }
}
