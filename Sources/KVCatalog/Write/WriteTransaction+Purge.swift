package import KVCore

/// A namespace leaves in small steps, and its slots wait to be overwritten.
extension WriteTransaction {
  /// Removes the newest blocks of a namespace, at most about `blockCount` of them; an empty summary = none is left.
  ///
  /// From the end of the last run on: a run that hangs below another one is younger than it, so the last one is a leaf, and each
  /// step leaves a sound catalog.
  package func removeLastBlocks(
    _ namespace: NamespaceID,
    reason: RemovalReason,
    blockCount: Int
  ) throws(CatalogError) -> RemovedSummary {
    // What is purged leaves no keys behind.
    namesRemovedBlocks = false
    defer { namesRemovedBlocks = true }
    var summary = RemovedSummary()
    var goneCount = 0
    while goneCount < blockCount, let last = try lastBlock(namespace) {
      let rest = UInt32(clamping: blockCount - goneCount - 1)
      let first = last.position - min(last.position, rest)
      summary.add(
        try removeSubtree(
          namespace,
          at: BlockPosition(run: last.run, position: first),
          reason: reason
        )
      )
      goneCount += Int(last.position - first) + 1
      // A row that stands where its run has a hole is out of reach from above: it goes by itself.
      if try containsRow(namespace, last) {
        try removeRows(
          namespace,
          last.run,
          last.position...last.position,
          reason: reason,
          kind: .removed,
          &summary
        )
      }
    }
    return summary
  }

  private func lastBlock(_ namespace: NamespaceID) throws(CatalogError) -> BlockPosition? {
    var cursor = try cursor(.runs)
    let end = BlockPosition(run: RunID(rawValue: .max), position: .max)
    guard try cursor.seekBefore(.block(namespace, end)),
      let found = unsafe keyIntegers(cursor.key), found.namespace == namespace
    else { return nil }
    return found.at
  }

  // MARK: Slots that wait to be overwritten

  /// Takes slots that this transaction has freed, so that nobody gets them before `slotsErased`.
  package func holdForErasing(_ slots: [SlotAddress]) throws(CatalogError) {
    for slot in slots {
      let key = SlotFileKey(tier: slot.tier, file: slot.file)
      let reservation = SlotRowKey(tier: slot.tier, file: slot.file, owner: .eraser)
      guard try loadSlotFile(key), slotFileStates[key]?.used[Int(slot.slot)] == false else {
        continue
      }
      try loadReservation(reservation)
      slotFileStates[key]?.use(Int(slot.slot))
      reservationStates[reservation]?[Int(slot.slot)] = true
      changedReservations.insert(reservation)
    }
    try settleSlots()
    try putErasePending(try erasePendingSlotCount() + UInt64(slots.count))
  }

  /// The first slots of a file, from one on, that nobody uses or has reserved.
  package func freeSlots(
    of file: SlotFileRow,
    from first: UInt32,
    limit: Int
  ) throws(CatalogError) -> [SlotAddress] {
    let key = SlotFileKey(tier: file.tier, file: file.file)
    guard try loadSlotFile(key), let state = slotFileStates[key] else { return [] }
    var slots: [SlotAddress] = []
    var next = Int(first)
    while slots.count < limit, next < Int(state.row.slotCount),
      let free = state.used.firstClear(in: next..<Int(state.row.slotCount))
    {
      slots.append(SlotAddress(tier: file.tier, file: file.file, slot: UInt32(free)))
      next = free + 1
    }
    return slots
  }

  /// Frees slots that have been overwritten.
  package func slotsErased(_ slots: [SlotAddress]) throws(CatalogError) {
    try releaseReservation(slots, owner: .eraser)
    try settleSlots()
    let isLast = try slotsToErase(limit: 1).isEmpty
    let pending = try erasePendingSlotCount()
    try putErasePending(isLast ? 0 : max(1, pending - min(pending, UInt64(slots.count))))
  }

  private func putErasePending(_ count: UInt64) throws(CatalogError) {
    if count == 0 {
      try delete(.meta, .meta(.erase))
    } else {
      try put(.meta, .meta(.erase), EraseRow(slotCount: count).encoded)
    }
  }
}

extension ReadTransaction {
  /// Slots whose purged payload is still to be overwritten.
  package func erasePendingSlotCount() throws(CatalogError) -> UInt64 {
    guard let value = unsafe try getChecked(.meta, .meta(.erase)) else { return 0 }
    return unsafe EraseRow(value).slotCount
  }

  /// The first of those slots.
  package func slotsToErase(limit: Int) throws(CatalogError) -> [SlotAddress] {
    var slots: [SlotAddress] = []
    for key in try slotKeys() where key.owner == .eraser && slots.count < limit {
      guard let value = unsafe try getChecked(.slots, .slots(key.tier, key.file, key.owner)) else {
        continue
      }
      slots += unsafe SlotBitmap(value).slots.prefix(limit - slots.count).map {
        SlotAddress(tier: key.tier, file: key.file, slot: $0)
      }
    }
    return slots
  }
}

extension OwnerID {
  /// Holds the slots whose purged payload is still to be overwritten; no process gets this number.
  package static let eraser = OwnerID(rawValue: .max)
}
