internal import KVCatalog
internal import KVCodec
internal import KVCore

/// A block that was read from the archive.
struct ArchiveUse: Hashable {
  let namespace: NamespaceID
  let position: BlockPosition
  /// Of its slots on disk.
  let slotByteCount: Int
}

extension StoreCore {
  /// Uses that wait at most; what comes beyond is met again when it is used again.
  private static let archiveUseCountMax = 4096

  /// Lets the writer move a block back to disk, when it has time.
  func noteArchiveUse(_ namespace: NamespaceCore, _ position: BlockPosition?) {
    guard let position, let writer, archiveBytesCapacity > 0 else { return }
    let use = ArchiveUse(
      namespace: namespace.id,
      position: position,
      slotByteCount: namespace.layout.slotByteCount
    )
    let isFirst = state.withLock { state in
      guard state.archiveUses.count < Self.archiveUseCountMax else { return false }
      return state.archiveUses.insert(use).inserted && state.archiveUses.count == 1
    }
    if isFirst { writer.enqueuePromotion() }
  }

  /// On the writer's thread: some of the blocks that are waiting; true when there are more.
  func promoteStep() throws(StoreError) -> Bool {
    guard let writer else { return false }
    let uses = state.withLock { state in
      let some = Array(state.archiveUses.prefix(TierMoves.promotionCount))
      state.archiveUses.subtract(some)
      return some
    }
    try writer.batches.slots.moves.promote(uses)
    return state.withLock { !$0.archiveUses.isEmpty }
  }
}

extension Writer {
  /// Lets the thread move what was used back to disk, a piece at a time with other work in between.
  func enqueuePromotion() {
    enqueueUnhurried(
      WriterCall { [core] () throws(StoreError) in
        // Best effort: the next use asks again.
        if try core.promoteStep() { core.writer?.enqueuePromotion() }
        return 0
      }
    )
  }
}
