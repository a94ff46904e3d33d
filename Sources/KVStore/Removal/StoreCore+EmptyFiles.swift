internal import KVCatalog
package import KVCore
internal import KVTiers

extension StoreCore {
  /// Gives up slot files in which no slot is used or reserved.
  package func removeEmptyFiles() throws(StoreError) -> (count: Int, byteCount: Int) {
    guard let writer else { throw .readOnly }
    let removed = Monitor((count: 0, byteCount: 0))
    _ = try writer.perform(deadline: writerDeadline) { [self] () throws(StoreError) in
      // What this process has reserved ahead is in the way.
      try writer.batches.releaseReservations()
      let sum = try catalogWriter.evict { (eviction) throws(CatalogError) in
        var sum = (count: 0, byteCount: 0)
        for file in try eviction.transaction.slotFiles()
        where file.usedCount == 0 && (file.tier != .archive || archive.isOwn) {
          try eviction.removeSlotFile(SlotFileID(tier: file.tier, file: file.file))
          sum.count += 1
          sum.byteCount += Int(file.slotByteCount) * Int(file.slotCount)
        }
        return sum
      }
      removed.withLock { $0 = sum }
      return 0
    }
    return removed.withLock { $0 }
  }
}
