internal import KVCore
internal import KVTiers

/// A block that has been offloaded and is not durable yet.
struct PendingBlock {
  let namespace: NamespaceCore
  /// See `HostTier.attachPending`.
  let ticket: UInt64
  let hostSlot: HostSlot
  let blockKey: BlockKey
  let parent: LeaseTable.Target
  let parentKey: BlockKey
  /// Blocks before it.
  let depth: Int
  let payloadByteCount: Int
  let offered: OfferedExpiry
  /// Of the handle that hears what became of it; of others see `HostTier.promise`.
  let ledger: FlushLedger
}
