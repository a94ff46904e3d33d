package import KVCore

/// The exact least-recently-used order, from the stamps of path ends alone.
///
/// A block's recency is the newest stamp in its subtree. The walk takes the oldest stamp, removes blocks from its path
/// end upwards, and lets whatever remains as the end inherit the stamp.
extension WriteTransaction {
  /// Removes the blocks that were not used for longest, leaves first, until `blockCount` are gone or none may go.
  ///
  /// `pool` is slotByteCount / 4096, 0 for inline payloads; nil = all pools. `isProtected` tells the blocks that have
  /// to stay, and so everything above them.
  package func evict(
    pool: UInt32?,
    blockCount: Int,
    reason: RemovalReason = .evicted,
    isProtected: (NamespaceID, RunID, UInt32) -> Bool = { _, _, _ in false }
  ) throws(CatalogError) -> RemovedSummary {
    try settle()
    var pools: Set<UInt32> = []
    if let pool { pools = [pool] } else { pools = Set(try namespaces().map(\.pool)) }
    var walk = EvictionWalk(neededCount: blockCount)
    while walk.neededCount > 0, let row = try oldestStamp(pools, after: walk.doneStamp) {
      let end = PathEnd(namespace: row.namespace, at: row.end)
      guard try containsRow(end.namespace, end.at) else {
        try deleteStamp(end, row.stamp)
        continue
      }
      guard try isLeaf(end.namespace, end.at) else {
        // A larger stamp lies below, for all smaller ones were met before; unless one was met and had to stay.
        if walk.hasSkipped {
          walk.doneStamp = row.stamp
        } else {
          try deleteStamp(end, row.stamp)
        }
        continue
      }
      if isProtected(end.namespace, end.at.run, end.at.position) {
        walk.skip(row.stamp)
        continue
      }
      try deleteStamp(end, row.stamp)
      try removePath(end, stamp: row.stamp, reason: reason, isProtected, &walk)
    }
    return walk.summary
  }

  private func oldestStamp(
    _ pools: Set<UInt32>,
    after stamp: UInt64
  ) throws(CatalogError) -> StampRow? {
    var oldest: StampRow?
    for pool in pools {
      try forEachStamp(pool: pool, after: stamp) { row in
        if row.stamp < oldest?.stamp ?? .max { oldest = row }
        return false
      }
    }
    return oldest
  }

  /// Removes blocks from an unprotected leaf upwards, as long as `stamp` is their recency.
  private func removePath(
    _ leaf: PathEnd,
    stamp: UInt64,
    reason: RemovalReason,
    _ isProtected: (NamespaceID, RunID, UInt32) -> Bool,
    _ walk: inout EvictionWalk
  ) throws(CatalogError) {
    let namespace = leaf.namespace
    var end = leaf.at
    while true {
      let (first, stop) = try removableRange(
        namespace,
        end,
        stamp: stamp,
        count: walk.neededCount,
        isProtected
      )
      // Read before the row goes.
      let parent =
        first > 0
        ? BlockPosition(run: end.run, position: first - 1)
        : try parentOfRun(namespace, end.run)
      try removeRows(
        namespace,
        end.run,
        first...end.position,
        reason: reason,
        kind: .removed,
        &walk.summary
      )
      walk.neededCount -= Int(end.position - first) + 1
      if first == 0, let parent { try delete(.children, .child(namespace, parent, end.run)) }
      guard let parent, parent != .root else { return }

      let next = PathEnd(namespace: namespace, at: parent)
      switch stop {
      case .ownStamp: return
      case .children:
        if walk.hasSkipped { try handOver(stamp, to: next) }
        return
      case .protected:
        try handOver(stamp, to: next)
        return walk.skip(stamp)
      case .enough:
        try handOver(stamp, to: next)
        return
      case .firstOfRun: break
      }
      // The run is gone; go on in the parent's if that block is a leaf now and was not used later.
      guard try isLeaf(namespace, parent) else {
        if walk.hasSkipped { try handOver(stamp, to: next) }
        return
      }
      if let own = try storedStamp(namespace, parent) {
        if own > stamp { return }
        try deleteStamp(next, own)
      }
      if walk.neededCount <= 0 { return try putStamp(next, stamp) }
      if isProtected(namespace, parent.run, parent.position) {
        try putStamp(next, stamp)
        return walk.skip(stamp)
      }
      end = parent
    }
  }

  /// Why a removal stops above a range of a run.
  private enum Stop { case enough, children, ownStamp, protected, firstOfRun }

  /// How far up in its run the path of `end` may be removed: the first position, and what keeps the one before.
  ///
  /// Dominated stamps within the range are dropped on the way.
  private func removableRange(
    _ namespace: NamespaceID,
    _ end: BlockPosition,
    stamp: UInt64,
    count: Int,
    _ isProtected: (NamespaceID, RunID, UInt32) -> Bool
  ) throws(CatalogError) -> (first: UInt32, stop: Stop) {
    // Looked up once for the whole range; within it only positions are compared.
    let forkPosition = try lastPosition(.children, namespace, before: end)
    var stampedPosition = try lastPosition(.ends, namespace, before: end)
    var first = end.position
    while first > 0 {
      let above = first - 1
      if above == forkPosition { return (first, .children) }
      if above == stampedPosition {
        let at = BlockPosition(run: end.run, position: above)
        if let own = try storedStamp(namespace, at) {
          if own > stamp { return (first, .ownStamp) }
          try deleteStamp(PathEnd(namespace: namespace, at: at), own)
        }
        stampedPosition = try lastPosition(.ends, namespace, before: at)
      }
      if Int(end.position - first) + 1 >= count { return (first, .enough) }
      if isProtected(namespace, end.run, above) { return (first, .protected) }
      first = above
    }
    return (0, .firstOfRun)
  }

  /// The last position of a run before `at` that has a row in this table.
  private func lastPosition(
    _ table: Table,
    _ namespace: NamespaceID,
    before at: BlockPosition
  ) throws(CatalogError) -> UInt32? {
    var cursor = try cursor(table)
    guard try cursor.seekBefore(.block(namespace, at)),
      let found = unsafe keyIntegers(cursor.key), found.namespace == namespace,
      found.at.run == at.run
    else { return nil }
    return found.at.position
  }
}

/// Where an eviction stands.
private struct EvictionWalk {
  var neededCount: Int
  var summary = RemovedSummary()
  /// Stamps up to here were dealt with.
  var doneStamp: UInt64 = 0
  /// A path end had to stay though it was old: from then on smaller stamps may lie below a block.
  var hasSkipped = false

  mutating func skip(_ stamp: UInt64) {
    doneStamp = stamp
    hasSkipped = true
  }
}
