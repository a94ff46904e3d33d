/// Counts of the index.
package struct IndexStatistics: Hashable, Sendable {
  package var nodeCount: Int
  package var blockCount: Int
  /// Bytes allocated, growth slack and an estimate of the allocator's own bytes included.
  package var byteCount: Int
}
