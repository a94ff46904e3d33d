package import KVCore

/// Reads of blocks: by key, by position, along a run.
extension ReadTransaction {
  /// Where the block with this key stands.
  ///
  /// The words have still to be compared.
  package func find(
    _ namespace: NamespaceID,
    _ blockKey: BlockKey
  ) throws(CatalogError) -> BlockPosition? {
    guard let position = try keyTarget(namespace, blockKey),
      // What the entry points at proves it: after a corrupt row was removed, it may point at nothing or at another block.
      try storedBlockKey(namespace, position) == blockKey
    else { return nil }
    return position
  }

  /// What a `keys` entry says, unproven.
  func keyTarget(
    _ namespace: NamespaceID,
    _ blockKey: BlockKey
  ) throws(CatalogError) -> BlockPosition? {
    guard let value = unsafe try get(.keys, .blockKey(namespace, blockKey)) else { return nil }
    var reader = unsafe ByteReader(value)
    return reader.readPosition()
  }

  /// The key that a row says it has, its checksum not checked.
  func storedBlockKey(
    _ namespace: NamespaceID,
    _ at: BlockPosition
  ) throws(CatalogError) -> BlockKey? {
    guard let value = unsafe try get(.runs, .block(namespace, at)) else { return nil }
    return unsafe RowView.blockKey(of: value)
  }

  /// Whether there is a row at this position, be it damaged.
  package func containsRow(
    _ namespace: NamespaceID,
    _ at: BlockPosition
  ) throws(CatalogError) -> Bool {
    try contains(.runs, .block(namespace, at))
  }

  /// A copy of a block row; nil when there is none, `.corrupt(.blockRow)` when its checksum fails.
  package func row(
    _ namespace: NamespaceID,
    _ at: BlockPosition
  ) throws(CatalogError) -> BlockRow? {
    try rowView(namespace, at).map { BlockRow($0) }
  }

  func rowView(_ namespace: NamespaceID, _ at: BlockPosition) throws(CatalogError) -> RowView? {
    let key = TableKey.block(namespace, at)
    guard let value = unsafe try get(.runs, key) else { return nil }
    guard unsafe key.withBytes({ checksumMatches(.runs, key: $0, value: value) }),
      let view = unsafe RowView(value: value)
    else { throw .corrupt(.blockRow) }
    return view
  }

  /// Walks the rows of a run side by side, in one range scan, until `body` returns false or the run ends.
  ///
  /// `body` gets nil for a row whose checksum fails, and must not keep the view.
  package func forEachRow(
    _ namespace: NamespaceID,
    _ run: RunID,
    from first: UInt32,
    through last: UInt32 = .max,
    _ body: (_ position: UInt32, _ row: RowView?) -> Bool
  ) throws(CatalogError) {
    var cursor = try cursor(.runs)
    var expected = BlockPosition(run: run, position: first)
    var readAhead = RowReadAhead()
    var isThere = try cursor.seek(.block(namespace, expected))
    while isThere, expected.position <= last {
      unsafe readAhead.willRead(cursor.value)
      // A hole would be damage: what lies behind it is not reachable.
      guard let found = unsafe keyIntegers(cursor.key), found.namespace == namespace,
        found.at == expected
      else { return }
      let matches = unsafe checksumMatches(.runs, key: cursor.key, value: cursor.value)
      let view = unsafe matches ? RowView(value: cursor.value) : nil
      guard body(expected.position, view), expected.position < .max else { return }
      expected.position += 1
      isThere = try cursor.next()
    }
  }

  /// Lends slot header and stored bytes of an inline payload; nil when there is none.
  package func inlinePayload<R>(
    _ namespace: NamespaceID,
    _ at: BlockPosition,
    _ body: (UnsafeRawBufferPointer) -> R
  ) throws(CatalogError) -> R? {
    guard let payload = unsafe try getChecked(.payloads, .block(namespace, at)) else { return nil }
    return unsafe body(payload)
  }

  /// Position of the last block of a run; nil when the run is not there.
  package func lastPosition(
    _ namespace: NamespaceID,
    _ run: RunID
  ) throws(CatalogError) -> UInt32? {
    var cursor = try cursor(.runs)
    guard try cursor.seekBefore(.block(namespace, BlockPosition(run: run, position: .max))),
      let found = unsafe keyIntegers(cursor.key), found.namespace == namespace,
      found.at.run == run
    else { return nil }
    return found.at.position
  }

  /// The runs that begin after a block, oldest first.
  package func children(
    _ namespace: NamespaceID,
    _ parent: BlockPosition,
    limit: Int = .max
  ) throws(CatalogError) -> [RunID] {
    var children: [RunID] = []
    var cursor = try cursor(.children)
    var isThere = try cursor.seek(.child(namespace, parent, .root))
    while isThere, children.count < limit {
      guard let (childNamespace, at) = unsafe keyIntegers(cursor.key),
        childNamespace == namespace, at == parent, let child = unsafe childRun(cursor.key)
      else { break }
      children.append(child)
      isThere = try cursor.next()
    }
    return children
  }

  /// The block before; the root for a first block; nil when the block is not there.
  package func parent(
    _ namespace: NamespaceID,
    _ at: BlockPosition
  ) throws(CatalogError) -> BlockPosition? {
    guard try containsRow(namespace, at) else { return nil }
    if at.position > 0 { return BlockPosition(run: at.run, position: at.position - 1) }
    return try parentOfRun(namespace, at.run)
  }

  /// The parent that row 0 names; when that row is damaged, the one that `children` names.
  func parentOfRun(_ namespace: NamespaceID, _ run: RunID) throws(CatalogError) -> BlockPosition? {
    do throws(CatalogError) {
      return try rowView(namespace, BlockPosition(run: run, position: 0))?.parent
    } catch .corrupt(.blockRow) {
      var cursor = try cursor(.children)
      var isThere = try cursor.seek(
        .child(namespace, BlockPosition(run: .root, position: 0), .root)
      )
      while isThere, let (childNamespace, at) = unsafe keyIntegers(cursor.key),
        childNamespace == namespace
      {
        if unsafe childRun(cursor.key) == run { return at }
        isThere = try cursor.next()
      }
      return nil
    }
  }

  /// Whether nothing comes after a block, which must be there.
  func isLeaf(_ namespace: NamespaceID, _ at: BlockPosition) throws(CatalogError) -> Bool {
    let next = BlockPosition(run: at.run, position: at.position &+ 1)
    if try containsRow(namespace, next) { return false }
    return try children(namespace, at, limit: 1).isEmpty
  }
}
