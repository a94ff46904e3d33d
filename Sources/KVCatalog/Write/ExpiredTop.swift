package import KVCore

/// A block that had come to its end.
package struct ExpiredTop: Sendable, Equatable {
  package var namespace: NamespaceID
  package var at: BlockPosition
}
