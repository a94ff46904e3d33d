internal import KVCatalog
package import KVCore
internal import KVIndex

/// What blocks get of life, in the index at once and in the catalog with the next commit.
extension StoreCore {
  /// What blocks get that are written now; nil = the namespace's default.
  func offeredExpiry(
    _ timeToLive: TimeToLive?,
    priority: UInt8?,
    _ namespace: NamespaceCore
  ) -> OfferedExpiry {
    let timeToLive = timeToLive ?? namespace.expiry.timeToLive
    if timeToLive != .unlimited { namespace.expiry.mayExpire.exchange(true) }
    return OfferedExpiry(
      blockExpiry: BlockExpiry(timeToLive, from: time.now()),
      priority: priority ?? NewBlock.priorityDefault,
      hasPriority: priority != nil
    )
  }

  /// A path was used: its idle TTLs begin anew, and last `keepNanoseconds` at least.
  func extendExpiry(
    _ namespace: NamespaceCore,
    _ segments: [IndexSegment],
    _ state: inout StoreState,
    keepNanoseconds: UInt64 = 0
  ) {
    guard namespace.expiry.mayExpire.value, !configuration.readOnly else { return }
    let extended = state.tree.extendIdle(
      segments,
      from: time.now(),
      keepNanoseconds: keepNanoseconds
    )
    for (target, deadline) in extended {
      writer?.enqueueExtension(namespace, target, until: deadline)
    }
  }

  /// Stored blocks were offered again, with a life and a priority.
  func renewExpiry(
    _ namespace: NamespaceCore,
    _ prefix: StoredPrefix,
    _ blocks: Range<Int>,
    _ offered: OfferedExpiry,
    _ state: inout StoreState
  ) {
    guard namespace.expiry.mayExpire.value || offered.hasPriority, !blocks.isEmpty else { return }
    for target in state.tree.renew(prefix, blocks, offered) {
      writer?.enqueueRenewal(namespace, target, offered)
    }
  }

  /// Removes expired blocks, and pins that have ended; returns the number of blocks.
  package func reclaimExpired() throws(StoreError) -> Int {
    guard let writer else { throw .readOnly }
    return try writer.perform(deadline: writerDeadline) { () throws(StoreError) in
      try writer.batches.removeExpired()
    }
  }
}

/// What an offload gives its blocks.
struct OfferedExpiry: Sendable {
  var blockExpiry = BlockExpiry.unlimited
  var priority = NewBlock.priorityDefault
  /// It was asked for, so that stored blocks get it too.
  var hasPriority = false
}
