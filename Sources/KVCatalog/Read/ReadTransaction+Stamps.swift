package import KVCore

/// Reads of stamps.
extension ReadTransaction {
  /// Walks the stamps of a pool in the order of victims until `body` returns false.
  package func forEachStamp(
    pool: UInt32,
    after order: StampOrder? = nil,
    _ body: (StampRow) -> Bool
  ) throws(CatalogError) {
    try settle()
    var cursor = try cursor(.stamps)
    var first = order ?? .first
    guard first.stamp < .max else { return }
    first.stamp += 1
    var isThere = try cursor.seek(.stamp(pool, first))
    while isThere {
      guard let key = unsafe stampKey(cursor.key), key.pool == pool else { return }
      let value = unsafe try cursor.checkedBody(.stamps)
      guard let row = unsafe StampRow(pool: key.pool, order: key.order, value) else {
        throw .corrupt(.stamp)
      }
      guard body(row) else { return }
      isThere = try cursor.next()
    }
  }

  /// The stamp of a block, if it has one.
  package func stamp(
    _ namespace: NamespaceID,
    _ at: BlockPosition
  ) throws(CatalogError) -> UInt64? {
    try settle()
    return try storedStamp(namespace, at)?.stamp
  }

  func storedStamp(
    _ namespace: NamespaceID,
    _ at: BlockPosition
  ) throws(CatalogError) -> StampOrder? {
    guard let value = unsafe try getChecked(.ends, .block(namespace, at)) else { return nil }
    return unsafe StampOrder(value)
  }
}
