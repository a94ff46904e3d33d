internal import KVCore

extension PrefixIndex {
  /// Drops the leaf nodes that were used longest ago until the index takes `target` bytes at most.
  ///
  /// A node goes as a whole, and only if no block of it has a host slot and all are `isRemovable`
  /// (not pending). The nodes' own table never shrinks. O(blocks removed): held nodes that are met
  /// count as used, so that the next call does not meet them, and few are passed over in one call.
  ///
  /// - Returns: the number of blocks dropped.
  @discardableResult
  package func trim(toByteCount target: Int, isRemovable: (IndexEntry) -> Bool) -> Int {
    let oldBlockCount = blockCount
    var removedNodeCount = 0
    var held: [NodeID] = []
    var passedCount = 0
    var id = oldest
    while id != .none && byteCount > target && passedCount <= removedNodeCount + 1024 {
      let newer = nodes[id].newer
      if nodes[id].firstChild != .none {
        passedCount += 1
      } else if isRemovableNode(id, isRemovable) {
        removeLeaf(id)
        removedNodeCount += 1
      } else {
        held.append(id)
        passedCount += 1
      }
      id = newer
    }
    for id in held { touch(IndexLocation(node: id, local: 0)) }
    return oldBlockCount - blockCount
  }

  private func isRemovableNode(_ id: NodeID, _ isRemovable: (IndexEntry) -> Bool) -> Bool {
    // From the end: what is held is held at the tail more often than at the head.
    for index in (0..<Int(nodes[id].count)).reversed() {
      let entry = nodes[id].entry(at: index)
      if entry.hostSlot >= 0 || !isRemovable(entry) { return false }
    }
    return true
  }
}
