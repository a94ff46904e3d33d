internal import CLMDB
internal import KVCore

/// An LMDB transaction: byte-level reads and writes of the tables, every value but those of `keys` checksummed.
///
/// What `get` and cursors return points into LMDB's pages and is valid until the transaction ends or writes; nothing
/// outside this target sees such a pointer but within a closure. Belongs to one thread at a time.
@safe package class ReadTransaction {
  private let tables: [MDB_dbi]
  /// Nil once the transaction has ended: a reference that was kept does no harm.
  private(set) var handle: OpaquePointer?

  init(handle: OpaquePointer, tables: [MDB_dbi]) {
    unsafe self.handle = handle
    self.tables = tables
  }

  /// Hook of the write transaction: brings what it holds back in memory into the tables.
  func settle() throws(CatalogError) {}

  /// Gives the handle up to the caller, who ends it.
  func takeHandle() -> OpaquePointer? {
    defer { unsafe handle = nil }
    return unsafe handle
  }

  func liveHandle() throws(CatalogError) -> OpaquePointer {
    guard let handle = unsafe handle else { throw .closed }
    return unsafe handle
  }

  func identifier(of table: Table) -> MDB_dbi { tables[Int(table.rawValue)] }

  /// Stands for a table that an older store does not have yet.
  static let noTable = MDB_dbi.max

  func has(_ table: Table) -> Bool { identifier(of: table) != Self.noTable }

  /// The whole value, its checksum not checked; nil when there is none.
  func get(_ table: Table, _ key: TableKey) throws(CatalogError) -> UnsafeRawBufferPointer? {
    let handle = unsafe try liveHandle()
    guard has(table) else { return nil }
    var value = unsafe MDB_val()
    let code = unsafe key.withBytes { bytes in
      var keyValue = unsafe MDB_val(bytes)
      return unsafe mdb_get(handle, identifier(of: table), &keyValue, &value)
    }
    if code == MDB_NOTFOUND { return nil }
    try check(code)
    return unsafe UnsafeRawBufferPointer(value)
  }

  /// What follows the checksum; nil when there is no row, an error when the checksum is wrong.
  func getChecked(
    _ table: Table,
    _ key: TableKey
  ) throws(CatalogError) -> UnsafeRawBufferPointer? {
    guard let value = unsafe try get(table, key) else { return nil }
    guard unsafe key.withBytes({ checksumMatches(table, key: $0, value: value) }) else {
      throw .corrupt(table.part)
    }
    return unsafe rowBody(value)
  }

  func contains(_ table: Table, _ key: TableKey) throws(CatalogError) -> Bool {
    unsafe try get(table, key) != nil
  }

  /// A cursor; it must not outlive the transaction.
  func cursor(_ table: Table) throws(CatalogError) -> TableCursor {
    unsafe try TableCursor(try liveHandle(), identifier(of: table))
  }
}
