internal import KVCatalog
public import KVCore

extension Store {
  /// Changes the quota or the default time to live of a namespace by its number, for who does not know its salt.
  ///
  /// Over a new quota the namespace is evicted before this returns. Other processes apply a new time to live from when they open the
  /// namespace next.
  ///
  /// - Parameters:
  ///   - limits: what is nil stays as it is.
  ///   - namespace: number of the namespace.
  /// - Throws: `StoreError`; `.invalidArgument(.namespace)` when there is none.
  public func setLimits(
    _ limits: NamespaceLimits,
    of namespace: NamespaceID
  ) throws(StoreError) {
    try enter()
    defer { leave() }
    guard !core.configuration.readOnly else { throw .readOnly }
    try core.setLimits(limits, of: namespace)
  }
}

extension StoreCore {
  fileprivate func setLimits(
    _ limits: NamespaceLimits,
    of namespace: NamespaceID
  ) throws(StoreError) {
    guard let writer else { throw .readOnly }
    if health.isPoisoned { throw .poisoned }
    _ = try writer.perform(deadline: writerDeadline) { [self] () throws(StoreError) in
      let isThere = try catalogWriter.commit { (transaction) throws(CatalogError) in
        guard try transaction.namespace(namespace) != nil else { return false }
        _ = try transaction.setLimits(namespace, limits)
        return true
      }
      guard isThere else { throw .invalidArgument(.namespace) }
      try writer.batches.enforceQuota(namespace)
      return 0
    }
  }
}
