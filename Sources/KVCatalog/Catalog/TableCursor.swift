internal import CLMDB

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
    return unsafe rowBody(value)
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
