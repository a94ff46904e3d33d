internal import CLMDB
internal import KVCore

/// Rows as they lie in the tables, past every rule; for tests and fuzzing of what damaged or foreign rows do.
extension ReadTransaction {
  /// How many tables there are.
  package static var rawTableCount: Int { Table.count }

  /// Keys and whole values of the first rows of a table.
  package func rawRows(
    ofTable number: Int,
    limit: Int
  ) throws(CatalogError) -> [(key: [UInt8], value: [UInt8])] {
    guard let table = Table(rawValue: UInt8(clamping: number)), has(table) else {
      return []
    }
    var rows: [(key: [UInt8], value: [UInt8])] = []
    var cursor = try cursor(table)
    var isThere = try cursor.first()
    while isThere, rows.count < limit {
      rows.append(unsafe (Array(cursor.key), Array(cursor.value)))
      isThere = try cursor.next()
    }
    return rows
  }
}

extension WriteTransaction {
  /// Writes a row with the checksum that belongs to it, whatever the row says.
  ///
  /// What the transaction holds in memory is not looked at; counters are read again.
  package func putRawRow(
    ofTable number: Int,
    key: [UInt8],
    body: [UInt8]
  ) throws(CatalogError) {
    guard let table = Table(rawValue: UInt8(clamping: number)),
      let tableKey = unsafe key.withUnsafeBytes({ unsafe TableKey(copying: $0) }), !key.isEmpty
    else { throw .invalidArgument }
    try put(table, tableKey, body)
    if table == .meta { try loadCounters() }
  }

  /// Leaves the catalog as programs made it that did not know the tables that were added later; to be opened anew then.
  package func dropLaterTables() throws(CatalogError) {
    let handle = unsafe try liveHandle()
    for table in Table.allCases where table.isAddedLater {
      unsafe try check(mdb_drop(handle, identifier(of: table), 1))
    }
  }
}
