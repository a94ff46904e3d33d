package import KVCore

extension ReadTransaction {
  /// The first block of what a path shares with no other: below the last block on it where another one branches off.
  ///
  /// Nil when others go on from the path's end itself: then it has nothing of its own.
  package func topOfTail(
    _ namespace: NamespaceID,
    endingAt end: BlockPosition
  ) throws(CatalogError) -> BlockPosition? {
    guard end != .root, try branchCount(namespace, below: end) == 0 else { return nil }
    var top = end
    while let parent = try parent(namespace, top), parent != .root,
      try branchCount(namespace, below: parent) == 1
    {
      top = parent
    }
    return top
  }

  /// Ways on from a block, 2 for more.
  private func branchCount(
    _ namespace: NamespaceID,
    below at: BlockPosition
  ) throws(CatalogError) -> Int {
    let next = BlockPosition(run: at.run, position: at.position &+ 1)
    let ownCount = try containsRow(namespace, next) ? 1 : 0
    return ownCount + (try children(namespace, at, limit: 2).count)
  }
}
