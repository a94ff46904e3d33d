internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVIndex
internal import KVTiers

extension StoreCore {
  /// Removes the prompt's last full block and all below it (everything for an empty prompt); durable when it returns.
  func forget(_ namespace: NamespaceCore, _ prompt: Prompt) throws(StoreError) -> Int {
    guard let writer else { throw .readOnly }
    if health.isPoisoned { throw .poisoned }
    let blockCount = namespace.blockCount(of: prompt)
    if prompt.wordCount > 0, blockCount == 0 { return 0 }
    if blockCount == 0 { return try purge(namespace.id, erases: false) }
    // What was offloaded before is published first, so that it is found here.
    let deadline = writerDeadline
    _ = try writer.perform(deadline: deadline) { 0 }
    let position = try withStoredPrefix(namespace, prompt, blockCount: blockCount, touch: false) {
      state,
      prefix in
      prefix.blockCount == blockCount ? state.tree.position(of: prefix.location) : nil
    }
    let blockKey = namespace.keys(of: prompt).last
    let leftOver = try leftOverSections(namespace, prompt)
    guard position != nil || leftOver != nil else { return 0 }
    return try writer.perform(deadline: deadline) { [self] () throws(StoreError) in
      try removeDurably(namespace, at: position, forgotten: blockKey, leftOver) { row in
        row.map { $0.blockKey == blockKey } ?? true
      }
    }
  }

  /// The writer's part of a quarantine: the block is hidden already.
  func removeQuarantined(
    _ namespace: NamespaceCore,
    _ position: BlockPosition,
    _ place: BlockPlace?,
    _ range: RemovedRange
  ) throws(StoreError) -> Int {
    defer { state.withLock { $0.tree.reveal(CollectionOfOne(range)) } }
    return try removeDurably(namespace, at: position, forgotten: nil) { $0?.places.first == place }
  }

  /// On the writer's thread.
  ///
  /// Slots are freed by the same commit. What was forgotten (the block of this key, and all below it) is marked first, so that
  /// no repair raises the dead; without a key it is a quarantine.
  ///
  /// `isMeant` sees the row: since the caller found it, its block may have left and another one taken its position.
  private func removeDurably(
    _ namespace: NamespaceCore,
    at position: BlockPosition?,
    forgotten: BlockKey?,
    _ leftOver: LeftOverSections? = nil,
    if isMeant: (BlockRow?) -> Bool
  ) throws(StoreError) -> Int {
    // What is offloaded from now on is not meant by the mark.
    if forgotten != nil { writer?.batches.dropGenerations() }
    let reason: RemovalReason = forgotten == nil ? .corrupt : .forgotten
    let removed = try catalogWriter.remove(reason) { (transaction) throws(CatalogError) in
      var removed = RemovedSummary()
      if let position, isMeant(try readableRow(transaction, namespace, position)) {
        if let forgotten {
          try markRemoval(of: forgotten, in: namespace.id, namespace.chain.rootKey, transaction)
        }
        removed = try transaction.removeSubtree(namespace.id, at: position, reason: reason)
      }
      if let leftOver { removed.addSections(try leftOver.remove(namespace, transaction)) }
      if forgotten != nil { try markSections(removed.sections, transaction) }
      // Before the commit: after it another process may reserve the slot.
      if reason == .corrupt { invalidateHeader(removed.topSlot, namespace) }
      return removed
    }
    return removed.countOfBlocksOrSections
  }

  /// Marks that the block of this key and all below it (nil: all of the namespace) are removed; before the transaction commits.
  func markRemoval(
    of top: BlockKey?,
    in namespace: NamespaceID,
    _ rootKey: BlockKey,
    _ transaction: WriteTransaction
  ) throws(CatalogError) {
    try identities.note(
      IdentityFile.Removal(
        rootKey: rootKey,
        top: top,
        generationFloor: try transaction.markRemoval(in: namespace).rawValue
      ),
      transaction
    )
  }

  /// A block's row; nil when there is none, or its checksum fails.
  func readableRow(
    _ transaction: WriteTransaction,
    _ namespace: NamespaceCore,
    _ position: BlockPosition
  ) throws(CatalogError) -> BlockRow? {
    do throws(CatalogError) {
      return try transaction.row(namespace.id, position)
    } catch {
      guard case .corrupt = error else { throw error }
      return nil
    }
  }

  /// Zeroes the first page of a slot whose contents failed a check.
  ///
  /// Should the commit fail after it, its row is found corrupt and removed; should the zeroing
  /// fail, the row is gone all the same.
  private func invalidateHeader(_ slot: SlotAddress?, _ namespace: NamespaceCore) {
    guard let slot else { return }
    do throws(FileError) {
      let page = try AlignedBuffer(byteCount: 4096, isZeroed: true)
      // The address of a slot needs its size; a page is never a whole slot, so nothing is joined.
      try unsafe diskTier.write([
        DiskTier.Write(
          address: slot,
          slotByteCount: slot.tier == .archive
            ? archiveFiles.slotByteCount(slot.file) ?? 0 : namespace.layout.slotByteCount,
          bytes: page.readOnly,
          owner: page
        )
      ])
      try diskTier.sync(files: [slot.fileID])
    } catch {
      return
    }
  }
}
