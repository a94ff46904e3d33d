internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVTiers

extension StoreCore {
  // MARK: Checks and copies

  /// Whether a header that came from disk is the one that the catalog promised, of this very block.
  ///
  /// That of a decoded slot is not the stored one any more, which was compared before.
  func headerMatches(
    _ bytes: UnsafeRawBufferPointer,
    _ place: BlockPlace,
    _ planned: PlannedBlock,
    _ namespace: NamespaceCore,
    _ prompt: Prompt
  ) -> Bool {
    guard let header = unsafe SlotHeaderView(bytes),
      place.tier == .archive || header.checksum == place.headerChecksum,
      header.generation == place.generation,
      header.namespaceID == namespace.id,
      unsafe header.storeUUID.elementsEqual(storeUUID),
      header.rootKey == namespace.chain.rootKey,
      header.blockKey == planned.blockKey,
      header.regionCount == namespace.regionCount,
      let block = namespace.block(planned.block, of: prompt)
    else { return false }
    return block.matches(header)
  }

  /// Copies the regions that are needed from a slot in memory to the caller, checking each first when it came from disk.
  ///
  /// The spans of the others get the length 0.
  func copyOut(
    _ slot: UnsafeMutableRawPointer,
    _ pieces: SlotPieces,
    _ planned: PlannedBlock,
    _ namespace: NamespaceCore,
    _ range: NamespaceCore.Range,
    verifies: Bool,
    _ result: inout TransferResult
  ) -> BlockOutcome {
    guard
      // Checked already if it came from disk; that of a pending block may be being sealed just now.
      let header = unsafe SlotHeaderView(
        trusted: UnsafeRawBufferPointer(
          start: slot,
          count: min(pieces.byteCount, namespace.layout.headerByteCount)
        )
      )
    else { return .miss }
    let needed = range.selection.ranges(ofBlock: planned.block)
    if needed.first != range.regions { range.clearLengths(ofBlock: planned.block) }
    var offset = namespace.layout.headerByteCount
    var region = 0
    let spanBase = range.spanIndex(ofBlock: planned.block) - range.regions.lowerBound
    var outcome = BlockOutcome.done
    for regions in needed {
      while region < regions.lowerBound {
        offset += Int(header.region(region).storedByteCount)
        region += 1
      }
      while region < regions.upperBound {
        let stored = header.region(region)
        let length = Int(stored.storedByteCount)
        guard let start = pieces.start(of: offset, byteCount: length) else { return .miss }
        let bytes = unsafe UnsafeRawBufferPointer(start: slot.advanced(by: start), count: length)
        if verifies, xxh3Checksum(bytes) != stored.checksum { return .miss }
        let index = spanBase + region
        unsafe range.spans[index].length = length
        if unsafe range.spans[index].capacity < length {
          outcome = .bufferTooSmall
        } else if let base = bytes.baseAddress, length > 0 {
          unsafe range.spans[index].data?.copyMemory(from: base, byteCount: length)
          result.byteCount += length
        }
        offset += length
        region += 1
      }
    }
    return outcome
  }

  // MARK: Failed checks

  /// A read that failed is a failed check as well, unless it says nothing of the block.
  func failedRead(
    _ namespace: NamespaceCore,
    _ position: BlockPosition?,
    _ place: BlockPlace,
    _ failure: FileError
  ) -> Bool {
    // Who is out of descriptors or memory would lose all that it asks for.
    if failure.isOfProcess {
      state.withLock { $0.statistics.missesUnreadable += 1 }
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
    guard place.tier == .archive, archiveSlotByteCount(place.file) == nil else { return false }
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
      state.withLock { state in
        if isUnreadable {
          state.statistics.missesUnreadable += 1
        } else {
          state.statistics.missesCorrupt += 1
        }
      }
      quarantine(namespace, position, place)
    } else {
      state.withLock { state in
        state.statistics.missesStale += 1
        state.removeFromIndex(
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
      state.removeFromIndex(range)
      guard !state.hidden.contains(range) else { return false }
      state.hidden.insert(range)
      return true
    }
    if isNew { writer?.enqueueQuarantine(namespace, position, place, range) }
  }
}
