package import KVCore

/// Blocks leave: a block always with all that is below it.
extension WriteTransaction {
  /// Removes a block and everything below it; the block before becomes a path end.
  package func removeSubtree(
    _ namespace: NamespaceID,
    at top: BlockPosition,
    reason: RemovalReason,
    kind: CatalogEvent.Kind = .removed
  ) throws(CatalogError) -> RemovedSummary {
    var summary = RemovedSummary()
    guard let parent = try parent(namespace, top) else { return summary }
    try settle()
    if top.position == 0 { try delete(.children, .child(namespace, parent, top.run)) }
    // A list instead of recursion: runs can hang below one another as deep as a chain is long.
    var tops = [top]
    var pieces: [(run: RunID, positions: ClosedRange<UInt32>)] = []
    var newestStamp: UInt64 = 0
    var hits = RunHits()
    while let next = tops.popLast() {
      guard let last = try lastPosition(namespace, next.run), last >= next.position else {
        continue
      }
      newestStamp = max(newestStamp, try removeStamps(namespace, from: next))
      tops += try removeChildEntries(namespace, from: next)
      if next.position == 0 { hits.add(try takeRunHits(namespace, next.run)) }
      pieces.append((next.run, next.position...last))
    }
    // Leaves first: who follows the events piece by piece never has a block without its parent, nor a wide subtree to remove at once.
    for piece in pieces.reversed() {
      // The top comes last.
      summary.topSlot = try removeRows(
        namespace,
        piece.run,
        piece.positions,
        reason: reason,
        kind: kind,
        &summary
      )
    }
    if parent != .root, try containsRow(namespace, parent) {
      try addRunHits(namespace, parent.run, hits)
      let end = PathEnd(namespace: namespace, at: parent)
      if newestStamp > 0 {
        // Also to a block that has other children: the removed one may have been used last.
        try handOver(newestStamp, to: end)
      } else if try storedStamp(namespace, parent) == nil, try isLeaf(namespace, parent) {
        try putStamp(end, counters.stamp)
        counters.stamp += 1
      }
    }
    if reason == .expired { summary.expiredBlockCount = summary.blockCount }
    return summary
  }

  /// Removes whole trees of a namespace until at least `blockCount` blocks are gone; an empty summary = none was left.
  package func removeNamespaceBlocks(
    _ namespace: NamespaceID,
    reason: RemovalReason,
    blockCount: Int = .max
  ) throws(CatalogError) -> RemovedSummary {
    var summary = RemovedSummary()
    while summary.blockCount + summary.corruptRowCount < blockCount {
      let runs = try children(namespace, .root, limit: 256)
      if runs.isEmpty { break }
      for run in runs where summary.blockCount + summary.corruptRowCount < blockCount {
        let top = BlockPosition(run: run, position: 0)
        let removed = try removeSubtree(namespace, at: top, reason: reason)
        // An entry without rows would be damage; it must not keep us here forever.
        if removed.ranges.isEmpty { try delete(.children, .child(namespace, .root, run)) }
        summary.add(removed)
      }
    }
    return summary
  }

  /// Removes the stamps of a run from a position on.
  ///
  /// Returns the newest, or 0.
  private func removeStamps(
    _ namespace: NamespaceID,
    from first: BlockPosition
  ) throws(CatalogError) -> UInt64 {
    var ends: [(at: BlockPosition, order: StampOrder)] = []
    do {
      var cursor = try cursor(.ends)
      var isThere = try cursor.seek(.block(namespace, first))
      while isThere, let found = unsafe keyIntegers(cursor.key), found.namespace == namespace,
        found.at.run == first.run
      {
        guard let order = unsafe StampOrder(try cursor.checkedBody(.ends)) else {
          throw .corrupt(.stamp)
        }
        ends.append((found.at, order))
        isThere = try cursor.next()
      }
    }
    for end in ends { try deleteStamp(PathEnd(namespace: namespace, at: end.at), end.order) }
    return ends.map(\.order.stamp).max() ?? 0
  }

  /// Removes the entries of the runs that begin after a run's blocks from a position on.
  ///
  /// Returns their first blocks.
  private func removeChildEntries(
    _ namespace: NamespaceID,
    from first: BlockPosition
  ) throws(CatalogError) -> [BlockPosition] {
    var entries: [(parent: BlockPosition, run: RunID)] = []
    do {
      var cursor = try cursor(.children)
      var isThere = try cursor.seek(.child(namespace, first, .root))
      while isThere, let found = unsafe keyIntegers(cursor.key), found.namespace == namespace,
        found.at.run == first.run, let run = unsafe childRun(cursor.key)
      {
        entries.append((found.at, run))
        isThere = try cursor.next()
      }
    }
    for entry in entries { try delete(.children, .child(namespace, entry.parent, entry.run)) }
    return entries.map { BlockPosition(run: $0.run, position: 0) }
  }

  /// The positions of a range at which there are rows, behind a hole as well.
  private func presentPositions(
    _ namespace: NamespaceID,
    _ run: RunID,
    _ positions: ClosedRange<UInt32>
  ) throws(CatalogError) -> [UInt32] {
    var present: [UInt32] = []
    var cursor = try cursor(.runs)
    var isThere = try cursor.seek(
      .block(namespace, BlockPosition(run: run, position: positions.lowerBound))
    )
    while isThere, let found = unsafe keyIntegers(cursor.key), found.namespace == namespace,
      found.at.run == run, found.at.position <= positions.upperBound
    {
      present.append(found.at.position)
      isThere = try cursor.next()
    }
    return present
  }

  /// Removes rows of a run with their keys, payloads, slots and side sections, but not their stamps and `children` entries.
  ///
  /// Returns the slot of the first block that has one.
  @discardableResult
  func removeRows(
    _ namespace: NamespaceID,
    _ run: RunID,
    _ positions: ClosedRange<UInt32>,
    reason: RemovalReason,
    kind: CatalogEvent.Kind,
    _ summary: inout RemovedSummary
  ) throws(CatalogError) -> SlotAddress? {
    // While all before them is there.
    let sections = try sectionDigests(namespace, run, positions)
    defer { forgetDigests(namespace, run, from: positions.lowerBound) }
    var blockKeys: [BlockKey] = []
    var topKey: BlockKey?
    var places: [BlockPlace] = []
    var absoluteEnds: [Expiry] = []
    var corruptRowCount = 0
    var gone = Accounting()
    try forEachRow(namespace, run, from: positions.lowerBound, through: positions.upperBound) {
      position,
      row in
      guard let row else {
        // Nothing that a damaged row says is acted upon: its slot stays used rather than be given out twice.
        corruptRowCount += 1
        return true
      }
      blockKeys.append(row.blockKey)
      if position == positions.lowerBound { topKey = row.blockKey }
      places += row.places
      if row.expiry != 0, !row.flags.contains(.idleExpiry) {
        let at = BlockPosition(run: run, position: position)
        absoluteEnds.append(Expiry(.absolute, row.expiry, namespace, at))
      }
      gone.blockCount += 1
      gone.payloadByteCount += UInt64(row.payloadByteCount)
      gone.storedByteCount += row.places.reduce(0) { $0 + UInt64($1.storedByteCount) }
      return true
    }
    let mayBeInline = corruptRowCount > 0 || places.contains { $0.isInline }
    let seenCount = Int(gone.blockCount) + corruptRowCount
    // A run with a hole may reach to any position: only rows that are there are gone through.
    let present =
      seenCount == positions.count
      ? Array(positions) : try presentPositions(namespace, run, positions)
    for position in present {
      let key = TableKey.block(namespace, BlockPosition(run: run, position: position))
      try delete(.runs, key)
      if mayBeInline { try delete(.payloads, key) }
    }
    removedKeys?[namespace, default: []].formUnion(blockKeys)
    for blockKey in blockKeys { try delete(.keys, .blockKey(namespace, blockKey)) }
    for end in absoluteEnds { try delete(.expiries, .expiry(end)) }
    if try cachedNamespace(namespace)?.facts.contains(.hasIdleExpiry) ?? false {
      try removeDeadlines(namespace, run, positions)
    }
    // Evictions leave what is pinned.
    if reason != .evicted, reason != .quota {
      try shortenPins(namespace, run, before: positions.lowerBound)
    }
    let slots = places.compactMap(\.slotAddress)
    for slot in slots { try freeSlot(slot) }
    summary.freedSlots += slots
    try changeAccounting(namespace) { accounting in
      accounting.blockCount -= min(
        accounting.blockCount,
        gone.blockCount + UInt64(corruptRowCount)
      )
      accounting.payloadByteCount -= min(accounting.payloadByteCount, gone.payloadByteCount)
      accounting.storedByteCount -= min(accounting.storedByteCount, gone.storedByteCount)
    }
    lastPositions[RunKey(namespace: namespace, run: run)] = nil

    let blockCount = UInt32(clamping: positions.count)
    note(
      CatalogEvent(
        sequence: 0,
        kind: kind,
        reason: reason,
        tier: places.first?.tier ?? .disk,
        namespace: namespace,
        run: run,
        firstPosition: positions.lowerBound,
        blockCount: blockCount,
        timeNanoseconds: timeNanoseconds,
        owner: owner,
        topKey: namesRemovedBlocks ? topKey : nil
      )
    )
    summary.ranges.append(
      RemovedSummary.Range(
        namespace: namespace,
        run: run,
        firstPosition: positions.lowerBound,
        blockCount: blockCount
      )
    )
    summary.blockCount += Int(gone.blockCount)
    summary.payloadByteCount += gone.payloadByteCount
    summary.storedByteCount += gone.storedByteCount
    summary.corruptRowCount += corruptRowCount
    summary.addSections(try removeSections(of: namespace, sections, reason: reason))
    return slots.first
  }
}

extension RemovedSummary {
  /// Takes in sections that went with their blocks, and are not counted among these.
  package mutating func addSections(_ other: RemovedSummary) {
    ranges += other.ranges
    freedSlots += other.freedSlots
    sections += other.sections
  }

  /// Takes in what another removal took away.
  package mutating func add(_ other: RemovedSummary) {
    ranges += other.ranges
    freedSlots += other.freedSlots
    expiredTops += other.expiredTops
    expiredBlockCount += other.expiredBlockCount
    blockCount += other.blockCount
    payloadByteCount += other.payloadByteCount
    storedByteCount += other.storedByteCount
    corruptRowCount += other.corruptRowCount
    sections += other.sections
  }
}
