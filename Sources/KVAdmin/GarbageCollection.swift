internal import KVCatalog
public import KVCore
public import KVStore
internal import KVTiers

/// What a store holds that nobody can use any more.
public struct Garbage: Sendable, Equatable {
  /// Expired blocks, and those behind one.
  public var expiredBlockCount = 0
  /// Namespaces that hold nothing and have no quota and no pin; those that somebody has open stay.
  public var emptyNamespaceCount = 0
  /// Pins that have ended.
  public var endedPinCount = 0
  /// Slots that processes had reserved which are dead.
  public var deadReservedSlotCount = 0
  /// Slot files that no row of the catalog knows.
  public var strayFileCount = 0
  /// Their length.
  public var strayByteCount = 0
  /// Slot files with data that no row of the catalog knew: kept until someone removes them.
  public var setAsideFileCount = 0
  /// Their length.
  public var setAsideByteCount = 0
  /// Slot files without a used slot.
  public var emptyFileCount = 0
  /// Their bytes.
  public var emptyByteCount = 0

  /// Nothing.
  public init() {}
}

extension Store {
  /// What `collectGarbage` would remove; changes nothing.
  public func garbage() throws(StoreError) -> Garbage {
    try enter()
    defer { leave() }
    return try core.garbage(inspector)
  }

  /// Removes what has come to its end and gives the room of empty slot files back to the file system.
  ///
  /// What dead processes left goes as well, as it does whenever a store is opened. Safe beside other processes: a file that one of them
  /// needs is made anew.
  /// - Returns: how many blocks and namespaces were removed, and how many files and bytes given back.
  /// - Throws: `StoreError`.
  public func collectGarbage() throws(StoreError) -> (
    blockCount: Int, namespaceCount: Int, fileCount: Int, byteCount: Int
  ) {
    try enter()
    defer { leave() }
    let blockCount = try core.reclaimExpired()
    let namespaceCount = try core.removeEmptyNamespaces()
    let (fileCount, byteCount) = try core.removeEmptyFiles()
    return (blockCount, namespaceCount, fileCount, byteCount)
  }
}

extension StoreCore {
  fileprivate func garbage(_ inspector: StoreInspector) throws(StoreError) -> Garbage {
    var garbage = Garbage()
    let now = time.now()
    var known: Set<SlotFileID> = []
    try catalogRead { (transaction) throws(CatalogError) in
      garbage.endedPinCount = try transaction.pins().count { $0.hasEnded(at: now) }
      garbage.emptyNamespaceCount = try transaction.emptyNamespaces(now: now).count
      var reserved: [SlotFileID: Int] = [:]
      let living = ownerFiles.owners().living
      for reservation in try transaction.reservations()
      where reservation.owner != .eraser && !living.contains(reservation.owner) {
        garbage.deadReservedSlotCount += reservation.slots.count
        for slot in reservation.slots { reserved[slot.fileID, default: 0] += 1 }
      }
      for file in try transaction.slotFiles() {
        let id = SlotFileID(tier: file.tier, file: file.file)
        known.insert(id)
        guard Int(file.usedCount) <= reserved[id] ?? 0 else { continue }
        garbage.emptyFileCount += 1
        garbage.emptyByteCount += Int(file.slotByteCount) * Int(file.slotCount)
      }
    }
    for tier in [Tier.disk, .archive] {
      for stray in diskTier.strayFiles(of: tier, except: known) {
        if stray.kind == .setAside {
          garbage.setAsideFileCount += 1
          garbage.setAsideByteCount += diskTier.byteCount(of: stray)
        } else {
          garbage.strayFileCount += 1
          garbage.strayByteCount += diskTier.byteCount(of: stray)
        }
      }
    }
    for namespace in try inspector.namespaces() {
      garbage.expiredBlockCount += try expiredBlockCount(namespace.id, inspector)
    }
    return garbage
  }

  /// Walks a namespace's tree; one in which nothing can expire is passed over.
  private func expiredBlockCount(
    _ namespace: NamespaceID,
    _ inspector: StoreInspector
  ) throws(StoreError) -> Int {
    let mayExpire = try catalogRead { (transaction) throws(CatalogError) in
      try transaction.namespace(namespace)?.facts.mayExpire ?? false
    }
    guard mayExpire else { return 0 }
    let now = time.now()
    var count = 0
    // Of each run the first position that is over.
    var ends: [RunID: UInt32] = [:]
    for run in try inspector.tree(of: namespace, limit: .max) {
      var end: UInt32?
      if let above = ends[run.parent.run], above <= run.parent.position { end = 0 }
      var next: UInt32 = 0
      while end == nil {
        let last = try catalogRead { (transaction) throws(CatalogError) -> UInt32? in
          let deadlines = try transaction.runDeadlines(namespace, run.run, from: next, now: now)
          var last: UInt32?
          var rowCount = 0
          try transaction.forEachRow(namespace, run.run, from: next, through: .max) {
            position,
            row in
            last = position
            rowCount += 1
            if let row, row.expiry != 0 {
              let isIdle = row.flags.contains(.idleExpiry)
              let deadline = isIdle ? deadlines.deadline(at: position) : row.expiry
              if time.isOver(deadline: deadline, isIdle: isIdle, at: now) { end = position }
            }
            return end == nil && rowCount < 1000
          }
          return last
        }
        guard end == nil, let last else { break }
        next = last + 1
      }
      guard let end else { continue }
      ends[run.run] = end
      count += max(0, run.blockCount - Int(end))
    }
    return count
  }
}
