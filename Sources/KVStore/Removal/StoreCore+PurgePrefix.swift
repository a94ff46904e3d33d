internal import KVCatalog
internal import KVCore
internal import KVIndex

/// Parts of a namespace leave as a whole one does: `purged` when the call returns, `erased` a little later.
extension StoreCore {
  /// Removes the prompt's last block and all below it, or the prompt's own tail; durable when it returns.
  ///
  /// The slots are overwritten in the background.
  func purge(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    onlyTail: Bool
  ) throws(StoreError) -> Int {
    guard let writer else { throw .readOnly }
    if health.isPoisoned { throw .poisoned }
    let blockCount = namespace.blockCount(of: prompt)
    guard blockCount > 0 else { return 0 }
    try remote?.purges.begin()
    defer { remote?.purges.end() }
    // What was offloaded before is published first, so that it is found here.
    let deadline = writerDeadline
    _ = try writer.perform(deadline: deadline) { 0 }
    let end = try withStoredPrefix(namespace, prompt, blockCount: blockCount, touch: false) {
      state,
      prefix -> (BlockPosition, BlockKey)? in
      guard prefix.blockCount > 0, onlyTail || prefix.blockCount == blockCount else { return nil }
      guard let position = state.tree.position(of: prefix.location),
        let key = state.tree.blockKey(at: prefix.location)
      else { return nil }
      return (position, key)
    }
    let leftOver = try leftOverSections(namespace, prompt)
    guard end != nil || leftOver != nil else { return 0 }
    let keys = Monitor<[NamespaceID: Set<BlockKey>]>([:])
    let count = try writer.perform(deadline: deadline) { [self] () throws(StoreError) in
      try purgeBelow(namespace, end, leftOver, onlyTail: onlyTail, keys)
    }
    guard count > 0 else { return 0 }
    startRemotePurges()
    for (namespace, keys) in keys.withLock({ $0 }) { try holdMovedCopies(namespace, keys) }
    writer.enqueueErasing()
    return count
  }

  /// On the writer's thread.
  private func purgeBelow(
    _ namespace: NamespaceCore,
    _ end: (at: BlockPosition, key: BlockKey)?,
    _ leftOver: LeftOverSections?,
    onlyTail: Bool,
    _ keys: Monitor<[NamespaceID: Set<BlockKey>]>
  ) throws(StoreError) -> Int {
    // What is offloaded from now on is not meant by the mark.
    writer?.batches.dropGenerations()
    let removed = try catalogWriter.remove(.forgotten) { (transaction) throws(CatalogError) in
      transaction.removedKeys = [:]
      var removed = RemovedSummary()
      if let end {
        removed = try removeMarked(namespace, end, onlyTail: onlyTail, transaction)
      }
      if let leftOver { removed.addSections(try leftOver.remove(namespace, transaction)) }
      try markSections(removed.sections, transaction)
      try transaction.holdForErasing(removed.freedSlots)
      let gone = transaction.removedKeys ?? [:]
      keys.withLock { $0 = gone }
      do throws(StoreError) {
        try queueRemotePurge(namespace, gone, transaction)
      } catch {
        // Nothing is removed then, and the caller hears it.
        throw .io(errno: error.errorNumber)
      }
      return removed
    }
    return removed.countOfBlocksOrSections
  }

  private func removeMarked(
    _ namespace: NamespaceCore,
    _ end: (at: BlockPosition, key: BlockKey),
    onlyTail: Bool,
    _ transaction: WriteTransaction
  ) throws(CatalogError) -> RemovedSummary {
    // Since the caller found it, its block may have left and another one taken its position.
    if let row = try readableRow(transaction, namespace, end.at), row.blockKey != end.key {
      return RemovedSummary()
    }
    guard
      let top = onlyTail ? try transaction.topOfTail(namespace.id, endingAt: end.at) : end.at,
      let row = try transaction.row(namespace.id, top)
    else { return RemovedSummary() }
    try markRemoval(of: row.blockKey, in: namespace.id, namespace.chain.rootKey, transaction)
    return try transaction.removeSubtree(namespace.id, at: top, reason: .forgotten)
  }
}
