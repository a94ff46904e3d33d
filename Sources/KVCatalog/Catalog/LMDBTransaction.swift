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
    return unsafe UnsafeRawBufferPointer(rebasing: value[8...])
  }

  func contains(_ table: Table, _ key: TableKey) throws(CatalogError) -> Bool {
    unsafe try get(table, key) != nil
  }

  /// A cursor; it must not outlive the transaction.
  func cursor(_ table: Table) throws(CatalogError) -> TableCursor {
    unsafe try TableCursor(try liveHandle(), identifier(of: table))
  }
}

/// A cursor over one table; closed when it goes.
@safe struct TableCursor: ~Copyable {
  private let handle: OpaquePointer
  /// The key where the cursor stands.
  private(set) var key = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
  /// The whole value there.
  private(set) var value = unsafe UnsafeRawBufferPointer(start: nil, count: 0)

  init(_ transaction: OpaquePointer, _ identifier: MDB_dbi) throws(CatalogError) {
    var cursor: OpaquePointer?
    unsafe try check(mdb_cursor_open(transaction, identifier, &cursor))
    guard let cursor = unsafe cursor else { throw .lmdb(code: MDB_PANIC) }
    unsafe handle = cursor
  }

  deinit { unsafe mdb_cursor_close(handle) }

  /// Goes to the first row that is not before `key`; false when there is none.
  mutating func seek(_ key: TableKey) throws(CatalogError) -> Bool {
    var keyValue = unsafe MDB_val()
    var value = unsafe MDB_val()
    let handle = unsafe self.handle
    let code = unsafe key.withBytes { bytes in
      unsafe keyValue = MDB_val(bytes)
      return unsafe mdb_cursor_get(handle, &keyValue, &value, MDB_SET_RANGE)
    }
    return unsafe try settle(code, keyValue, value)
  }

  /// Goes to the last row before `key`; false when there is none.
  mutating func seekBefore(_ key: TableKey) throws(CatalogError) -> Bool {
    try seek(key) ? try move(MDB_PREV) : try move(MDB_LAST)
  }

  mutating func first() throws(CatalogError) -> Bool { try move(MDB_FIRST) }
  mutating func last() throws(CatalogError) -> Bool { try move(MDB_LAST) }
  mutating func next() throws(CatalogError) -> Bool { try move(MDB_NEXT) }
  mutating func previous() throws(CatalogError) -> Bool { try move(MDB_PREV) }

  private mutating func move(_ operation: MDB_cursor_op) throws(CatalogError) -> Bool {
    var keyValue = unsafe MDB_val()
    var value = unsafe MDB_val()
    let code = unsafe mdb_cursor_get(handle, &keyValue, &value, operation)
    return unsafe try settle(code, keyValue, value)
  }

  private mutating func settle(
    _ code: Int32,
    _ keyValue: MDB_val,
    _ value: MDB_val
  ) throws(CatalogError) -> Bool {
    if code == MDB_NOTFOUND { return false }
    try check(code)
    unsafe self.key = UnsafeRawBufferPointer(keyValue)
    unsafe self.value = UnsafeRawBufferPointer(value)
    return true
  }

  /// What follows the checksum, which is checked.
  func checkedBody(_ table: Table) throws(CatalogError) -> UnsafeRawBufferPointer {
    guard unsafe checksumMatches(table, key: key, value: value) else { throw .corrupt(table.part) }
    return unsafe UnsafeRawBufferPointer(rebasing: value[8...])
  }
}

/// Whether a row's value begins with the checksum of the rest.
@safe func checksumMatches(
  _ table: Table,
  key: UnsafeRawBufferPointer,
  value: UnsafeRawBufferPointer
) -> Bool {
  guard value.count >= 8 else { return false }
  let stored = unsafe UInt64(littleEndian: value.loadUnaligned(as: UInt64.self))
  return unsafe stored
    == rowChecksum(table, key: key, body: UnsafeRawBufferPointer(rebasing: value[8...]))
}

/// XXH3-64 of table tag, key and what follows the checksum.
@safe func rowChecksum(
  _ table: Table,
  key: UnsafeRawBufferPointer,
  body: UnsafeRawBufferPointer
) -> UInt64 {
  // Rows are short: a copy and one call is several times faster than hashing in pieces.
  guard body.count <= 1024 else {
    var tag = table.rawValue
    return unsafe withUnsafeBytes(of: &tag) { xxh3Checksum($0, key, body) }
  }
  let byteCount = 1 + key.count + body.count
  return unsafe withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: 8) { buffer in
    unsafe buffer[0] = table.rawValue
    unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[1...]).copyMemory(from: key)
    if unsafe !body.isEmpty {
      unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[(1 + key.count)...])
        .copyMemory(from: body)
    }
    return xxh3Checksum(UnsafeRawBufferPointer(buffer))
  }
}

extension MDB_val {
  /// LMDB takes keys and values as mutable pointers but does not write through them.
  init(_ bytes: UnsafeRawBufferPointer) {
    unsafe self.init(
      mv_size: bytes.count,
      mv_data: UnsafeMutableRawPointer(mutating: bytes.baseAddress)
    )
  }
}

extension UnsafeRawBufferPointer {
  init(_ value: MDB_val) {
    unsafe self.init(start: value.mv_data, count: value.mv_data == nil ? 0 : value.mv_size)
  }
}
