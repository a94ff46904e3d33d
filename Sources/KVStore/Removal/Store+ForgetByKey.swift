internal import KVCatalog
public import KVCore

extension Store {
  /// Removes the block of this key and all below it, durably, whoever holds leases on them.
  ///
  /// `Namespace.forget` by key and number, for who has neither the prompt nor the salt.
  ///
  /// - Parameters:
  ///   - key: the block's.
  ///   - namespace: number of the namespace.
  /// - Returns: how many blocks went; 0 when there is none of this key.
  /// - Throws: `StoreError`.
  public func forget(_ key: BlockKey, in namespace: NamespaceID) throws(StoreError) -> Int {
    try enter()
    defer { leave() }
    guard !core.configuration.readOnly else { throw .readOnly }
    return try core.forget(key, in: namespace)
  }
}

extension StoreCore {
  fileprivate func forget(_ key: BlockKey, in namespace: NamespaceID) throws(StoreError) -> Int {
    guard let writer else { throw .readOnly }
    if health.isPoisoned { throw .poisoned }
    return try writer.perform(deadline: writerDeadline) { [self] () throws(StoreError) in
      // What is offloaded from now on is not meant by the mark.
      writer.batches.dropGenerations()
      let removed = try catalogWriter.remove(.forgotten) { (transaction) throws(CatalogError) in
        guard let row = try transaction.namespace(namespace),
          let position = try transaction.find(namespace, key),
          try transaction.row(namespace, position)?.blockKey == key
        else { return RemovedSummary() }
        // Marked first, so that no repair raises the dead.
        try markRemoval(of: key, in: namespace, row.rootKey, transaction)
        let removed = try transaction.removeSubtree(namespace, at: position, reason: .forgotten)
        try markSections(removed.sections, transaction)
        return removed
      }
      return removed.countOfBlocksOrSections
    }
  }
}
