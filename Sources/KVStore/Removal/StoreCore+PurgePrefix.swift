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
    // What was offloaded before is published first, so that it is found here.
    let deadline = writerDeadline
    _ = try writer.perform(deadline: deadline) { 0 }
    let end = try withStoredPrefix(namespace, prompt, blockCount: blockCount, touch: false) {
      state,
      prefix -> (BlockPosition, BlockKey, Int)? in
      guard prefix.blockCount > 0, onlyTail || prefix.blockCount == blockCount else { return nil }
      guard let position = state.tree.position(of: prefix.location),
        let key = state.tree.blockKey(at: prefix.location)
      else { return nil }
      return (position, key, prefix.blockCount)
    }
    guard let (end, endKey, storedCount) = end else { return 0 }
    let sections = try sectionNamespaces(ofRecord: namespace.record)
    // Of a tail, what its removal tells; of all that goes on from here, before it is gone.
    var digests =
      try sections.isEmpty || onlyTail
      ? [] : sectionDigests(namespace, prompt, blockCount: blockCount, below: end)
    let count = try writer.perform(deadline: deadline) { [self] () throws(StoreError) in
      try purgeBelow(namespace, end, endKey, onlyTail: onlyTail)
    }
    if count > 0, !namespace.isInline { writer.enqueueErasing() }
    guard !sections.isEmpty, count > 0 else { return count }
    if onlyTail {
      let all = namespace.sectionDigests(of: prompt, upTo: storedCount)
      digests = (max(storedCount - count, 0)..<storedCount).map { all.digest(ofBlocks: $0 + 1) }
    }
    try removeSections(sections, digests, erases: true)
    return count
  }

  /// On the writer's thread.
  private func purgeBelow(
    _ namespace: NamespaceCore,
    _ end: BlockPosition,
    _ endKey: BlockKey,
    onlyTail: Bool
  ) throws(StoreError) -> Int {
    // What is offloaded from now on is not meant by the mark.
    writer?.batches.dropGenerations()
    let removed = try catalogWriter.remove(.forgotten) { (transaction) throws(CatalogError) in
      // Since the caller found it, its block may have left and another one taken its position.
      if let row = try readableRow(transaction, namespace, end), row.blockKey != endKey {
        return RemovedSummary()
      }
      guard
        let top = onlyTail ? try transaction.topOfTail(namespace.id, endingAt: end) : end,
        let row = try transaction.row(namespace.id, top)
      else { return RemovedSummary() }
      try identities.note(
        IdentityFile.Removal(
          rootKey: namespace.chain.rootKey,
          top: row.blockKey,
          generationFloor: try transaction.markRemoval(in: namespace.id).rawValue
        )
      )
      let removed = try transaction.removeSubtree(namespace.id, at: top, reason: .forgotten)
      try transaction.holdForErasing(removed.freedSlots)
      return removed
    }
    return removed.blockCount
  }
}
