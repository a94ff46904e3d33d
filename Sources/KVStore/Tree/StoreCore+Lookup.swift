internal import KVCatalog
internal import KVCore
internal import KVIndex
internal import KVTiers

/// In which tiers a prefix lies.
private struct TierCounts {
  var hostBlockCount = 0
  var hostByteCount = 0
  var diskByteCount = 0
  var archiveBlockCount = 0
  var archiveByteCount = 0
}

extension StoreCore {
  // MARK: Match

  func match(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    options: MatchOptions,
    leaseNanoseconds: UInt64,
    blockCountMax: Int = .max
  ) throws(StoreError) -> MatchResult {
    if health.isPoisoned { return MatchResult() }
    let blockCount = min(namespace.matchBlockCount(of: prompt, options), blockCountMax)
    let began = remote == nil ? 0 : monotonicNanoseconds()
    while true {
      // Before the walk: the follower may catch up between it and the look at the lease.
      let seen = followedSnapshotID
      var (result, end) = try matchOnce(
        namespace,
        prompt,
        blockCount,
        isPeek: options.contains(.peek),
        leaseNanoseconds
      )
      // The dead are looked for when the table is full, not on every match.
      if result.leaseRefused, releaseDeadLeases() > 0 { continue }
      if let end, result.lease != 0, try !leaseHolds(namespace, end, seen: seen) {
        giveUpLease(result.lease, namespace, end)
        continue
      }
      if let end, !options.contains(.peek) {
        noteUse(namespace, end.target, end.key, blockCount: result.blockCount, isRequest: true)
        if let remote, case .published(let position) = end.target {
          remote.noteReuse(self, namespace, position, blockCount: result.blockCount)
        }
      }
      if let remote, result.blockCount < blockCount, remote.isAsked(by: options) {
        remote.lookUp(self, namespace, prompt, since: began, into: &result)
      }
      return result
    }
  }

  /// Whether a lease that was just taken came before any other process's removal of what it covers.
  ///
  /// One that comes later sees the lease (`EvictionIntents`). The index that was walked had every removal up to commit `seen`.
  private func leaseHolds(
    _ namespace: NamespaceCore,
    _ end: PathEnd,
    seen: UInt64?
  ) throws(StoreError) -> Bool {
    guard case .published(let position) = end.target else { return true }
    forgetDeadEvictor()
    if intents.covers(position) { return false }
    // Removals that are committed already may not have come to the index yet.
    if seen == transactionID { return true }
    return try catalogRead { (transaction) throws(CatalogError) in
      // A generation is never given twice: the end is the same block, so all above it are as well.
      try transaction.row(namespace.id, position)?.places.first?.generation == end.generation
    }
  }

  /// Drops the end's run from the index, of which the catalog then has what is left: the prefix gets shorter each time, so
  /// this ends.
  private func giveUpLease(_ lease: UInt64, _ namespace: NamespaceCore, _ end: PathEnd) {
    guard case .published(let position) = end.target else { return }
    state.withLock { state in
      _ = state.leases.release(lease)
      state.tree.remove(
        RemovedRange(
          namespace: namespace.id,
          run: position.run,
          firstPosition: 0,
          blockCount: 0
        )
      )
    }
  }

  /// The last block of a match.
  private struct PathEnd {
    var target: LeaseTable.Target
    var key: BlockKey
    /// nil while it is pending.
    var generation: Generation?
  }

  private func matchOnce(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ blockCount: Int,
    isPeek: Bool,
    _ leaseNanoseconds: UInt64
  ) throws(StoreError) -> (MatchResult, PathEnd?) {
    let now = configuration.clock.bootTimeNanoseconds()
    return try withStoredPrefix(
      namespace,
      prompt,
      blockCount: blockCount,
      touch: !isPeek
    ) {
      (state, prefix) in
      var result = MatchResult()
      result.blockCount = prefix.blockCount
      result.tokenCount = prefix.blockCount * namespace.identity.tokensPerBlock
      let tiers = tierCounts(of: prefix, namespace, in: state.tree)
      result.hostBlockCount = tiers.hostBlockCount
      result.archiveBlockCount = tiers.archiveBlockCount
      result.diskBlockCount = prefix.blockCount - result.hostBlockCount - tiers.archiveBlockCount
      result.restoreNanosecondsEstimated =
        state.meters.bandwidth.estimate(
          hostByteCount: tiers.hostByteCount,
          diskByteCount: tiers.diskByteCount,
          archiveByteCount: tiers.archiveByteCount
        ) ?? 0
      if isPeek { return (result, PathEnd?.none) }
      extendExpiry(namespace, prefix.segments, &state)
      state.meters.noteMatch(
        result,
        askedTokenCount: namespace.blockCount(of: prompt) * namespace.identity.tokensPerBlock
      )
      guard prefix.blockCount > 0, let target = state.tree.target(at: prefix.location) else {
        return (result, nil)
      }
      if !configuration.readOnly {
        state.meters.noteHit(namespace.id, target, tokenCount: result.tokenCount)
        let duration = leaseNanoseconds == 0 ? LeaseTable.durationDefault : leaseNanoseconds
        let lease = state.leases.take(namespace.id, target, now: now, duration: duration)
        result.lease = lease ?? 0
        result.leaseRefused = lease == nil
      }
      guard let entry = state.tree.entry(at: prefix.location) else { return (result, nil) }
      return (
        result, PathEnd(target: target, key: entry.blockKey, generation: entry.place?.generation)
      )
    }
  }

  func touch(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    keepNanoseconds: UInt64 = 0
  ) throws(StoreError) -> Int {
    if health.isPoisoned { throw .poisoned }
    let (count, target, key) = try withStoredPrefix(
      namespace,
      prompt,
      blockCount: namespace.blockCount(of: prompt),
      touch: true
    ) { (state, prefix) in
      extendExpiry(namespace, prefix.segments, &state, keepNanoseconds: keepNanoseconds)
      return (
        prefix.blockCount, state.tree.target(at: prefix.location),
        state.tree.blockKey(at: prefix.location)
      )
    }
    if count > 0, let target, let key {
      noteUse(namespace, target, key, blockCount: count, isRequest: true)
    }
    return count
  }

  private func tierCounts(
    of prefix: StoredPrefix,
    _ namespace: NamespaceCore,
    in tree: PrefixTree
  ) -> TierCounts {
    var counts = TierCounts()
    let identity = namespace.identity
    let needed =
      identity.groups.isEmpty
      ? nil
      : RegionSelection(
        0..<namespace.regionCount,
        of: identity,
        prefixBlockCount: prefix.blockCount
      )
    tree.forEachSegment(of: prefix) { firstBlock, entries in
      for offset in entries.indices {
        var payload = Int(entries[offset].payloadByteCount)
        if let needed {
          let most = needed.byteCount(ofBlock: firstBlock + offset, identity.regionByteCounts)
          payload = min(payload, most)
        }
        if entries[offset].hostSlot >= 0 {
          counts.hostBlockCount += 1
          counts.hostByteCount += payload
        } else if entries[offset].durableTier == .archive {
          counts.archiveBlockCount += 1
          counts.archiveByteCount += payload
        } else {
          counts.diskByteCount += payload
        }
      }
    }
    return counts
  }
}
