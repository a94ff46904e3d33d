package import KVCore

/// Blocks come in, and are used.
extension WriteTransaction {
  /// Makes a block visible whose payload is durable already, and makes it the newest path end.
  ///
  /// Anything but `.stored` leaves the catalog as it was, the slot's reservation included.
  package func publish(
    _ namespace: NamespaceID,
    _ block: NewBlock,
    owner: OwnerID
  ) throws(CatalogError) -> PublishOutcome {
    // Where nobody can say that a namespace is in use it may have left with all its blocks.
    guard let row = try cachedNamespace(namespace) else { return .parentMissing }
    guard unsafe block.words.count == Int(row.wordsPerBlock) * 4,
      unsafe block.extra.count <= Int(UInt16.max),
      block.place.isInline == (row.slotByteCount == 0),
      unsafe block.place.isInline == (block.inlinePayload != nil)
    else { throw .invalidArgument }
    if let known = try known(namespace, block) { return known }
    if block.parent != .root, try !containsRow(namespace, block.parent) { return .parentMissing }
    if let slot = block.place.slotAddress, try !takeReservation(slot, owner: owner) {
      return .slotNotReserved
    }
    let (position, isFirstOfRun) = try newPosition(namespace, after: block.parent)
    unsafe try put(
      .runs,
      .block(namespace, position),
      bodyByteCount: block.bodyByteCount(isFirstOfRun: isFirstOfRun)
    ) { body in
      unsafe block.encode(isFirstOfRun: isFirstOfRun, into: body)
    }
    try putKey(namespace, block.blockKey, position)
    if isFirstOfRun { try put(.children, .child(namespace, block.parent, position.run), []) }
    if let payload = unsafe block.inlinePayload {
      unsafe try put(.payloads, .block(namespace, position), bodyByteCount: payload.count) { body in
        unsafe body.copyMemory(from: payload)
      }
    }
    lastPositions[RunKey(namespace: namespace, run: position.run)] = position.position
    if block.priority != NewBlock.priorityDefault { try noteFact(.hasPriorities, of: namespace) }
    let end = PathEnd(namespace: namespace, at: position)
    try noteExpiry(block.blockExpiry, of: end, row)
    // What the parent was given with it goes the way of its stamp.
    let above = PathEnd(namespace: namespace, at: block.parent)
    if let deadline = pendingDeadlines[above], deadline <= pendingDeadlines[end] ?? 0 {
      pendingDeadlines[above] = nil
    }
    try changeAccounting(namespace) { accounting in
      accounting.blockCount += 1
      accounting.payloadByteCount += UInt64(block.payloadByteCount)
      accounting.storedByteCount += UInt64(block.place.storedByteCount)
    }
    // The parent's pending stamp is older than its child's, so it will never matter.
    pendingStamps[above] = nil
    stampNext(end)
    note(
      CatalogEvent(
        sequence: 0,
        kind: .stored,
        reason: .none,
        tier: block.place.tier,
        namespace: namespace,
        run: position.run,
        firstPosition: position.position,
        blockCount: 1,
        timeNanoseconds: timeNanoseconds,
        owner: owner
      )
    )
    return .stored(position)
  }

  /// What the key leads to already, if anything.
  private func known(
    _ namespace: NamespaceID,
    _ block: NewBlock
  ) throws(CatalogError) -> PublishOutcome? {
    guard let position = try find(namespace, block.blockKey) else { return nil }
    let facts = try cachedNamespace(namespace)?.facts ?? []
    if facts.mayExpire { try settleDeadlines() }
    do throws(CatalogError) {
      guard let row = try rowView(namespace, position) else { return nil }
      guard unsafe bytesEqual(row.words, block.words), unsafe bytesEqual(row.extra, block.extra)
      else { return .collision }
      let parent =
        row.parent ?? BlockPosition(run: position.run, position: position.position &- 1)
      guard parent == block.parent else { return .collision }
      if try isExpired(namespace, position, row, now: timeNanoseconds) { return .expired(position) }
      if facts.mayExpire || block.priority > row.priority {
        try renew(namespace, position, blockExpiry: block.blockExpiry, priority: block.priority)
      }
      return .duplicate(position)
    } catch .corrupt(.blockRow) {
      return .corruptRow(position)
    }
  }

  /// The next position of the parent's run, or the first of a new run where the chain forks.
  private func newPosition(
    _ namespace: NamespaceID,
    after parent: BlockPosition
  ) throws(CatalogError) -> (BlockPosition, isFirstOfRun: Bool) {
    // 0xFFFFFFFF is not a position, and searches for what comes before it.
    if parent != .root, parent.position < .max - 1 {
      let runKey = RunKey(namespace: namespace, run: parent.run)
      var last = lastPositions[runKey]
      if last == nil { last = try lastPosition(namespace, parent.run) }
      lastPositions[runKey] = last
      if last == parent.position {
        return (BlockPosition(run: parent.run, position: parent.position + 1), false)
      }
    }
    defer { counters.run += 1 }
    return (BlockPosition(run: RunID(rawValue: counters.run), position: 0), true)
  }

  /// Notes that a request used the path down to this block; false when the block is not there.
  ///
  /// `use` is which use it was, for `stampChanges`.
  @discardableResult
  package func touch(
    _ namespace: NamespaceID,
    pathEnd: BlockPosition,
    use: UInt64? = nil
  ) throws(CatalogError) -> Bool {
    guard try containsRow(namespace, pathEnd) else { return false }
    if let use { stampChanges?.append(.used(use, stamp: counters.stamp)) }
    stampNext(PathEnd(namespace: namespace, at: pathEnd))
    return true
  }

  private func stampNext(_ end: PathEnd) {
    pendingStamps[end] = counters.stamp
    counters.stamp += 1
  }
}
