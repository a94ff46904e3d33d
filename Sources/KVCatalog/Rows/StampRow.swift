package import KVCore

/// A stamp and the path end that has it.
package struct StampRow: Sendable, Equatable {
  package var pool: UInt32
  package var order: StampOrder
  package var stamp: UInt64 { order.stamp }
  package var namespace: NamespaceID
  package var end: BlockPosition
}
