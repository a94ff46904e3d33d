internal import CLMDB
internal import KVCore

/// What a commit writes to the catalog's file.
///
/// LMDB does not say it. But a page that changes is written anew elsewhere, and the old one is listed as free under the number of the
/// transaction: so it wrote what it freed, and by how much more pages are in use now.
struct CatalogPages: Sendable {
  var transactionID: UInt64
  var pageByteCount: Int
  var usedPageCount: Int
  /// Pages that the last transaction freed.
  var freedPageCount: Int

  /// Bytes that the last transaction wrote, after one with these pages in use; its meta page included.
  func bytesWritten(since before: CatalogPages) -> UInt64 {
    let count = freedPageCount + usedPageCount - before.usedPageCount + 1
    return UInt64(max(count, 1)) * UInt64(pageByteCount)
  }
}

extension Catalog {
  /// Walks the list of free pages.
  func pages() throws(CatalogError) -> CatalogPages {
    let pageCount = try pageCount()
    return try read { transaction throws(CatalogError) in
      let id = try transaction.snapshotID()
      var statistics = MDB_stat()
      let handle = unsafe try transaction.liveHandle()
      unsafe try check(mdb_stat(handle, 0, &statistics))
      var (freeCount, freedCount) = (0, 0)
      var cursor = unsafe try TableCursor(handle, 0)
      var isThere = try cursor.first()
      while isThere {
        if unsafe cursor.key.count >= 8 {
          let count = unsafe Self.freePageCount(cursor.value)
          freeCount += count
          if unsafe cursor.key.loadUnaligned(as: UInt64.self) == id { freedCount = count }
        }
        isThere = try cursor.next()
      }
      return CatalogPages(
        transactionID: id,
        pageByteCount: Int(statistics.ms_psize),
        usedPageCount: pageCount - freeCount,
        freedPageCount: freedCount
      )
    }
  }
}
