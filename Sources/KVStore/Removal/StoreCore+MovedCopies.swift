internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVTiers

/// What moves between disk and archive leaves a copy in the slot where it was, which lies there until the slot is used again.
///
/// A purge erases these copies too. Only a store with an archive has them; its disk is full, so few slots are free.
extension StoreCore {
  /// Slots whose headers one step looks at.
  private static let copyCountMax = 256

  /// Holds free slots for the eraser in which blocks of a namespace lie; only those of these keys, unless nil.
  func holdMovedCopies(
    _ namespace: NamespaceID,
    _ keys: Set<BlockKey>?
  ) throws(StoreError) {
    guard let writer else { throw .readOnly }
    let (row, files) = try catalogRead { (transaction) throws(CatalogError) in
      (try transaction.namespace(namespace), try transaction.slotFiles())
    }
    guard let row, row.slotByteCount > 0, files.contains(where: { $0.tier == .archive }) else {
      return
    }
    for file in files
    where file.tier == .archive
      ? archive.isOwn && !diskTier.isArchiveStuck : file.slotByteCount == row.slotByteCount
    {
      var next: UInt32 = 0
      while next < file.slotCount {
        let first = next
        let step = try writer.perform(deadline: writerDeadline) { [self] () throws(StoreError) in
          try holdMovedCopies(row, keys, file, from: first)
        }
        next = UInt32(clamping: step)
      }
    }
  }

  /// On the writer's thread; returns where to go on.
  ///
  /// Under the catalog's write lock: nobody else takes one of the slots meanwhile.
  private func holdMovedCopies(
    _ row: NamespaceRow,
    _ keys: Set<BlockKey>?,
    _ file: SlotFileRow,
    from first: UInt32
  ) throws(StoreError) -> Int {
    // Slots that this process has reserved ahead may be such.
    try writer?.batches.releaseReservations()
    let headerByteCount = min(Int(row.headerByteCount), Int(file.slotByteCount))
    let buffer: AlignedBuffer
    do throws(FileError) {
      buffer = try AlignedBuffer(byteCount: Self.copyCountMax * headerByteCount)
    } catch {
      throw StoreError(error, .readSlot)
    }
    return try catalogWriter.commit { (transaction) throws(CatalogError) in
      let slots = try transaction.freeSlots(of: file, from: first, limit: Self.copyCountMax)
      let headers = unsafe slots.indices.map { index in
        unsafe UnsafeMutableRawBufferPointer(
          rebasing: buffer.bytes[index * headerByteCount..<(index + 1) * headerByteCount]
        )
      }
      let batch = diskTier.startReads(
        unsafe zip(slots, headers).map { slot, bytes in
          unsafe ReadRequest(
            address: slot,
            slotByteCount: Int(file.slotByteCount),
            offset: 0,
            buffer: bytes
          )
        }
      )
      var copies: [SlotAddress] = []
      for (index, slot) in slots.enumerated() {
        guard batch.wait(index) == nil,
          let header = unsafe SlotHeaderView(trusted: UnsafeRawBufferPointer(headers[index])),
          header.rootKey == row.rootKey, keys?.contains(header.blockKey) ?? true
        else { continue }
        copies.append(slot)
      }
      if !copies.isEmpty { try transaction.holdForErasing(copies) }
      guard slots.count == Self.copyCountMax, let last = slots.last else {
        return Int(file.slotCount)
      }
      return Int(last.slot) + 1
    }
  }
}
