package import KVCore

/// A path end and the stamp that it has.
package struct StampedEnd: Hashable, Sendable {
  package var namespace: NamespaceID
  package var at: BlockPosition
  package var stamp: UInt64

  package init(namespace: NamespaceID, at: BlockPosition, stamp: UInt64) {
    self.namespace = namespace
    self.at = at
    self.stamp = stamp
  }
}

/// What became of a path end that was proposed for removal.
package enum PathRemoval: Sendable {
  /// It has another stamp by now, or something below it; nothing was changed.
  case outdated
  /// It has to stay.
  case protected
  /// Blocks were removed from it upwards; the block above, which has a stamp now and may have others below it.
  case removed(RemovedSummary, above: StampedEnd?)
}

/// What a transaction did to the stamps of path ends, for an order of eviction that is kept beside the catalog.
package enum StampChange: Sendable {
  /// This use gets the stamp.
  case used(UInt64, stamp: UInt64)
  case stamped(StampedEnd)
  case unstamped(NamespaceID, BlockPosition)
}
