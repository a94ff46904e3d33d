package import KVCore

/// An order of victims other than by recency, kept by whoever runs the transactions.
///
/// It lists path ends with their stamps; what it lists may be out of date, for the catalog is asked before anything is done.
package protocol VictimOrder: AnyObject {
  /// False where recency is to decide.
  var isInUse: Bool { get }

  /// So many blocks are left once an eviction is through: as many as there is room for.
  func noteCapacity(_ blockCount: Int)

  /// The stamp that the next use of a path end gets, and what the use was.
  func noteUse(_ use: UInt64, stamp: UInt64)

  /// A path end has this stamp now; it may have something below it.
  func stamped(_ namespace: NamespaceID, _ at: BlockPosition, stamp: UInt64)

  /// A path end has none any more.
  func unstamped(_ namespace: NamespaceID, _ at: BlockPosition)

  /// Where the look through the stamps of a pool has come to; nil = it begins anew.
  var lookedThrough: [UInt32: StampOrder] { get set }

  /// Takes the path end out of the list that is worth least, of these namespaces.
  func takeLeast(_ namespaces: [NamespaceID]) -> ListedPathEnd?
}

/// A path end as a `VictimOrder` lists it.
package struct ListedPathEnd: Hashable, Sendable {
  package var namespace: NamespaceID
  package var at: BlockPosition
  package var stamp: UInt64

  package init(namespace: NamespaceID, at: BlockPosition, stamp: UInt64) {
    self.namespace = namespace
    self.at = at
    self.stamp = stamp
  }
}

extension WriteTransaction {
  /// The stamp that the next use gets.
  package var useCounter: UInt64 { counters.stamp }

  /// Rows of `stamps` that an eviction looks at for path ends that are not listed: of earlier processes, and of others.
  private static let lookCount = 64

  /// Removes what is worth least by another order than recency; what is still needed then, recency sees to.
  func evictLeast(
    by order: any VictimOrder,
    pools: Set<UInt32>,
    reason: RemovalReason,
    _ isProtected: (NamespaceID, RunID, UInt32) -> Bool,
    _ walk: inout EvictionWalk
  ) throws(CatalogError) {
    let rows = try namespaces()
    var blockCount = 0
    for row in rows { blockCount += Int(clamping: try accounting(row.id).blockCount) }
    order.noteCapacity(max(1, blockCount - walk.neededCount))
    let concerned = rows.filter { !pools.isDisjoint(with: $0.pools) }
    // The lowest priority goes first, whatever it is worth.
    guard order.isInUse, !concerned.contains(where: { $0.facts.contains(.hasPriorities) }) else {
      return
    }
    // Stamps below a block may be older than its own from here on.
    walk.hasSkipped = true
    try list(pools, in: order)
    let ids = concerned.map(\.id)
    var protected: [ListedPathEnd] = []
    while walk.neededCount > 0, let least = order.takeLeast(ids) {
      let end = PathEnd(namespace: least.namespace, at: least.at)
      guard let own = try storedStamp(end.namespace, end.at), own.stamp == least.stamp,
        try containsRow(end.namespace, end.at), try isLeaf(end.namespace, end.at)
      else { continue }
      if isProtected(end.namespace, end.at.run, end.at.position) {
        protected.append(least)
        continue
      }
      try deleteStamp(end, own)
      let above = try removePath(end, own, reason: reason, isProtected, &walk)
      if let above, let stamp = try storedStamp(above.namespace, above.at) {
        order.stamped(above.namespace, above.at, stamp: stamp.stamp)
      }
    }
    for end in protected { order.stamped(end.namespace, end.at, stamp: end.stamp) }
  }

  /// Looks at some more rows of `stamps`, round and round.
  private func list(_ pools: Set<UInt32>, in order: any VictimOrder) throws(CatalogError) {
    for pool in pools.sorted() {
      var count = 0
      var last: StampOrder?
      try forEachStamp(pool: pool, after: order.lookedThrough[pool]) { row in
        order.stamped(row.namespace, row.end, stamp: row.stamp)
        count += 1
        last = row.order
        return count < Self.lookCount
      }
      order.lookedThrough[pool] = count < Self.lookCount ? nil : last
    }
  }
}
