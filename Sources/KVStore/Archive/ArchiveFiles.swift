internal import KVCatalog
internal import KVCore

/// The slot sizes of the archive's files, as far as they were looked up.
///
/// Its lock is a leaf.
package final class ArchiveFiles: Sendable {
  private let catalog: Catalog
  private let sizes = Monitor<[UInt32: Int]>([:])

  init(_ catalog: Catalog) { self.catalog = catalog }

  /// Bytes of a slot of a file; nil when there is none of that number.
  ///
  /// Numbers of files are given once, so what was read once stays true.
  package func slotByteCount(_ file: UInt32) -> Int? {
    if let known = sizes.withLock({ $0[file] }) { return known }
    let files = try? catalog.read { (transaction) throws(CatalogError) in
      try transaction.slotFiles()
    }
    var found: [UInt32: Int] = [:]
    for file in files ?? [] where file.tier == .archive {
      found[file.file] = Int(file.slotByteCount)
    }
    sizes.withLock { [found] in $0.merge(found) { $1 } }
    return found[file]
  }
}
