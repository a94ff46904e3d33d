/// Consecutive blocks of one node.
package struct IndexSegment: Hashable, Sendable {
  package var node: NodeID
  package var firstLocal: UInt32
  package var blockCount: UInt32

  package init(node: NodeID, firstLocal: UInt32, blockCount: UInt32) {
    self.node = node
    self.firstLocal = firstLocal
    self.blockCount = blockCount
  }

  /// The location of the block at `index` of the segment.
  package func location(at index: Int) -> IndexLocation {
    IndexLocation(node: node, local: firstLocal &+ UInt32(truncatingIfNeeded: index))
  }
}
