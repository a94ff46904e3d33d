internal import KVCatalog
internal import KVCore
internal import KVFile

/// What goes into identities.kvs of an open store, each within the catalog transaction that it belongs to.
struct IdentityLog: Sendable {
  private let files: any Storage
  private let meta: StoreMeta
  /// The length from which on the file is condensed; the write transaction keeps others out.
  private let condensedAt = Monitor(IdentityFile.condensedAtLeast)

  /// As it was when it was opened or this process appended to it last: who asks does not wait for the disk.
  private let knownByteCount = Monitor<UInt64>(0)

  init(_ files: any Storage, _ meta: StoreMeta) {
    self.files = files
    self.meta = meta
    noteByteCount()
  }

  /// The file's length; 0 where there is none.
  var byteCount: UInt64 { knownByteCount.withLock { $0 } }

  private func noteByteCount() {
    guard let byteCount = files.folder?.byteCount(of: IdentityFile.name) else { return }
    knownByteCount.withLock { $0 = byteCount }
  }

  /// Appends records and syncs them.
  func append(_ records: [IdentityFile.Record]) throws(CatalogError) {
    var length = condensedAt.withLock { $0 }
    defer { condensedAt.withLock { [length] in $0 = length } }
    do throws(FileError) {
      try IdentityFile.append(records, files, meta: meta, condensedAt: &length)
      noteByteCount()
    } catch {
      throw .io(errno: error.errno)
    }
  }

  /// Marks a removal, so that no repair raises the dead.
  func note(_ removal: IdentityFile.Removal) throws(CatalogError) {
    try append([.removal(removal)])
  }

  /// Notes numbers that may be given soon, long before they are.
  ///
  /// A file that cannot be written now is tried again by the next commit, as long as there are noted numbers left.
  func note(numbersOf transaction: WriteTransaction) throws(CatalogError) {
    guard let (numbers, canWait) = try transaction.numbersToNote() else { return }
    do throws(CatalogError) {
      try append([.numbers(numbers)])
    } catch {
      guard canWait else { throw error }
      return
    }
    try transaction.noteNumbers(numbers)
  }
}
