internal import KVCatalog
internal import KVCore

extension StoreCore {
  /// Frees what processes that were killed held: slots reserved, leases, lock files.
  ///
  /// On the writer's thread when the store is opened; a store that stays open frees what it comes to need
  /// (`SlotReserve`, `releaseDeadLeases`).
  func removeLeftOvers() {
    _ = releaseDeadLeases()
    ownerFiles.removeDead()
    // It is only tidying: where it fails, the next open tries again.
    do throws(StoreError) {
      let owners = try catalogRead { (transaction) throws(CatalogError) in
        try transaction.ownersWithReservations()
      }
      let dead = owners.filter { $0 != owner && ownerFiles.isDead($0) }
      guard !dead.isEmpty else { return }
      do throws(CatalogError) {
        try catalogWrite { (transaction) throws(CatalogError) in
          for owner in dead { _ = try transaction.freeReservations(ofOwner: owner) }
        }
      } catch {
        throw StoreError(error)
      }
      countCommit()
    } catch {
      return
    }
  }
}
