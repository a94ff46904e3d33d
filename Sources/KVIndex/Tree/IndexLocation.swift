/// Where a block stands in the index: its node and the index in it, or the root of its namespace.
///
/// Valid until the index removes the block or splits its node.
package struct IndexLocation: Hashable, Sendable {
  package var node: NodeID
  package var local: UInt32

  package init(node: NodeID, local: UInt32) {
    self.node = node
    self.local = local
  }

  /// The parent of first blocks.
  package static let root = IndexLocation(node: .none, local: 0)
  package var isRoot: Bool { node == .none }
}
