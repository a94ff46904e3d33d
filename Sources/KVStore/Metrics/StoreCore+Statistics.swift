internal import KVCatalog
internal import KVCore
internal import KVFile
internal import KVIndex
internal import KVTiers

extension StoreCore {
  /// What the store may take: for who only reads it, what those that write to it say, or else what it was made or grown with.
  private var diskBytesCapacity: UInt64 {
    guard configuration.readOnly else { return UInt64(configuration.capacityBytes) }
    // A tool that only looks after the store says none.
    return livingProcesses().values.map(\.diskBytesCapacity).filter { $0 > 0 }.max()
      ?? catalog.meta.capacityBytes
  }

  func statistics() -> StoreStatistics {
    let now = configuration.clock.bootTimeNanoseconds()
    var result = state.withLock { state in
      var result = state.meters.statistics
      let index = state.tree.statistics
      result.indexNodes = UInt64(index.nodeCount)
      result.indexBlocks = UInt64(index.blockCount)
      result.indexBytes = UInt64(index.byteCount)
      result.hostBytesUsed = UInt64(state.host.usedByteCount)
      result.hostBytesLent = UInt64(state.host.lentByteCount)
      result.bytesPerSecondHost = UInt64(state.meters.bandwidth.host.bytesPerSecond)
      result.bytesPerSecondDisk = UInt64(state.meters.bandwidth.disk.bytesPerSecond)
      result.bytesPerSecondArchive = UInt64(state.meters.bandwidth.archive.bytesPerSecond)
      return result
    }
    result.archiveBytesCapacity = UInt64(slotBounds.archive)
    result.archiveBytesWritten = diskTier.bytesWritten(.archive)
    result.archiveBytesRead = diskTier.bytesRead(.archive)
    result.leasesActive = unsafe UInt64(
      leases.activeCount(now: now, deadOwners: activeLeases.deadOwners())
    )
    result.hostBytesCapacity = UInt64(effectiveHostBytes)
    result.diskBytesWritten = diskTier.bytesWritten(.disk)
    result.diskBytesRead = diskTier.bytesRead(.disk)
    // LMDB syncs twice for a commit: its data pages, then the page that makes them valid.
    result.syncs = diskTier.syncCount + 2 * catalogWriter.commits
    result.catalogCommits = catalogWriter.commits
    result.ioPath = diskTier.isDirect.map { $0 ? .direct : .buffered } ?? .none
    result.diskBytesCapacity = diskBytesCapacity
    if let usage = catalogUsage {
      result.catalogBytesCapacity = UInt64(usage.mapByteCount)
      result.catalogBytesUsed = UInt64(usage.usedByteCount)
      result.diskBytesUsed = UInt64(usage.fileByteCount)
    }
    result.diskBytesUsed += identities.byteCount
    let catalogCounts = try? catalogRead { (transaction) throws(CatalogError) in
      var blocks: UInt64 = 0
      var payload: UInt64 = 0
      for namespace in try transaction.namespaces() {
        let accounting = try transaction.accounting(namespace.id)
        blocks += accounting.blockCount
        payload += accounting.payloadByteCount
      }
      var slotBytes: [Tier: UInt64] = [:]
      for file in try transaction.slotFiles() {
        slotBytes[file.tier, default: 0] += UInt64(file.slotByteCount) * UInt64(file.slotCount)
      }
      let pins = try transaction.pins(now: time.now()).count
      return (blocks, payload, slotBytes, pins)
    }
    if let (blocks, payload, slotBytes, pins) = catalogCounts {
      result.pinsActive = UInt64(pins)
      result.blocksStored = blocks
      result.payloadBytesStored = payload
      result.diskBytesUsed += slotBytes[.disk] ?? 0
      result.archiveBytesUsed = slotBytes[.archive] ?? 0
    }
    result.slotsErasePending = erasePendingSlotCount
    deviceMeter.fill(&result)
    result.remote = remote?.statistics
    result.poisoned = health.isPoisoned
    return result
  }
}
