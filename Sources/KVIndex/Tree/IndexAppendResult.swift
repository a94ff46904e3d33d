/// Where `append` put a block.
package struct IndexAppendResult: Hashable, Sendable {
  package var location: IndexLocation
  /// False when the block was there already; its entry is then unchanged.
  package var isNew: Bool
}
