import Glibc
import KVCatalog
import KVCore
import Synchronization

/// A small catalog in which rows are replaced by hostile ones; their checksums fit, so that the parsers behind them are reached.
///
/// The bytes are a little program: which rows are written, and what is done then. All happens in one transaction, which is
/// aborted, so that every run begins with the same catalog.
final class CatalogFuzzer: Sendable {
  static let shared = CatalogFuzzer()

  let catalog: Catalog
  /// Of each table.
  let rows: [[(key: [UInt8], value: [UInt8])]]
  private let lock = Mutex(())

  private struct Done: Error {}

  private init() {
    let folder = fuzzingFolder() + "/kvstore-fuzz-\(getpid())"
    mkdir(folder, 0o700)
    var options = CatalogOptions(path: folder + "/catalog.mdb")
    options.mapByteCount = 16 << 20
    options.durability = .buffered
    // No run may leave anything behind; a catalog that cannot be made ends the program, which is a test's.
    do {
      catalog = try Catalog(options, create: CatalogSample.meta)
      try CatalogSample.fill(catalog)
      rows = try catalog.read { (transaction) throws(CatalogError) in
        var rows: [[(key: [UInt8], value: [UInt8])]] = []
        for table in 0..<ReadTransaction.rawTableCount {
          rows.append(try transaction.rawRows(ofTable: table, limit: 64))
        }
        return rows
      }
    } catch {
      fatalError("no catalog to fuzz: \(error)")
    }
    // The file lives as long as it is open.
    for name in ["catalog.mdb", "catalog.mdb-lock"] { unlink(folder + "/" + name) }
    rmdir(folder)
  }

  func run(_ bytes: [UInt8]) {
    lock.withLock { _ in
      // Always aborted: what it throws is the end of the run.
      _ = try? catalog.write(timeNanoseconds: 2_000) {
        (transaction) throws(CatalogError) -> Void in
        var program = CatalogProgram(bytes: bytes)
        program.run(transaction, rows)
        throw .closed
      }
    }
  }
}
