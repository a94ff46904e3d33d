internal import KVCatalog
internal import KVCore
internal import KVIndex
internal import KVTiers

/// A row of the catalog on its way into the index.
///
/// Its words are the prompt's: they compared equal.
private struct LoadedRow {
  var entry: IndexEntry
  var position: BlockPosition
}

/// In which tiers a prefix lies.
private struct TierCounts {
  var hostBlockCount = 0
  var hostByteCount = 0
  var diskByteCount = 0
  var archiveBlockCount = 0
  var archiveByteCount = 0
}

/// What a walk of the index ends with: an answer, or more to load first.
private enum WalkStep<Result> {
  case done(Result)
  case load(after: BlockPosition, parentKey: BlockKey, from: PathMark, epoch: UInt64)
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
    if isPoisoned { return MatchResult() }
    var blockCount = namespace.blockCount(of: prompt)
    if options.contains(.leaveOneToken), blockCount * namespace.wordsPerBlock == prompt.wordCount {
      // In digest mode a block stands for its tokens: at least one block stays to be computed.
      blockCount -= 1
    }
    blockCount = min(blockCount, blockCountMax)
    while true {
      // Before the walk: the follower may catch up between it and the look at the lease.
      let seen = followedSnapshotID
      let (result, end) = try matchOnce(
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
        noteUse(namespace, end.head, end.key, blockCount: result.blockCount, isRequest: true)
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
    guard case .published(let position) = end.head else { return true }
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
    guard case .published(let position) = end.head else { return }
    state.withLock { state in
      _ = state.leases.release(lease)
      state.removeFromIndex(
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
    var head: LeaseTable.Head
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
      let tiers = tierCounts(of: prefix, namespace, in: state.index)
      result.hostBlockCount = tiers.hostBlockCount
      result.archiveBlockCount = tiers.archiveBlockCount
      result.diskBlockCount = prefix.blockCount - result.hostBlockCount - tiers.archiveBlockCount
      result.restoreNanosecondsEstimated =
        state.restoreBandwidth.estimate(
          hostByteCount: tiers.hostByteCount,
          diskByteCount: tiers.diskByteCount,
          archiveByteCount: tiers.archiveByteCount
        ) ?? 0
      if isPeek { return (result, PathEnd?.none) }
      extendLives(namespace, prefix.segments, &state)
      state.statistics.matchCalls += 1
      state.statistics.matchTokensAsked += UInt64(
        namespace.blockCount(of: prompt) * namespace.identity.tokensPerBlock
      )
      state.statistics.matchTokensFound += UInt64(result.tokenCount)
      state.statistics.matchBlocksFound += UInt64(result.blockCount)
      state.statistics.matchBlocksHost += UInt64(result.hostBlockCount)
      state.statistics.matchBlocksDisk += UInt64(result.diskBlockCount)
      state.statistics.matchBlocksArchive += UInt64(result.archiveBlockCount)
      guard prefix.blockCount > 0, let head = state.head(at: prefix.location) else {
        return (result, nil)
      }
      if !configuration.readOnly {
        state.hits.note(namespace.id, head, tokenCount: result.tokenCount)
        let duration = leaseNanoseconds == 0 ? LeaseTable.durationDefault : leaseNanoseconds
        let lease = state.leases.take(namespace.id, head, now: now, duration: duration)
        result.lease = lease ?? 0
        result.leaseRefused = lease == nil
      }
      guard let entry = state.index.entry(at: prefix.location) else { return (result, nil) }
      return (
        result, PathEnd(head: head, key: entry.blockKey, generation: entry.place?.generation)
      )
    }
  }

  func touch(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    keepNanoseconds: UInt64 = 0
  ) throws(StoreError) -> Int {
    if isPoisoned { throw .poisoned }
    let (count, head, key) = try withStoredPrefix(
      namespace,
      prompt,
      blockCount: namespace.blockCount(of: prompt),
      touch: true
    ) { (state, prefix) in
      extendLives(namespace, prefix.segments, &state, keepNanoseconds: keepNanoseconds)
      return (
        prefix.blockCount, state.head(at: prefix.location),
        state.index.blockKey(at: prefix.location)
      )
    }
    if count > 0, let head, let key {
      noteUse(namespace, head, key, blockCount: count, isRequest: true)
    }
    return count
  }

  private func tierCounts(
    of prefix: StoredPrefix,
    _ namespace: NamespaceCore,
    in index: PrefixIndex
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
    var block = prefix.firstBlock
    for segment in prefix.segments {
      defer { block += Int(segment.blockCount) }
      index.withEntries(of: segment) { entries in
        for i in 0..<entries.count {
          var payload = Int(entries[i].payloadByteCount)
          if let needed {
            let most = needed.byteCount(ofBlock: block + i, identity.regionByteCounts)
            payload = min(payload, most)
          }
          if entries[i].hostSlot >= 0 {
            counts.hostBlockCount += 1
            counts.hostByteCount += payload
          } else if entries[i].durableTier == .archive {
            counts.archiveBlockCount += 1
            counts.archiveByteCount += payload
          } else {
            counts.diskByteCount += payload
          }
        }
      }
    }
    return counts
  }

  // MARK: The walk

  /// Runs `body` with the state lock held and the longest stored prefix of the prompt's first `blockCount` blocks.
  ///
  /// It goes on from `mark` if that still holds; where lives may end, all of the path is looked at.
  func withStoredPrefix<Result>(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    blockCount: Int,
    touch: Bool,
    after mark: PathMark = PathMark(),
    _ body: (inout StoreState, StoredPrefix) -> Result
  ) throws(StoreError) -> Result {
    var triedAt = -1
    // A removal in between makes a load void; after so many the prefix is what the index has.
    var attempt = 0
    while true {
      attempt += 1
      let step: WalkStep<Result> = state.withLock { state in
        var segments = exchange(&state.spare.segments, with: [])
        defer { state.spare.segments = segments }
        let mayExpire = namespace.lives.mayExpire.value
        func walk() -> (end: PathMark, firstBlock: Int) {
          state.index.walk(
            namespace,
            prompt,
            blockCount: blockCount,
            after: mayExpire ? PathMark() : mark,
            touch: touch,
            segments: &segments
          )
        }
        var (end, firstBlock) = walk()
        if mayExpire, cutExpired(segments, &state) { (end, firstBlock) = walk() }
        let isEnd = end.blockCount == blockCount || end.blockCount == triedAt
        if !isEnd, attempt < 64, let after = position(of: end.location, in: state.index) {
          let parentKey = state.index.blockKey(at: end.location) ?? namespace.chain.rootKey
          return .load(after: after, parentKey: parentKey, from: end, epoch: state.removalEpoch)
        }
        return .done(
          body(&state, StoredPrefix(end: end, firstBlock: firstBlock, segments: segments))
        )
      }
      switch step {
      case .done(let result): return result
      case .load(let after, let parentKey, let end, let epoch):
        let rows = try load(
          namespace,
          prompt,
          blockCount,
          after: after,
          parentKey: parentKey,
          from: end.blockCount
        )
        let isCurrent = state.withLock { state in
          guard state.removalEpoch == epoch else { return false }
          enter(rows, namespace, prompt, after: end, into: &state)
          return true
        }
        if isCurrent { triedAt = end.blockCount + rows.count }
      }
    }
  }

  /// The catalog's position of a location; nil for a pending block, below which the catalog has nothing.
  private func position(of location: IndexLocation, in index: PrefixIndex) -> BlockPosition? {
    location.isRoot ? .root : index.position(of: location)
  }

  // MARK: Loading from the catalog

  /// The rows that continue the prompt after a block, as far as their words compare equal.
  private func load(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ blockCount: Int,
    after: BlockPosition,
    parentKey: BlockKey,
    from first: Int
  ) throws(StoreError) -> [LoadedRow] {
    var rows: [LoadedRow] = []
    var hashCount: UInt64 = 0
    var collisionCount: UInt64 = 0
    var corrupt: BlockPosition?
    // What it has announced would be hidden.
    forgetDeadEvictor()
    var after = after
    var cursor = ChainCursor(namespace.chain, prompt, at: first, after: parentKey)
    let now = time.now()
    let hasArchive = diskTier.hasFolder(of: .archive)
    // Read when the first block with an idle life is met: most namespaces have none.
    var deadlines: (run: RunID, deadlines: RunDeadlines)?
    var needsDeadlines = false
    try catalogRead { (transaction) throws(CatalogError) in
      while cursor.block < blockCount, corrupt == nil {
        guard let key = cursor.key else { return }
        hashCount += 1
        guard let found = try transaction.find(namespace.id, key) else { return }
        let countBefore = rows.count
        if needsDeadlines {
          needsDeadlines = false
          deadlines = (
            found.run,
            try transaction.runDeadlines(namespace.id, found.run, from: found.position, now: now)
          )
        }
        var isOver = false
        try transaction.forEachRow(
          namespace.id,
          found.run,
          from: found.position,
          through: .max
        ) { position, row in
          guard let row else {
            corrupt = BlockPosition(run: found.run, position: position)
            return false
          }
          let parent =
            position == 0
            ? row.parent : BlockPosition(run: found.run, position: position - 1)
          // An archive that is away promises nothing; it is not empty either.
          guard row.place.tier != .archive || hasArchive, cursor.block < blockCount,
            parent == after, let block = cursor.here, block.matches(row)
          else { return false }
          let here = BlockPosition(run: found.run, position: position)
          var entry = IndexEntry(
            blockKey: row.blockKey,
            place: row.place,
            payloadByteCount: row.payloadByteCount
          )
          if row.expiry != 0 {
            namespace.lives.mayExpire.exchange(true)
            if row.flags.contains(.idleExpiry) {
              guard let known = deadlines, known.run == found.run else {
                needsDeadlines = true
                return false
              }
              let deadline = known.deadlines.deadline(at: position)
              entry.life = .idle(nanoseconds: row.expiry, deadline: deadline)
            } else {
              entry.life = .absolute(row.expiry)
            }
            isOver = self.isOver(entry, at: now)
            if isOver { return false }
          }
          rows.append(LoadedRow(entry: entry, position: here))
          after = here
          cursor.pass(row.blockKey)
          return true
        }
        if isOver { return }
        if rows.count == countBefore, !needsDeadlines {
          if corrupt == nil { collisionCount += 1 }
          return
        }
      }
    }
    state.withLock { state in
      state.statistics.hashesComputed += hashCount
      state.statistics.keyCollisions += collisionCount
    }
    if let corrupt { quarantine(namespace, corrupt, nil) }
    return rows
  }

  private func enter(
    _ rows: [LoadedRow],
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    after mark: PathMark,
    into state: inout StoreState
  ) {
    var segments: [IndexSegment] = []
    let start = state.index.walk(
      namespace,
      prompt,
      blockCount: mark.blockCount,
      after: mark,
      touch: false,
      segments: &segments
    ).end
    guard start.blockCount == mark.blockCount else { return }
    var location = start.location
    for (offset, row) in rows.enumerated() {
      guard !state.isHidden(row.position),
        let block = namespace.block(mark.blockCount + offset, of: prompt),
        let appended = state.index.append(
          namespace.id,
          after: location,
          block,
          entry: row.entry,
          at: row.position
        )
      else { return }
      location = appended.location
    }
    let budget = configuration.indexBytesMax
    if state.index.statistics.byteCount > budget {
      state.index.trim(toByteCount: budget / 8 * 7) { !$0.flags.contains(.pending) }
    }
  }
}
