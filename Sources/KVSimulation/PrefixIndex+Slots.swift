internal import KVCore
internal import KVIndex
internal import KVTiers

/// Blocks of a replay: each has a slot of the pool.
///
/// The pool is lent for the whole call: a property of a class is checked for exclusive access at each use.
extension PrefixIndex {
  /// Appends blocks below `parent`, each in a free slot; there must be enough of them.
  func append(
    _ namespace: NamespaceID,
    after parent: IndexLocation,
    words: UnsafePointer<UInt32>,
    blockCount: Int,
    slotsOf pool: inout SlotPool
  ) -> IndexLocation? {
    unsafe append(namespace, after: parent, words: words, blockCount: blockCount) { _ in
      guard let slot = pool.allocateFree() else {
        assertionFailure("no room was made")
        return IndexEntry(blockKey: BlockKey(high: 0, low: 0))
      }
      pool.unpin(slot)
      return IndexEntry(blockKey: BlockKey(high: 0, low: 0), hostSlot: Int32(slot))
    }
  }

  /// Removes a block and all below it, and frees their slots.
  func truncate(at head: IndexLocation, slotsOf pool: inout SlotPool) {
    truncate(at: head) { _, entry in pool.discard(Int(entry.hostSlot)) }
  }
}
