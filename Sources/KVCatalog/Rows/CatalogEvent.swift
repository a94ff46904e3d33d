package import KVCore

/// What happened to a range of blocks of one run.
package struct CatalogEvent: Sendable, Equatable {
  package enum Kind: UInt8, Sendable { case stored = 1, removed, quarantined, moved }

  package var sequence: UInt64
  package var kind: Kind
  package var reason: RemovalReason
  package var tier: Tier
  package var namespace: NamespaceID
  package var run: RunID
  package var firstPosition: UInt32
  package var blockCount: UInt32
  package var timeNanoseconds: UInt64
  package var owner: OwnerID
  /// Of a removal: the key of the block at `firstPosition`, by which a later miss is explained; nil when its row was damaged.
  package var topKey: BlockKey?
}
