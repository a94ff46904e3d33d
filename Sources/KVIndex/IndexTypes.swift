/// Number of a node of the radix tree; reused once the node is gone, never persisted.
package struct NodeID: Hashable, Sendable, RawRepresentable {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }
  /// No node: the root of a namespace, or the end of a list.
  package static let none = NodeID(rawValue: .max)
}

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

/// How far a prompt is in the index.
package struct PrefixMatch: Hashable, Sendable {
  /// The last matched block; where the search began when nothing matched.
  package var location: IndexLocation
  /// Blocks matched, counted from where the search began.
  package var matchedBlockCount: Int

  package init(location: IndexLocation, matchedBlockCount: Int) {
    self.location = location
    self.matchedBlockCount = matchedBlockCount
  }
}

/// Where `append` put a block.
package struct IndexAppendResult: Hashable, Sendable {
  package var location: IndexLocation
  /// False when the block was there already; its entry is then unchanged.
  package var isNew: Bool
}

/// Counts of the index.
package struct IndexStatistics: Hashable, Sendable {
  package var nodeCount: Int
  package var blockCount: Int
  /// Bytes allocated, growth slack and an estimate of the allocator's own bytes included.
  package var byteCount: Int
}

/// The extra bytes of a prompt's block, by its index in the prompt; empty for most.
package typealias ExtraBytesAccessor = (_ blockIndex: Int) -> UnsafeRawBufferPointer
