internal import KVCatalog
internal import KVCore

/// Quotas: changing them, and keeping them.
extension StoreCore {
  /// Changes what differs; over a new quota the namespace is evicted before this returns.
  func setLimits(_ namespace: NamespaceCore, _ limits: NamespaceLimits) throws(StoreError) {
    guard let writer else { return }
    let row = try catalogRead { (transaction) throws(CatalogError) in
      try transaction.namespace(namespace.id)
    }
    guard let row else { return }
    // Another process may have changed it since.
    namespace.expiry.update(row)
    guard row.applying(limits) != row else { return }
    _ = try writer.perform(deadline: writerDeadline) { [self] () throws(StoreError) in
      _ = try catalogWriter.commit { (transaction) throws(CatalogError) in
        try transaction.setLimits(namespace.id, limits)
      }
      namespace.expiry.update(row.applying(limits))
      try writer.batches.enforceQuota(namespace.id)
      return 0
    }
  }
}
