internal import KVCatalog
internal import KVCore
internal import KVFile

/// What goes into identities.kvs of an open store, each within the catalog transaction that it belongs to.
struct IdentityLog: Sendable {
  private let files: any Storage
  private let meta: StoreMeta
  private let byteCountMax: UInt64
  /// The length from which on the file is condensed; the write transaction keeps others out.
  private let condensedAt = Monitor(IdentityFile.condensedAtLeast)

  /// As it was when it was opened or this process appended to it last: who asks does not wait for the disk.
  private let knownByteCount = Monitor<UInt64>(0)
  private let refused = Monitor(false)

  /// Records of namespaces are appended up to `byteCountMax`.
  init(_ files: any Storage, _ meta: StoreMeta, byteCountMax: Int) {
    self.files = files
    self.meta = meta
    self.byteCountMax = UInt64(byteCountMax)
    noteByteCount()
  }

  /// Whether the last record of a namespace did not fit.
  var isFull: Bool { refused.withLock { $0 } }

  /// The file's length; 0 where there is none.
  var byteCount: UInt64 { knownByteCount.withLock { $0 } }

  private func noteByteCount() {
    guard let byteCount = files.folder?.byteCount(of: IdentityFile.name) else { return }
    knownByteCount.withLock { $0 = byteCount }
  }

  /// Appends records and syncs them; `.mapFull` where the file is as long as it may be.
  func append(
    _ records: [IdentityFile.Record],
    _ transaction: WriteTransaction
  ) throws(CatalogError) {
    var length = condensedAt.withLock { $0 }
    defer { condensedAt.withLock { [length] in $0 = length } }
    // What a removal notes is never refused.
    let isBounded = records.contains { if case .identity = $0 { true } else { false } }
    let hasRoom: Bool
    do throws(FileError) {
      hasRoom = try IdentityFile.append(
        records,
        files,
        meta: meta,
        condensedAt: &length,
        byteCountMax: isBounded ? byteCountMax : .max
      ) { try? Self.living(transaction) }
      noteByteCount()
    } catch {
      throw .io(errno: error.errno)
    }
    refused.withLock { $0 = !hasRoom }
    guard hasRoom else { throw .mapFull }
  }

  /// Replaces the file where that halves it, or where it is nearly as long as it may be.
  func condense(_ transaction: WriteTransaction) throws(CatalogError) {
    do throws(FileError) {
      try IdentityFile.condense(files, meta: meta, isWanted: byteCount > byteCountMax / 2) {
        try? Self.living(transaction)
      }
      noteByteCount()
    } catch {
      throw .io(errno: error.errno)
    }
  }

  /// The namespaces whose records have to stay: those of the last commit as well, which this one may not replace.
  private static func living(
    _ transaction: WriteTransaction
  ) throws(CatalogError) -> IdentityFile.Living {
    var living = IdentityFile.Living(
      rootKeys: [:],
      numberEnd: transaction.namespaceNumberEnd
    )
    for row in try transaction.namespaces() { living.rootKeys[row.id] = row.rootKey }
    living.leaving = transaction.removedNamespaces
    return living
  }

  /// Marks a removal, so that no repair raises the dead.
  func note(
    _ removal: IdentityFile.Removal,
    _ transaction: WriteTransaction
  ) throws(CatalogError) {
    try append([.removal(removal)], transaction)
  }

  /// Notes numbers that may be given soon, long before they are.
  ///
  /// A file that cannot be written now is tried again by the next commit, as long as there are noted numbers left.
  func note(numbersOf transaction: WriteTransaction) throws(CatalogError) {
    guard let (numbers, canWait) = try transaction.numbersToNote() else { return }
    do throws(CatalogError) {
      try append([.numbers(numbers)], transaction)
    } catch {
      guard canWait else { throw error }
      return
    }
    try transaction.noteNumbers(numbers)
  }
}
