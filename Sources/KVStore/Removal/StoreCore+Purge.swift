internal import KVCatalog
internal import KVCore
internal import KVFile
internal import KVTiers

/// Whole namespaces leave: at once and durably (`purged`), their payload a little later (`erased`).
extension StoreCore {
  /// Rows that one commit removes: deletions take pages, so that all at once would not fit into a full catalog.
  private static let purgeBlockCount = 2048
  /// Bytes that are overwritten under one write lock of the catalog.
  private static let eraseByteCount = 16 << 20

  /// Removes all blocks of a namespace; durable when it returns, then their slots are overwritten in the background.
  ///
  /// The mark comes first, so that no repair raises the dead.
  func purge(_ namespace: NamespaceID, erases: Bool) throws(StoreError) -> Int {
    guard let writer else { throw .readOnly }
    if health.isPoisoned { throw .poisoned }
    try remote?.purges.begin()
    defer { remote?.purges.end() }
    // What was offloaded before is published first, so that it is found here.
    _ = try writer.perform(deadline: writerDeadline) { 0 }
    let row = try catalogRead { (transaction) throws(CatalogError) in
      try transaction.namespace(namespace)
    }
    guard let row else { throw .invalidArgument(.namespace) }
    let sections = try sectionNamespaces(ofRecord: row.identityRecord)
    try queueRemotePurge(row, sections: sections)
    defer { startRemotePurges() }
    // The sections first: each step is then as large as it says.
    var removedCount = 0
    for section in sections {
      removedCount += try purge(section, writer, erases: erases)
    }
    return removedCount + (try purge(row, writer, erases: erases))
  }

  private func purge(
    _ row: NamespaceRow,
    _ writer: Writer,
    erases: Bool
  ) throws(StoreError) -> Int {
    var removedCount = 0
    var isFirst = true
    while true {
      let marks = isFirst
      let count = try writer.perform(deadline: writerDeadline) { [self] () throws(StoreError) in
        try purgeStep(row, marks: marks, erases: erases)
      }
      if count == 0 { break }
      removedCount += count
      isFirst = false
    }
    if erases, row.slotByteCount > 0 {
      try holdMovedCopies(row.id, nil)
      writer.enqueueErasing()
    }
    return removedCount
  }

  /// On the writer's thread; returns how many blocks went.
  private func purgeStep(
    _ namespace: NamespaceRow,
    marks: Bool,
    erases: Bool
  ) throws(StoreError) -> Int {
    if marks { writer?.batches.dropGenerations() }
    let removed = try catalogWriter.remove(.forgotten) { (transaction) throws(CatalogError) in
      if marks {
        try markRemoval(of: nil, in: namespace.id, namespace.rootKey, transaction)
      }
      let removed = try transaction.removeLastBlocks(
        namespace.id,
        reason: .forgotten,
        blockCount: Self.purgeBlockCount
      )
      try markSections(removed.sections, transaction)
      if erases { try transaction.holdForErasing(removed.freedSlots) }
      return removed
    }
    return removed.blockCount + removed.corruptRowCount
  }

  // MARK: Erasing

  /// Slots whose purged payload is still to be overwritten.
  package var erasePendingSlotCount: UInt64 {
    let count = try? catalogRead { (transaction) throws(CatalogError) in
      try transaction.erasePendingSlotCount()
    }
    return count ?? 0
  }

  /// Overwrites some purged slots and frees them; true when more are waiting.
  ///
  /// On the writer's thread.
  /// Under the catalog's write lock, so that no other process gives a slot out while it is overwritten; a crash leaves them waiting.
  func eraseStep() throws(StoreError) -> Bool {
    guard erasePendingSlotCount > 0 else { return false }
    let erasedCount = try catalogWriter.commit { (transaction) throws(CatalogError) in
      let files = try transaction.slotFiles()
      var byteCount = 0
      var slots: [SlotAddress] = []
      var sizes: [Int] = []
      for slot in try transaction.slotsToErase(limit: 1024) {
        // Those of an archive that is away or does not answer wait for the next purge or open.
        guard slot.tier != .archive || archive.isOwn && !diskTier.isArchiveStuck,
          let file = files.first(where: { $0.tier == slot.tier && $0.file == slot.file })
        else { continue }
        slots.append(slot)
        sizes.append(Int(file.slotByteCount))
        byteCount += Int(file.slotByteCount)
        if byteCount >= Self.eraseByteCount { break }
      }
      do throws(FileError) {
        try overwrite(slots, sizes)
      } catch {
        throw .io(errno: error.errno)
      }
      try transaction.slotsErased(slots)
      return slots.count
    }
    let count = UInt64(erasedCount)
    state.withLock { $0.meters.noteErased(count) }
    return erasedCount > 0 && erasePendingSlotCount > 0
  }

  private func overwrite(_ slots: [SlotAddress], _ sizes: [Int]) throws(FileError) {
    guard let largest = sizes.max() else { return }
    let zeros = try AlignedBuffer(byteCount: largest, isZeroed: true)
    try diskTier.write(
      zip(slots, sizes).map { slot, size in
        unsafe DiskTier.Write(
          address: slot,
          slotByteCount: size,
          bytes: UnsafeRawBufferPointer(rebasing: zeros.readOnly[..<size]),
          owner: zeros
        )
      }
    )
    try diskTier.sync(files: Set(slots.map(\.fileID)))
  }
}

extension Writer {
  /// Lets the thread overwrite what was purged, a piece at a time with other work in between.
  func enqueueErasing() {
    enqueueUnhurried(
      WriterCall { [core] () throws(StoreError) in
        // An error leaves the slots waiting until the next purge or open.
        if try core.eraseStep() { core.writer?.enqueueErasing() }
        return 0
      }
    )
  }
}
