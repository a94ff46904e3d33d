public import CKVStore
internal import KVCore
internal import KVStore

private let configSizeMin = 64

private func defaultConfig() -> kvstore_config_t {
  let defaults = StoreConfiguration(path: "")
  var config = unsafe kvstore_config_t()
  unsafe config.struct_size = UInt32(MemoryLayout<kvstore_config_t>.size)
  unsafe config.capacity_bytes = UInt64(defaults.capacityBytes)
  unsafe config.host_bytes = UInt64(defaults.hostBytes)
  unsafe config.inline_payload_bytes_max = UInt64(defaults.inlinePayloadBytesMax)
  unsafe config.offload_timeout_nanoseconds = defaults.offloadTimeoutNanoseconds
  unsafe config.commit_interval_nanoseconds = defaults.commitIntervalNanoseconds
  unsafe config.wait_timeout_nanoseconds = defaults.waitTimeoutNanoseconds
  unsafe config.eviction_policy = UInt32(defaults.evictionPolicy.rawValue)
  unsafe config.remote_look_up_timeout_nanoseconds = defaults.remote.lookUpTimeoutNanoseconds
  unsafe config.remote_transfer_timeout_nanoseconds = defaults.remote.transferTimeoutNanoseconds
  return unsafe config
}

/// See kvstore.h.
@_cdecl("kvstore_config_init")
public func exportConfigInit(
  _ config: UnsafeMutablePointer<kvstore_config_t>?,
  _ structSize: Int
) -> Int32 {
  guard let config = unsafe config else { return fail(.invalidArgument(.null)) }
  let ours = unsafe MemoryLayout<kvstore_config_t>.size
  guard isStructSize(structSize, minimum: configSizeMin, maximum: ours) else {
    return fail(.invalidArgument(.structSize))
  }
  var defaults = unsafe defaultConfig()
  unsafe defaults.struct_size = UInt32(structSize)
  unsafe withUnsafeBytes(of: &defaults) { source in
    guard let base = source.baseAddress else { return }
    unsafe UnsafeMutableRawPointer(config).copyMemory(from: base, byteCount: structSize)
  }
  return Status.ok
}

/// See kvstore.h.
@_cdecl("kvstore_open")
public func exportOpen(
  _ config: UnsafePointer<kvstore_config_t>?,
  _ storeOut: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
  guard let storeOut = unsafe storeOut else { return fail(.invalidArgument(.null)) }
  unsafe storeOut.pointee = nil
  var path = ""
  do throws(StoreError) {
    let configuration = try unsafe configuration(config)
    path = configuration.path
    let store = try Store.open(configuration)
    unsafe storeOut.pointee = HandleTable.insert(store, kind: .store)
    return Status.ok
  } catch {
    return fail(
      Status.of(error),
      path.isEmpty ? error.message : shortened(path) + ": " + error.message
    )
  }
}

/// The beginning and the end of a path that is too long for a message: what matters most is behind it.
private func shortened(_ path: String) -> String {
  let scalarCountMax = 120
  let scalars = path.unicodeScalars
  guard scalars.count > scalarCountMax else { return path }
  return String(scalars.prefix(scalarCountMax / 2)) + "…"
    + String(scalars.suffix(scalarCountMax / 2))
}

private func configuration(
  _ pointer: UnsafePointer<kvstore_config_t>?
) throws(StoreError) -> StoreConfiguration {
  var config = unsafe defaultConfig()
  try unsafe copyStruct(pointer, over: &config, minimum: configSizeMin)
  guard unsafe config.flags & ~UInt32(KVSTORE_OPEN_READ_ONLY | KVSTORE_OPEN_BUFFERED_IO) == 0 else {
    throw .invalidArgument(.flags)
  }
  guard unsafe config.path != nil else { throw .invalidArgument(.path) }
  var configuration = StoreConfiguration(path: try unsafe text(config.path))
  configuration.readOnly = unsafe config.flags & UInt32(KVSTORE_OPEN_READ_ONLY) != 0
  configuration.bufferedIO = unsafe config.flags & UInt32(KVSTORE_OPEN_BUFFERED_IO) != 0
  configuration.capacityBytes = unsafe Int(clamping: config.capacity_bytes)
  configuration.catalogBytes = unsafe Int(clamping: config.catalog_bytes)
  configuration.hostBytes = unsafe Int(clamping: config.host_bytes)
  configuration.inlinePayloadBytesMax = unsafe Int(clamping: config.inline_payload_bytes_max)
  configuration.offloadTimeoutNanoseconds = unsafe config.offload_timeout_nanoseconds
  configuration.commitIntervalNanoseconds = unsafe config.commit_interval_nanoseconds
  configuration.waitTimeoutNanoseconds = unsafe config.wait_timeout_nanoseconds
  guard unsafe config.reserved == 0, unsafe config.admission < AdmissionPolicy.allCases.count else {
    throw .invalidArgument(.flags)
  }
  configuration.admission = AdmissionPolicy.allCases[unsafe Int(config.admission)]
  guard unsafe config.reserved2 == 0,
    let policy = unsafe EvictionPolicy(rawValue: Int(config.eviction_policy))
  else { throw .invalidArgument(.flags) }
  configuration.evictionPolicy = policy
  configuration.writeBytesPerDay = unsafe Int(clamping: config.write_bytes_per_day)
  configuration.archiveBytes = unsafe Int(clamping: config.archive_bytes)
  if unsafe config.archive_path != nil {
    configuration.archivePath = try unsafe text(config.archive_path)
  }
  configuration.remote = try unsafe remote(config)
  return configuration
}

@unsafe private func remote(_ config: kvstore_config_t) throws(StoreError) -> RemoteConfiguration {
  var remote = RemoteConfiguration()
  if unsafe config.remote_url != nil { remote.url = try unsafe text(config.remote_url) }
  guard !remote.url.isEmpty else { return remote }
  if unsafe config.remote_credentials_file != nil {
    remote.credentialsFile = try unsafe text(config.remote_credentials_file)
  }
  if unsafe config.remote_ca_file != nil { remote.caFile = try unsafe text(config.remote_ca_file) }
  if unsafe config.remote_key_file != nil {
    remote.keyFile = try unsafe text(config.remote_key_file)
  }
  switch unsafe config.remote_writes {
  case UInt32(KVSTORE_REMOTE_WRITES_REUSED): remote.writes = .reused
  case UInt32(KVSTORE_REMOTE_WRITES_ALL): remote.writes = .all
  case UInt32(KVSTORE_REMOTE_WRITES_OFF): remote.writes = .off
  default: throw .invalidArgument(.flags)
  }
  guard unsafe config.remote_match <= 1 else { throw .invalidArgument(.flags) }
  remote.matchesAlways = unsafe config.remote_match == 1
  remote.writeBytesPerDay = unsafe Int(clamping: config.remote_write_bytes_per_day)
  remote.timeToLiveSeconds = unsafe Int(clamping: config.remote_time_to_live_seconds)
  remote.lookUpTimeoutNanoseconds = unsafe config.remote_look_up_timeout_nanoseconds
  remote.transferTimeoutNanoseconds = unsafe config.remote_transfer_timeout_nanoseconds
  guard let encoding = unsafe RemoteEncoding(rawValue: Int(config.remote_encoding)),
    unsafe config.remote_demotes <= 1
  else { throw .invalidArgument(.flags) }
  remote.encoding = encoding
  remote.demotes = unsafe config.remote_demotes == 1
  return remote
}

private func fill(_ copy: inout kvstore_stats_t, _ remote: RemoteStatistics) {
  copy.remote_look_ups = remote.lookUps
  copy.remote_look_up_rounds = remote.lookUpRounds
  copy.remote_chunks_fetched = remote.chunksFetched
  copy.remote_chunks_sent = remote.chunksSent
  copy.remote_chunks_existed = remote.chunksExisted
  copy.remote_bytes_fetched = remote.bytesFetched
  copy.remote_bytes_sent = remote.bytesSent
  copy.remote_blocks_fetched = remote.blocksFetched
  copy.remote_misses = remote.misses.values.reduce(0, &+)
  copy.remote_drops = remote.drops.values.reduce(0, &+)
  copy.remote_objects_removed = remote.objectsRemoved
  copy.remote_purges_pending = remote.purgesPending
  copy.remote_left_alone = remote.isBreakerOpen ? 1 : 0
}

/// See kvstore.h.
@_cdecl("kvstore_close")
public func exportClose(_ store: OpaquePointer?) -> Int32 {
  guard unsafe store != nil else { return Status.ok }
  guard let open = unsafe HandleTable.store(store) else {
    return unsafe failBadHandle(store, "store")
  }
  // In a forked child the handle stays the parent's.
  guard !open.isForked else { return fail(.forked) }
  guard unsafe HandleTable.remove(store, kind: .store) != nil else {
    return unsafe failBadHandle(store, "store")
  }
  HandleTable.removeAll(of: open)
  do throws(StoreError) {
    try open.close()
    return Status.ok
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_flush")
public func exportFlush(
  _ store: OpaquePointer?,
  _ timeoutNanoseconds: UInt64,
  _ result: UnsafeMutablePointer<kvstore_flush_result_t>?
) -> Int32 {
  guard let store = unsafe HandleTable.store(store) else {
    return unsafe failBadHandle(store, "store")
  }
  do throws(StoreError) {
    if unsafe result != nil {
      // Checked before the flush, so that a bad struct does not lose the counts.
      try unsafe copyStruct(kvstore_flush_result_t(), to: result, minimum: 40)
    }
    let flushed = try store.flushTelling(timeoutNanoseconds: timeoutNanoseconds)
    if unsafe result != nil {
      var copy = kvstore_flush_result_t()
      copy.blocks_durable = UInt64(flushed.durableBlockCount)
      copy.blocks_dropped_full = UInt64(flushed.droppedFullBlockCount)
      copy.blocks_dropped_parent = UInt64(flushed.droppedParentBlockCount)
      copy.blocks_dropped_error = UInt64(flushed.droppedErrorBlockCount)
      copy.blocks_dropped_quota = UInt64(flushed.droppedQuotaBlockCount)
      copy.blocks_dropped_evicted = UInt64(flushed.droppedEvictedBlockCount)
      copy.blocks_dropped_incomplete = UInt64(flushed.droppedIncompleteBlockCount)
      copy.dropped_errno = flushed.error?.errorNumber ?? 0
      try unsafe copyStruct(copy, to: result, minimum: 40)
    }
    if let error = flushed.error { return fail(error) }
    return Status.ok
  } catch {
    return fail(error)
  }
}

/// See kvstore.h.
@_cdecl("kvstore_stats")
public func exportStats(
  _ store: OpaquePointer?,
  _ stats: UnsafeMutablePointer<kvstore_stats_t>?
) -> Int32 {
  guard let store = unsafe HandleTable.store(store) else {
    return unsafe failBadHandle(store, "store")
  }
  do throws(StoreError) {
    let now = try store.statistics()
    var copy = kvstore_stats_t()
    copy.io_path = now.ioPath.rawValue
    copy.match_calls = now.matchCalls
    copy.match_tokens_asked = now.matchTokensAsked
    copy.match_tokens_found = now.matchTokensFound
    copy.match_blocks_found = now.matchBlocksFound
    copy.hashes_computed = now.hashesComputed
    copy.index_nodes = now.indexNodes
    copy.index_blocks = now.indexBlocks
    copy.index_bytes = now.indexBytes
    copy.blocks_restored_host = now.blocksRestoredHost
    copy.blocks_restored_disk = now.blocksRestoredDisk
    copy.restored_bytes = now.restoredBytes
    copy.misses_absent = now.missesAbsent
    copy.misses_stale = now.missesStale
    copy.misses_corrupt = now.missesCorrupt
    copy.misses_unreadable = now.missesUnreadable
    if let remote = now.remote { fill(&copy, remote) }
    copy.blocks_offloaded = now.blocksOffloaded
    copy.blocks_deduplicated = now.blocksDeduplicated
    copy.offloaded_bytes = now.offloadedBytes
    copy.blocks_dropped_full = now.blocksDroppedFull
    copy.blocks_dropped_parent = now.blocksDroppedParent
    copy.blocks_dropped_error = now.blocksDroppedError
    copy.key_collisions = now.keyCollisions
    copy.blocks_stored = now.blocksStored
    copy.payload_bytes_stored = now.payloadBytesStored
    copy.disk_bytes_capacity = now.diskBytesCapacity
    copy.disk_bytes_used = now.diskBytesUsed
    copy.catalog_bytes_capacity = now.catalogBytesCapacity
    copy.catalog_bytes_used = now.catalogBytesUsed
    copy.host_bytes_capacity = now.hostBytesCapacity
    copy.host_bytes_used = now.hostBytesUsed
    copy.blocks_evicted = now.blocksEvicted
    copy.blocks_forgotten = now.blocksForgotten
    copy.blocks_quarantined = now.blocksQuarantined
    copy.leases_active = now.leasesActive
    copy.disk_bytes_written = now.diskBytesWritten
    copy.disk_bytes_read = now.diskBytesRead
    copy.syncs = now.syncs
    copy.catalog_commits = now.catalogCommits
    copy.poisoned = now.poisoned ? 1 : 0
    copy.blocks_expired = now.blocksExpired
    copy.blocks_refused_full = now.blocksRefusedFull
    copy.pins_active = now.pinsActive
    copy.match_blocks_host = now.matchBlocksHost
    copy.match_blocks_disk = now.matchBlocksDisk
    copy.restored_bytes_host = now.restoredBytesHost
    copy.restored_bytes_disk = now.restoredBytesDisk
    copy.bytes_per_second_host = now.bytesPerSecondHost
    copy.bytes_per_second_disk = now.bytesPerSecondDisk
    copy.restore_nanoseconds_estimated = now.restoreNanosecondsEstimated
    copy.restore_nanoseconds_measured = now.restoreNanosecondsMeasured
    copy.blocks_prefetched = now.blocksPrefetched
    copy.host_bytes_lent = now.hostBytesLent
    copy.slots_erased = now.slotsErased
    copy.slots_erase_pending = now.slotsErasePending
    copy.blocks_declined = now.blocksDeclined
    copy.archive_bytes_capacity = now.archiveBytesCapacity
    copy.archive_bytes_used = now.archiveBytesUsed
    copy.archive_bytes_written = now.archiveBytesWritten
    copy.archive_bytes_read = now.archiveBytesRead
    copy.blocks_demoted = now.blocksDemoted
    copy.demoted_bytes = now.demotedBytes
    copy.demoted_bytes_stored = now.demotedBytesStored
    copy.blocks_promoted = now.blocksPromoted
    copy.promoted_bytes = now.promotedBytes
    copy.match_blocks_archive = now.matchBlocksArchive
    copy.blocks_restored_archive = now.blocksRestoredArchive
    copy.restored_bytes_archive = now.restoredBytesArchive
    copy.bytes_per_second_archive = now.bytesPerSecondArchive
    copy.device_slots_capacity = now.deviceSlotsCapacity
    copy.device_slots_used = now.deviceSlotsUsed
    copy.device_slots_cached = now.deviceSlotsCached
    copy.device_blocks_shared = now.deviceBlocksShared
    copy.device_copies_on_write = now.deviceCopiesOnWrite
    copy.device_bytes_in = now.deviceBytesIn
    copy.device_bytes_out = now.deviceBytesOut
    try unsafe copyStruct(copy, to: stats, minimum: 16)
    return Status.ok
  } catch {
    return fail(error)
  }
}
