package import KVCore

/// A block and where its payload lies.
package struct PlacedBlock: Sendable, Equatable {
  package var namespace: NamespaceID
  package var position: BlockPosition
  package var place: BlockPlace

  package init(namespace: NamespaceID, position: BlockPosition, place: BlockPlace) {
    self.namespace = namespace
    self.position = position
    self.place = place
  }
}

/// Which blocks of a tier are next to leave it.
extension ReadTransaction {
  /// The blocks of a tier that eviction would remove first, in its order: the end of a path before what it hangs on.
  ///
  /// `resume` is where to go on: what comes before it has left the tier already. It is set for the next call. Start
  /// over with nil when there are too few: a block whose children were removed takes over an old stamp.
  package func coldest(
    pool: UInt32,
    in tier: Tier,
    blockCount: Int,
    resume: inout StampOrder?,
    isProtected: (NamespaceID, RunID, UInt32) -> Bool
  ) throws(CatalogError) -> [PlacedBlock] {
    var walk = ColdestWalk(tier: tier, neededCount: blockCount)
    var after = resume
    while walk.found.count < blockCount {
      var rows: [StampRow] = []
      try forEachStamp(pool: pool, after: after) { row in
        rows.append(row)
        return rows.count < 256
      }
      for row in rows where walk.found.count < blockCount {
        while let path = walk.nextDeferred(before: row.order) {
          try climb(path, &walk, isProtected)
        }
        try climb(ColdestWalk.Path(row), &walk, isProtected)
        if !walk.hasUnfinished, walk.deferred.isEmpty { resume = row.order }
        after = row.order
      }
      guard rows.isEmpty else { continue }
      while walk.found.count < blockCount, let path = walk.nextDeferred(before: nil) {
        try climb(path, &walk, isProtected)
      }
      break
    }
    return walk.found
  }

  /// Whether a block is where it was found.
  func containsBlock(_ block: PlacedBlock) throws(CatalogError) -> Bool {
    try intactRow(block.namespace, block.position)?.place == block.place
  }

  /// Takes the blocks of a path from its end upwards, as far as its turn is theirs.
  private func climb(
    _ path: ColdestWalk.Path,
    _ walk: inout ColdestWalk,
    _ isProtected: (NamespaceID, RunID, UInt32) -> Bool
  ) throws(CatalogError) {
    let namespace = path.namespace
    var at = path.at
    var below = path.below
    while at != .root {
      let block = ColdestWalk.Block(namespace: namespace, position: at)
      guard !walk.chosen.contains(block), let view = try intactRow(namespace, at) else { return }
      if isProtected(namespace, at.run, at.position) { return walk.hasUnfinished = true }
      if below != nil {
        // A block whose own use was later is reached again by its own stamp; one that counts for more waits for its turn.
        if let own = try storedStamp(namespace, at), own > path.order { return }
        if view.priority > path.order.priority {
          let order = StampOrder(priority: view.priority, stamp: path.order.stamp)
          return walk.wait(
            ColdestWalk.Path(order: order, namespace: namespace, at: at, below: below)
          )
        }
      }
      if try hasOthersBelow(namespace, at, besides: below, walk) { return }
      if view.place.tier == walk.tier, !view.place.isInline {
        guard walk.found.count < walk.neededCount else { return walk.hasUnfinished = true }
        walk.chosen.insert(block)
        walk.found.append(PlacedBlock(namespace: namespace, position: at, place: view.place))
      }
      below = at
      guard let parent = try parent(namespace, at) else { return }
      at = parent
    }
  }

  /// Whether a branch below a block, other than the one we came from, begins in the tier: its turn is later.
  private func hasOthersBelow(
    _ namespace: NamespaceID,
    _ at: BlockPosition,
    besides below: BlockPosition?,
    _ walk: ColdestWalk
  ) throws(CatalogError) -> Bool {
    var branches = [BlockPosition(run: at.run, position: at.position &+ 1)]
    branches += try children(namespace, at).map { BlockPosition(run: $0, position: 0) }
    for branch in branches where branch != below {
      guard let view = try intactRow(namespace, branch) else { continue }
      let isChosen = walk.chosen.contains(.init(namespace: namespace, position: branch))
      if view.place.tier == walk.tier, !isChosen { return true }
    }
    return false
  }

  /// Nil also for a damaged row: whoever reads that block deals with it.
  private func intactRow(
    _ namespace: NamespaceID,
    _ at: BlockPosition
  ) throws(CatalogError) -> RowView? {
    do throws(CatalogError) { return try rowView(namespace, at) } catch .corrupt(.blockRow) {
      return nil
    }
  }
}

/// Where the search for cold blocks stands.
private struct ColdestWalk {
  struct Block: Hashable {
    var namespace: NamespaceID
    var position: BlockPosition
  }

  /// A block from which to climb, and when its turn is.
  struct Path {
    var order: StampOrder
    var namespace: NamespaceID
    var at: BlockPosition
    var below: BlockPosition?
  }

  let tier: Tier
  let neededCount: Int
  var found: [PlacedBlock] = []
  var chosen: Set<Block> = []
  /// Blocks of a higher priority than what is below them, the next one last.
  var deferred: [Path] = []
  /// A path end was met that has blocks left in the tier: the next search begins before it.
  var hasUnfinished = false

  init(tier: Tier, neededCount: Int) {
    self.tier = tier
    self.neededCount = neededCount
  }

  mutating func wait(_ path: Path) {
    let index = deferred.firstIndex { $0.order < path.order } ?? deferred.endIndex
    deferred.insert(path, at: index)
  }

  mutating func nextDeferred(before order: StampOrder?) -> Path? {
    guard let next = deferred.last, order.map({ next.order < $0 }) ?? true else { return nil }
    return deferred.popLast()
  }
}

extension ColdestWalk.Path {
  init(_ row: StampRow) {
    self.init(order: row.order, namespace: row.namespace, at: row.end, below: nil)
  }
}
