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
    if isPoisoned { throw .poisoned }
    let blockCount = namespace.blockCount(of: prompt)
    if prompt.wordCount > 0, blockCount == 0 { return 0 }
    // What was offloaded before is published first, so that it is found here.
    let deadline = writerDeadline
    _ = try writer.perform(deadline: deadline) { 0 }
    if blockCount == 0 {
      return try writer.perform(deadline: deadline) { [self] () throws(StoreError) in
        try removeDurably(namespace, at: nil, reason: .forgotten)
      }
    }
    let position = try withStoredPrefix(namespace, prompt, blockCount: blockCount, touch: false) {
      state,
      prefix in
      prefix.blockCount == blockCount ? state.index.position(of: prefix.location) : nil
    }
    guard let position else { return 0 }
    return try writer.perform(deadline: deadline) { [self] () throws(StoreError) in
      try removeDurably(namespace, at: position, reason: .forgotten)
    }
  }

  /// The writer's part of a quarantine: the block is hidden already.
  func removeQuarantined(
    _ namespace: NamespaceCore,
    _ position: BlockPosition,
    _ range: RemovedRange
  ) throws(StoreError) -> Int {
    defer { state.withLock { state in state.hidden.removeAll { $0 == range } } }
    return try removeDurably(namespace, at: position, reason: .corrupt)
  }

  /// On the writer's thread.
  ///
  /// Slots are freed by the same commit; headers are invalidated first, so that no repair raises
  /// the dead.
  private func removeDurably(
    _ namespace: NamespaceCore,
    at position: BlockPosition?,
    reason: RemovalReason
  ) throws(StoreError) -> Int {
    var removed = RemovedSummary()
    do throws(CatalogError) {
      try catalogWrite { (transaction) throws(CatalogError) in
        if let position {
          removed = try transaction.removeSubtree(namespace.id, at: position, reason: reason)
        } else {
          removed = try transaction.removeNamespaceBlocks(namespace.id, reason: reason)
        }
        state.withLock { state in
          state.hidden += removed.ranges
          for range in removed.ranges { state.removeFromIndex(range) }
        }
        // Before the commit: after it another process may reserve the slots.
        if reason == .forgotten { invalidateHeaders(removed.freedSlots, namespace) }
      }
    } catch {
      ended(removed)
      throw StoreError(error)
    }
    countCommit()
    ended(removed)
    state.withLock { state in
      switch reason {
      case .corrupt: state.statistics.blocksQuarantined += UInt64(removed.blockCount)
      default: state.statistics.blocksForgotten += UInt64(removed.blockCount)
      }
    }
    return removed.blockCount
  }

  private func ended(_ removed: RemovedSummary) {
    state.withLock { state in
      state.hidden.removeAll { removed.ranges.contains($0) }
      state.removalEpoch += 1
    }
    state.notifyAll()
  }

  /// Zeroes the first page of slots that are given up on purpose.
  ///
  /// Should the commit fail after it, their rows are found corrupt and removed; should the zeroing
  /// fail, the rows are gone all the same.
  private func invalidateHeaders(_ slots: [SlotAddress], _ namespace: NamespaceCore) {
    guard !slots.isEmpty else { return }
    do throws(FileError) {
      let page = try AlignedBuffer(byteCount: 4096, isZeroed: true)
      // The address of a slot needs its size; a page is never a whole slot, so nothing is joined.
      try diskTier.write(
        slots.map {
          unsafe DiskTier.Write(
            address: $0,
            slotByteCount: namespace.layout.slotByteCount,
            bytes: page.readOnly
          )
        }
      )
      try diskTier.sync(files: Set(slots.map(\.file)))
    } catch {
      return
    }
  }
}
