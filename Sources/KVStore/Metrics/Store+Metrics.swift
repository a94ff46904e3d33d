internal import KVCatalog
public import KVCore

extension Store {
  /// The store's counters and sizes in Prometheus' text format, version 0.0.4.
  ///
  /// Counters run from the open of the store in this process; sizes are of the whole store. `includesProcess` false leaves the
  /// counters of this process away, for who only looks at a store; those of the remote tier are then what each process publishes of its own.
  public func metricsText(includesProcess: Bool = true) throws(StoreError) -> String {
    let now = try statistics()
    try enter()
    defer { leave() }
    var page = MetricsText()
    try core.addSizes(now, to: &page)
    if includesProcess {
      core.addCounters(now, to: &page)
      if let remote = now.remote {
        RemoteMetrics(processes: [(labels: [], statistics: remote)]).add(to: &page)
      }
    } else {
      // What those that have the store open say: each counts since it opened it.
      core.remoteMetrics().add(to: &page)
    }
    return page.text
  }
}

extension StoreCore {
  fileprivate func remoteMetrics() -> RemoteMetrics {
    RemoteMetrics(
      processes: ownerFiles.processes().compactMap { owner, processID in
        RemoteReportFile.read(sharedMemory.reportsFolder, owner).map {
          (labels: [("process", "\(processID)")], statistics: $0.statistics)
        }
      }
    )
  }

  fileprivate func addSizes(_ now: StoreStatistics, to page: inout MetricsText) throws(StoreError) {
    page.add(
      "kvstore_disk_capacity_bytes",
      .gauge,
      "Bytes that the store may take on disk, metadata included.",
      now.diskBytesCapacity
    )
    page.add(
      "kvstore_disk_used_bytes",
      .gauge,
      "Bytes that the store takes on disk, preallocated room and metadata included.",
      now.diskBytesUsed
    )
    page.add(
      "kvstore_archive_used_bytes",
      .gauge,
      "Bytes that the archive's slot files take.",
      now.archiveBytesUsed
    )
    page.add(
      "kvstore_catalog_capacity_bytes",
      .gauge,
      "Bytes that the catalog may take.",
      now.catalogBytesCapacity
    )
    page.add(
      "kvstore_catalog_used_bytes",
      .gauge,
      "Bytes of the catalog in use.",
      now.catalogBytesUsed
    )
    page.add(
      "kvstore_slots_erase_pending",
      .gauge,
      "Purged slots that are still to be overwritten.",
      now.slotsErasePending
    )
    let slots = try slotCounts()
    page.add(
      "kvstore_slots",
      .gauge,
      "Slots of the slot files, by tier and state.",
      slots.flatMap { tier, counts in
        [
          ([("tier", tier), ("state", "used")], counts.used),
          ([("tier", tier), ("state", "free")], counts.all - min(counts.all, counts.used)),
        ]
      }
    )
    let namespaces = try catalogRead { (transaction) throws(CatalogError) in
      var found: [(labels: MetricsText.Labels, accounting: Accounting, quota: UInt64)] = []
      for row in try transaction.namespaces() {
        // Of an identity only the model's name, which operators tell namespaces by; of a salt nothing.
        let name = NamespaceIdentity(record: row.identityRecord)?.modelName ?? ""
        let labels = [("namespace", "\(row.id.rawValue)"), ("model", name)]
        found.append((labels, try transaction.accounting(row.id), row.quotaBytes))
      }
      return found
    }
    page.add(
      "kvstore_blocks",
      .gauge,
      "Stored blocks.",
      namespaces.map { ($0.labels, $0.accounting.blockCount) }
    )
    page.add(
      "kvstore_payload_bytes",
      .gauge,
      "Payload of the stored blocks.",
      namespaces.map { ($0.labels, $0.accounting.payloadByteCount) }
    )
    page.add(
      "kvstore_stored_bytes",
      .gauge,
      "What the payload takes as stored, compression included.",
      namespaces.map { ($0.labels, $0.accounting.storedByteCount) }
    )
    page.add(
      "kvstore_quota_bytes",
      .gauge,
      "Quota of a namespace that has one.",
      namespaces.filter { $0.quota > 0 }.map { ($0.labels, $0.quota) }
    )
  }

  private func slotCounts() throws(StoreError) -> [(
    tier: String, counts: (used: UInt64, all: UInt64)
  )] {
    try catalogRead { (transaction) throws(CatalogError) in
      var counts: [Tier: (used: UInt64, all: UInt64)] = [:]
      for file in try transaction.slotFiles() {
        counts[file.tier, default: (0, 0)].used += UInt64(file.usedCount)
        counts[file.tier, default: (0, 0)].all += UInt64(file.slotCount)
      }
      return counts.sorted { $0.key.rawValue < $1.key.rawValue }.map { ("\($0.key)", $0.value) }
    }
  }

  fileprivate func addCounters(_ now: StoreStatistics, to page: inout MetricsText) {
    page.add("kvstore_matches_total", .counter, "Look-ups that were no peeks.", now.matchCalls)
    page.add(
      "kvstore_match_tokens_asked_total",
      .counter,
      "Tokens of the prompts that were looked up.",
      now.matchTokensAsked
    )
    page.add(
      "kvstore_match_tokens_found_total",
      .counter,
      "Of those, the leading ones that were stored.",
      now.matchTokensFound
    )
    page.add(
      "kvstore_match_blocks_total",
      .counter,
      "Blocks that look-ups found, by the fastest tier that has them.",
      [
        ([("tier", "host")], now.matchBlocksHost), ([("tier", "disk")], now.matchBlocksDisk),
        ([("tier", "archive")], now.matchBlocksArchive),
      ]
    )
    page.add(
      "kvstore_restored_blocks_total",
      .counter,
      "Blocks that were restored, by tier.",
      [
        ([("tier", "host")], now.blocksRestoredHost), ([("tier", "disk")], now.blocksRestoredDisk),
        ([("tier", "archive")], now.blocksRestoredArchive),
      ]
    )
    page.add(
      "kvstore_restored_bytes_total",
      .counter,
      "Bytes that were restored, by tier.",
      [
        ([("tier", "host")], now.restoredBytesHost), ([("tier", "disk")], now.restoredBytesDisk),
        ([("tier", "archive")], now.restoredBytesArchive),
      ]
    )
    let histograms = state.withLock { state in
      [
        ("host", state.meters.bandwidth.hostTimes), ("disk", state.meters.bandwidth.diskTimes),
        ("archive", state.meters.bandwidth.archiveTimes),
      ]
    }
    page.add(
      "kvstore_restore_seconds",
      "Time that restores took of each tier that they read from.",
      histograms.map { ([("tier", $0.0)], $0.1) }
    )
    page.add(
      "kvstore_offload_seconds",
      "Time that offload calls took to take their blocks into the host tier.",
      [([], offloadTimes.withLock { $0 })]
    )
    page.add(
      "kvstore_misses_total",
      .counter,
      "Blocks that restores did not get, by cause.",
      [
        ([("cause", "absent")], now.missesAbsent), ([("cause", "stale")], now.missesStale),
        ([("cause", "corrupt")], now.missesCorrupt),
        ([("cause", "unreadable")], now.missesUnreadable),
      ]
    )
    page.add("kvstore_offloaded_blocks_total", .counter, "Blocks taken.", now.blocksOffloaded)
    page.add("kvstore_offloaded_bytes_total", .counter, "Bytes taken.", now.offloadedBytes)
    page.add(
      "kvstore_deduplicated_blocks_total",
      .counter,
      "Blocks that were offered and stored already.",
      now.blocksDeduplicated
    )
    page.add(
      "kvstore_dropped_blocks_total",
      .counter,
      "Blocks that were taken and not kept, by cause.",
      [
        ([("cause", "full")], now.blocksDroppedFull),
        ([("cause", "parent")], now.blocksDroppedParent),
        ([("cause", "error")], now.blocksDroppedError),
      ]
    )
    page.add(
      "kvstore_removed_blocks_total",
      .counter,
      "Blocks that this process removed, by reason.",
      [
        ([("reason", "evicted")], now.blocksEvicted),
        ([("reason", "forgotten")], now.blocksForgotten),
        ([("reason", "quarantined")], now.blocksQuarantined),
        ([("reason", "expired")], now.blocksExpired),
      ]
    )
    page.add(
      "kvstore_disk_written_bytes_total",
      .counter,
      "Bytes written to slot files: what wears the disk.",
      now.diskBytesWritten
    )
    page.add(
      "kvstore_disk_read_bytes_total",
      .counter,
      "Bytes read from slot files.",
      now.diskBytesRead
    )
    page.add(
      "kvstore_archive_written_bytes_total",
      .counter,
      "Bytes written to the archive's slot files.",
      now.archiveBytesWritten
    )
    page.add(
      "kvstore_moved_blocks_total",
      .counter,
      "Blocks that were moved to another tier.",
      [([("to", "archive")], now.blocksDemoted), ([("to", "disk")], now.blocksPromoted)]
    )
    page.add("kvstore_syncs_total", .counter, "Syncs of slot files and of the catalog.", now.syncs)
    page.add(
      "kvstore_catalog_commits_total",
      .counter,
      "Synced commits of the catalog.",
      now.catalogCommits
    )
    page.add(
      "kvstore_host_capacity_bytes",
      .gauge,
      "Bytes of the host tier.",
      now.hostBytesCapacity
    )
    page.add("kvstore_host_used_bytes", .gauge, "Bytes of it in use.", now.hostBytesUsed)
    page.add(
      "kvstore_host_lent_bytes",
      .gauge,
      "Bytes of it that views and reservations hold.",
      now.hostBytesLent
    )
    addDevices(now, to: &page)
    page.add("kvstore_index_blocks", .gauge, "Blocks in the index in RAM.", now.indexBlocks)
    page.add("kvstore_index_bytes", .gauge, "RAM of the index.", now.indexBytes)
    page.add("kvstore_leases", .gauge, "Leases that hold.", now.leasesActive)
    page.add("kvstore_pins", .gauge, "Pins that hold.", now.pinsActive)
    page.add(
      "kvstore_direct_io",
      .gauge,
      "1 when slot files go past the page cache, 0 when through it.",
      now.ioPath == .buffered ? 0 : 1
    )
    page.add(
      "kvstore_poisoned",
      .gauge,
      "1 after a failed invariant: misses only.",
      now.poisoned ? 1 : 0
    )
  }

  private func addDevices(_ now: StoreStatistics, to page: inout MetricsText) {
    guard now.deviceSlotsCapacity > 0 else { return }
    page.add(
      "kvstore_device_slots",
      .gauge,
      "Slots of the attached devices, by state.",
      [
        ([("state", "used")], now.deviceSlotsUsed), ([("state", "cached")], now.deviceSlotsCached),
        (
          [("state", "free")],
          now.deviceSlotsCapacity
            - min(now.deviceSlotsCapacity, now.deviceSlotsUsed + now.deviceSlotsCached)
        ),
      ]
    )
    page.add(
      "kvstore_device_copied_bytes_total",
      .counter,
      "Bytes copied to and from devices.",
      [([("direction", "in")], now.deviceBytesIn), ([("direction", "out")], now.deviceBytesOut)]
    )
  }
}
