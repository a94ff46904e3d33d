package import KVCore

/// The order of victims, from the stamps of path ends alone: lowest priority first, then the exact
/// least-recently-used order, always a leaf.
///
/// A block's recency is the newest stamp in its subtree, its priority the highest in it. The walk takes the first
/// stamp, removes blocks from its path end upwards, and lets whatever remains as the end inherit the stamp.
extension WriteTransaction {
  /// Removes the first victims, leaves first, until `blockCount` are gone or none may go.
  ///
  /// `pool` is a size class (`SizeClass`); nil = all pools. `isProtected` tells the blocks that have
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
    return try evict(
      pools: pools,
      blockCount: blockCount,
      reason: reason,
      isProtected: isProtected
    )
  }

  /// Of these pools.
  ///
  /// With `hasSkipped` paths were removed in another order before: stamps below a block may be older than its own.
  package func evict(
    pools: Set<UInt32>,
    blockCount: Int,
    reason: RemovalReason,
    hasSkipped: Bool = false,
    isProtected: (NamespaceID, RunID, UInt32) -> Bool
  ) throws(CatalogError) -> RemovedSummary {
    try settle()
    var walk = EvictionWalk(neededCount: blockCount)
    walk.hasSkipped = hasSkipped
    while walk.neededCount > 0, let row = try firstVictim(pools, after: walk.done) {
      let end = PathEnd(namespace: row.namespace, at: row.end)
      guard try containsRow(end.namespace, end.at) else {
        try deleteStamp(end, row.order)
        continue
      }
      guard try isLeaf(end.namespace, end.at) else {
        // A larger stamp lies below, for all smaller ones were met before; unless one was met and had to stay, or
        // lies behind this one for its priority.
        if try mayBeOlderBelow(end.namespace, walk) {
          walk.done = row.order
        } else {
          try deleteStamp(end, row.order)
        }
        continue
      }
      if isProtected(end.namespace, end.at.run, end.at.position) {
        walk.skip(row.order)
        continue
      }
      try deleteStamp(end, row.order)
      try removePath(end, row.order, reason: reason, isProtected, &walk)
    }
    return walk.summary
  }

  /// Removes blocks from a path end upwards, which another order than this one has chosen.
  ///
  /// `blockCount` blocks at most, and none whose turn is later by priority and stamp.
  package func removePath(
    endingAt end: StampedEnd,
    blockCount: Int,
    reason: RemovalReason,
    isProtected: (NamespaceID, RunID, UInt32) -> Bool
  ) throws(CatalogError) -> PathRemoval {
    // Not all that gathers: one path after another is removed, and their events become one.
    try settleStamps()
    try settleDeadlines()
    let leaf = PathEnd(namespace: end.namespace, at: end.at)
    guard let own = try storedStamp(leaf.namespace, leaf.at), own.stamp == end.stamp,
      try containsRow(leaf.namespace, leaf.at), try isLeaf(leaf.namespace, leaf.at)
    else { return .outdated }
    if isProtected(leaf.namespace, leaf.at.run, leaf.at.position) { return .protected }
    var walk = EvictionWalk(neededCount: blockCount)
    walk.hasSkipped = true
    try deleteStamp(leaf, own)
    var above: StampedEnd?
    if let left = try removePath(leaf, own, reason: reason, isProtected, &walk),
      let stamp = try storedStamp(left.namespace, left.at)?.stamp
    {
      above = StampedEnd(namespace: left.namespace, at: left.at, stamp: stamp)
    }
    return .removed(walk.summary, above: above)
  }

  private func firstVictim(
    _ pools: Set<UInt32>,
    after order: StampOrder?
  ) throws(CatalogError) -> StampRow? {
    var first: StampRow?
    for pool in pools {
      try forEachStamp(pool: pool, after: order) { row in
        if first.map({ row.order < $0.order }) ?? true { first = row }
        return false
      }
    }
    return first
  }

  /// Whether below a block that is met there may be stamps older than its own.
  private func mayBeOlderBelow(
    _ namespace: NamespaceID,
    _ walk: EvictionWalk
  ) throws(CatalogError) -> Bool {
    if walk.hasSkipped { return true }
    return try cachedNamespace(namespace)?.facts.contains(.hasPriorities) ?? false
  }

  /// Removes blocks from an unprotected leaf upwards, as long as none of them comes after `order`, the first of all.
  ///
  /// Returns the block that is left above.
  @discardableResult
  private func removePath(
    _ leaf: PathEnd,
    _ order: StampOrder,
    reason: RemovalReason,
    _ isProtected: (NamespaceID, RunID, UInt32) -> Bool,
    _ walk: inout EvictionWalk
  ) throws(CatalogError) -> PathEnd? {
    let namespace = leaf.namespace
    guard let row = try cachedNamespace(namespace) else { throw .namespaceMissing }
    var end = leaf.at
    // What the removed blocks hand upwards.
    var stamp = order.stamp
    while true {
      let (first, stop) = try removableRange(
        row,
        end,
        order: order,
        stamp: &stamp,
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
      if first == 0, let parent {
        try delete(.children, .child(namespace, parent, end.run))
        try handUpRunHits(namespace, end.run, to: parent)
      }
      guard let parent, parent != .root else { return nil }

      let next = PathEnd(namespace: namespace, at: parent)
      switch stop {
      case .children:
        if try mayBeOlderBelow(namespace, walk) { try handOver(stamp, to: next) }
        return next
      case .protected:
        try handOver(stamp, to: next)
        walk.skip(order)
        return next
      case .enough, .comesLater:
        try handOver(stamp, to: next)
        return next
      case .firstOfRun: break
      }
      // The run is gone; go on in the parent's if that block is a leaf now and its turn is not later.
      guard try isLeaf(namespace, parent) else {
        if try mayBeOlderBelow(namespace, walk) { try handOver(stamp, to: next) }
        return next
      }
      if try comesLater(next, row, order, &stamp) || walk.neededCount <= 0 {
        try handOver(stamp, to: next)
        return next
      }
      if isProtected(namespace, parent.run, parent.position) {
        try handOver(stamp, to: next)
        walk.skip(order)
        return next
      }
      if let own = try storedStamp(namespace, parent) { try deleteStamp(next, own) }
      end = parent
    }
  }

  /// Whether a block that has become a leaf comes after `order`; `stamp` becomes the larger of it and the block's own.
  private func comesLater(
    _ end: PathEnd,
    _ row: NamespaceRow,
    _ order: StampOrder,
    _ stamp: inout UInt64
  ) throws(CatalogError) -> Bool {
    if let own = try storedStamp(end.namespace, end.at) { stamp = max(stamp, own.stamp) }
    return order < StampOrder(priority: try priority(end, in: row), stamp: stamp)
  }

  /// Why a removal stops above a range of a run.
  private enum Stop { case enough, children, comesLater, protected, firstOfRun }

  /// How far up in its run the path of `end` may be removed: the first position, and what keeps the one before.
  ///
  /// Dominated stamps within the range are dropped on the way.
  private func removableRange(
    _ row: NamespaceRow,
    _ end: BlockPosition,
    order: StampOrder,
    stamp: inout UInt64,
    count: Int,
    _ isProtected: (NamespaceID, RunID, UInt32) -> Bool
  ) throws(CatalogError) -> (first: UInt32, stop: Stop) {
    let namespace = row.id
    let hasPriorities = row.facts.contains(.hasPriorities)
    // Looked up once for the whole range; within it only positions are compared.
    let forkPosition = try lastPosition(.children, namespace, before: end)
    var stampedPosition = try lastPosition(.ends, namespace, before: end)
    var first = end.position
    while first > 0 {
      let above = first - 1
      if above == forkPosition { return (first, .children) }
      if Int(end.position - first) + 1 >= count { return (first, .enough) }
      if hasPriorities || above == stampedPosition {
        let at = PathEnd(namespace: namespace, at: BlockPosition(run: end.run, position: above))
        if try comesLater(at, row, order, &stamp) { return (first, .comesLater) }
      }
      if isProtected(namespace, end.run, above) { return (first, .protected) }
      if above == stampedPosition {
        let at = BlockPosition(run: end.run, position: above)
        if let own = try storedStamp(namespace, at) {
          try deleteStamp(PathEnd(namespace: namespace, at: at), own)
        }
        stampedPosition = try lastPosition(.ends, namespace, before: at)
      }
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
struct EvictionWalk {
  var neededCount: Int
  var summary = RemovedSummary()
  /// Stamps up to here were dealt with.
  var done: StampOrder?
  /// A path end had to stay though it was old: from then on smaller stamps may lie below a block.
  var hasSkipped = false

  init(neededCount: Int) { self.neededCount = neededCount }

  mutating func skip(_ order: StampOrder) {
    done = order
    hasSkipped = true
  }
}
