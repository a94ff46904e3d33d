package import KVCore

extension ReadTransaction {
  /// Walks the rows of a namespace from the newest run's end backwards, or from before a row, until `body` returns false.
  ///
  /// Rows whose checksum fails are left out. `body` must not keep the view.
  package func forEachNewestRow(
    _ namespace: NamespaceID,
    before first: BlockPosition? = nil,
    _ body: (BlockPosition, RowView) -> Bool
  ) throws(CatalogError) {
    var cursor = try cursor(.runs)
    let end = first ?? BlockPosition(run: RunID(rawValue: .max), position: .max)
    var isThere = try cursor.seekBefore(.block(namespace, end))
    while isThere, let found = unsafe keyIntegers(cursor.key), found.namespace == namespace {
      if unsafe checksumMatches(.runs, key: cursor.key, value: cursor.value),
        let view = unsafe RowView(value: cursor.value), !body(found.at, view)
      {
        return
      }
      isThere = try cursor.previous()
    }
  }
}
