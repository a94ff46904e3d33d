/// Number of a node of the radix tree; reused once the node is gone, never persisted.
package struct NodeID: Hashable, Sendable, RawRepresentable {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }
  /// No node: the root of a namespace, or the end of a list.
  package static let none = NodeID(rawValue: .max)
}
