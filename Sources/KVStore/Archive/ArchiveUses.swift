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

/// Blocks that were read from the archive and have not been moved back to disk.
///
/// Its lock is a leaf.
final class ArchiveUses: Sendable {
  private let uses = Monitor<Set<ArchiveUse>>([])

  /// Uses that wait at most; what comes beyond is met again when it is used again.
  private static let countMax = 4096

  /// True for the first that waits.
  func add(_ use: ArchiveUse) -> Bool {
    uses.withLock { uses in
      guard uses.count < Self.countMax else { return false }
      return uses.insert(use).inserted && uses.count == 1
    }
  }

  func take(_ count: Int) -> [ArchiveUse] {
    uses.withLock { uses in
      let some = Array(uses.prefix(count))
      uses.subtract(some)
      return some
    }
  }

  var isEmpty: Bool { uses.withLock { $0.isEmpty } }
}

extension StoreCore {
  /// Lets the writer move a block back to disk, when it has time.
  func noteArchiveUse(_ namespace: NamespaceCore, _ position: BlockPosition?) {
    guard let position, let writer, slotBounds.archive > 0 else { return }
    let use = ArchiveUse(
      namespace: namespace.id,
      position: position,
      slotByteCount: namespace.layout.slotByteCount
    )
    if archiveUses.add(use) { writer.enqueuePromotion() }
  }

  /// On the writer's thread: some of the blocks that are waiting; true when there are more.
  func promoteStep() throws(StoreError) -> Bool {
    guard let writer else { return false }
    let uses = archiveUses.take(TierMoves.promotionCount)
    try writer.batches.slots.moves?.promote(uses, maySpend: maySpend)
    return !archiveUses.isEmpty
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
