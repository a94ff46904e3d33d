internal import KVCatalog
internal import KVCore
internal import KVFile
internal import KVTiers

/// What did not come as the catalog promised it.
extension StoreCore {
  /// A read that failed is a failed check as well, unless it says nothing of the block.
  func failedRead(
    _ namespace: NamespaceCore,
    _ position: BlockPosition?,
    _ place: BlockPlace,
    _ failure: FileError
  ) -> Bool {
    // Who is out of descriptors or memory would lose all that it asks for.
    if failure.isOfProcess {
      state.withLock { $0.meters.noteMiss(.unreadable) }
      return false
    }
    return failedCheck(namespace, position, place, isUnreadable: failure != .unsound)
  }

  /// A block could not even be tried: memory was short, or its archive file is not in the catalog.
  func checkHasFile(
    _ namespace: NamespaceCore,
    _ position: BlockPosition?,
    _ place: BlockPlace
  ) -> Bool {
    guard place.tier == .archive, archiveFiles.slotByteCount(place.file) == nil else {
      return false
    }
    return failedCheck(namespace, position, place, isUnreadable: true)
  }

  /// Tells stale from corrupt: the row is read again, and only if it still points at the bad slot is the block hidden and removed.
  ///
  /// True when the block only lies elsewhere by now: a look-up finds it there.
  @discardableResult
  func failedCheck(
    _ namespace: NamespaceCore,
    _ position: BlockPosition?,
    _ place: BlockPlace,
    isUnreadable: Bool = false
  ) -> Bool {
    guard let position else { return false }
    // Another process may have made the file anew after somebody removed it.
    if !place.isInline, diskTier.closeReplaced(place.address.fileID) { return true }
    var isSame = false
    var hasMoved = false
    do throws(StoreError) {
      try catalogRead { (transaction) throws(CatalogError) in
        let now = try transaction.row(namespace.id, position)?.places.first
        isSame = now == place
        hasMoved = now != nil && !isSame
      }
    } catch {
      isSame = false
    }
    if isSame {
      state.withLock { $0.meters.noteMiss(isUnreadable ? .unreadable : .corrupt) }
      quarantine(namespace, position, place)
    } else {
      state.withLock { state in
        state.meters.noteMiss(.stale)
        state.tree.remove(
          .init(
            namespace: namespace.id,
            run: position.run,
            firstPosition: position.position,
            blockCount: 0
          )
        )
      }
    }
    return hasMoved
  }

  /// Hides a block and everything below it at once, and lets the writer remove them.
  ///
  /// `place` is where the bad bytes lie; nil when it is the row that is bad.
  func quarantine(_ namespace: NamespaceCore, _ position: BlockPosition, _ place: BlockPlace?) {
    let range = RemovedSummary.Range(
      namespace: namespace.id,
      run: position.run,
      firstPosition: position.position,
      blockCount: 0
    )
    let isNew = state.withLock { state in
      guard !state.tree.isHidden(range) else {
        state.tree.remove(range)
        return false
      }
      state.tree.hide(range)
      return true
    }
    if isNew { writer?.enqueueQuarantine(namespace, position, place, range) }
  }
}
