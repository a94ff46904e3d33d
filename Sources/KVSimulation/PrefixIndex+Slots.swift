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

  /// Cuts blocks off a path from its end upwards, `blockCount` at most; their slots are free then.
  ///
  /// Returns the first that is gone, how many are, and the block before the first.
  func cut(
    _ victim: PathEndOrder.Victim,
    _ blockCount: Int,
    slotsOf pool: inout SlotPool
  ) -> (first: UInt32, count: Int, parent: IndexLocation) {
    let count = min(blockCount, Int(victim.leaf.local - victim.firstLocal) + 1)
    let head = IndexLocation(
      node: victim.leaf.node,
      local: victim.leaf.local + 1 - UInt32(count)
    )
    let parent = parent(of: head) ?? .root
    truncate(at: head, slotsOf: &pool)
    return (head.local, count, parent)
  }
}

extension SlotPool {
  /// Adds slots, at least as many as needed where the capacity allows; false where it is reached.
  mutating func grow(for neededCount: Int, capacity: Int?) -> Bool {
    let more = min(max(4096, slotCount / 2, neededCount), (capacity ?? .max) - slotCount)
    if more > 0 { addSegment(first: slotCount, count: more) }
    return more > 0
  }
}
