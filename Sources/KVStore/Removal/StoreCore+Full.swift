internal import KVCatalog
internal import KVCore

extension WriterBatches {
  /// Of the pools for which there was no room those that leases and pins alone keep full.
  ///
  /// A full disk, or a burst whose own blocks keep each other, is no reason to refuse the next offload.
  func heldPools(_ pools: Set<UInt32>) -> Set<UInt32> {
    guard !pools.isEmpty, slots.growthError == nil else { return [] }
    let leases = core.activeLeases
    let leased = leases.deepestPositions(deadOwners: leases.deadOwners())
    do throws(StoreError) {
      return try core.catalogRead { (transaction) throws(CatalogError) in
        let protected = try transaction.protected(leased, now: core.time.now())
        var held: Set<UInt32> = []
        for pool in pools
        where try transaction.holdsNothingEvictable(
          inSlots: pool > 0,
          isProtected: { _, run, position in protected.covers(run, position) }
        ) {
          held.insert(pool)
        }
        return held
      }
    } catch {
      // The next offload finds out.
      return []
    }
  }
}

/// A store full of what must stay says so at once.
extension StoreCore {
  /// Whether blocks of the namespace would be dropped anyhow; counts them if so.
  func isFull(_ namespace: NamespaceCore, blockCount: Int) -> Bool {
    state.withLock { state in
      guard state.fullness.isHeld(pool: namespace.pool) else { return false }
      state.meters.noteRefusedFull(blockCount)
      return true
    }
  }
}
