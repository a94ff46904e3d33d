internal import KVCatalog
internal import KVCore
internal import KVTiers

extension StoreCore {
  /// Frees what processes that were killed held: slots reserved, leases, lock files, slot files that no commit knows.
  ///
  /// On the writer's thread when the store is opened; a store that stays open frees what it comes to need
  /// (`SlotReserve`, `releaseDeadLeases`).
  func removeLeftOvers() {
    _ = releaseDeadLeases()
    ownerFiles.removeDead()
    sharedMemory.removeLeftOvers()
    // It is only tidying: where it fails, the next open tries again.
    do throws(StoreError) {
      try removeStrayFiles()
      let owners = try catalogRead { (transaction) throws(CatalogError) in
        try transaction.ownersWithReservations()
      }
      let dead = owners.filter { $0 != owner && ownerFiles.isDead($0) }
      guard !dead.isEmpty else { return }
      try catalogWriter.commit { (transaction) throws(CatalogError) in
        for owner in dead { _ = try transaction.freeReservations(ofOwner: owner) }
      }
    } catch {
      return
    }
  }

  private func removeStrayFiles() throws(StoreError) {
    let tiers: [Tier] = archive.isOwn ? [.disk, .archive] : [.disk]
    let known = try catalogRead { (transaction) throws(CatalogError) in
      try knownFiles(transaction)
    }
    // A file that is being made is stray until its commit: only the write lock tells.
    guard
      tiers.contains(where: { tier in
        diskTier.strayFiles(of: tier, except: known).contains { $0.kind != .setAside }
      })
    else { return }
    try catalogWriter.commit { (transaction) throws(CatalogError) in
      let known = try knownFiles(transaction)
      for tier in tiers { diskTier.settleStrayFiles(of: tier, known: known, leaving: []) }
    }
  }

  private func knownFiles(
    _ transaction: ReadTransaction
  ) throws(CatalogError) -> Set<SlotFileID> {
    Set(try transaction.slotFiles().map { SlotFileID(tier: $0.tier, file: $0.file) })
  }
}
