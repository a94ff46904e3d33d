internal import CLMDB
internal import KVCore

/// What must hold between the tables; for tests and for the verify command. Reads everything.
extension ReadTransaction {
  /// Every rule that is broken, in words; empty = the catalog is sound.
  ///
  /// Memory grows with the number of blocks.
  package func checkInvariants() throws(CatalogError) -> [String] {
    try settle()
    var audit = CatalogAudit()
    try checkChecksums(&audit)
    let namespaces = try namespaces()
    for namespace in namespaces {
      try collectBlocks(namespace, &audit)
      try checkAccounting(namespace, audit)
        .map { audit.problems.append($0) }
    }
    try checkKeys(namespaces, &audit)
    try checkChildren(&audit)
    try checkStamps(namespaces, &audit)
    try checkSlots(&audit)
    return audit.problems
  }

  private func checkChecksums(_ audit: inout CatalogAudit) throws(CatalogError) {
    for table in Table.allCases where table != .keys {
      var cursor = try cursor(table)
      var isThere = try cursor.first()
      while isThere {
        if unsafe !checksumMatches(table, key: cursor.key, value: cursor.value) {
          audit.problems.append("\(table.name): checksum of a row")
        }
        isThere = try cursor.next()
      }
    }
  }

  private func collectBlocks(
    _ namespace: NamespaceRow,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    var cursor = try cursor(.runs)
    var isThere = try cursor.seek(
      .block(namespace.id, BlockPosition(run: .root, position: 0))
    )
    while isThere, let found = unsafe keyIntegers(cursor.key), found.namespace == namespace.id {
      let end = PathEnd(namespace: namespace.id, at: found.at)
      if let view = unsafe RowView(value: cursor.value) {
        audit.blocks[end] = BlockRow(view)
        if view.wordByteCount != Int(namespace.wordsPerBlock) * 4 {
          audit.problems.append("runs: words of \(end.at)")
        }
        if view.place.isInline {
          let payload = TableKey.block(namespace.id, found.at)
          if try !contains(.payloads, payload) {
            audit.problems.append("payloads: none of \(end.at)")
          }
        }
      } else {
        audit.problems.append("runs: row of \(end.at)")
      }
      isThere = try cursor.next()
    }
  }

  private func checkAccounting(
    _ namespace: NamespaceRow,
    _ audit: CatalogAudit
  ) throws(CatalogError) -> String? {
    var expected = Accounting()
    for (end, row) in audit.blocks where end.namespace == namespace.id {
      expected.blockCount += 1
      expected.payloadByteCount += UInt64(row.payloadByteCount)
      expected.storedByteCount += row.places.reduce(0) { $0 + UInt64($1.storedByteCount) }
    }
    let stored = try storedAccounting(namespace.id)
    return stored == expected
      ? nil : "namespaces: accounting of \(namespace.id.rawValue) is \(stored), not \(expected)"
  }

  private func checkKeys(
    _ namespaces: [NamespaceRow],
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    for (end, row) in audit.blocks
    where try keyTarget(end.namespace, row.blockKey) != end.at {
      audit.problems.append("keys: the key of \(end.at) leads elsewhere")
    }
    for namespace in namespaces where try namespaceID(rootKey: namespace.rootKey) != namespace.id {
      audit.problems.append("keys: root key of namespace \(namespace.id.rawValue)")
    }
    let expectedCount = audit.blocks.count + namespaces.count
    if try entryCount(.keys) != expectedCount {
      audit.problems.append("keys: not \(expectedCount) entries")
    }
    let inlineCount = audit.blocks.values.count { $0.places.first?.isInline == true }
    if try entryCount(.payloads) != inlineCount {
      audit.problems.append("payloads: not \(inlineCount) entries")
    }
  }

  private func entryCount(_ table: Table) throws(CatalogError) -> Int {
    var statistics = MDB_stat()
    let handle = unsafe try liveHandle()
    unsafe try check(mdb_stat(handle, identifier(of: table), &statistics))
    return Int(statistics.ms_entries)
  }

  private func checkChildren(_ audit: inout CatalogAudit) throws(CatalogError) {
    var runCount = 0
    for (end, row) in audit.blocks {
      if end.at.position > 0 {
        let before = BlockPosition(run: end.at.run, position: end.at.position - 1)
        let above = PathEnd(namespace: end.namespace, at: before)
        if audit.blocks[above] == nil { audit.problems.append("runs: a hole before \(end.at)") }
        if row.parent != nil { audit.problems.append("runs: \(end.at) names a parent") }
        audit.inner.insert(above)
        continue
      }
      runCount += 1
      guard let parent = row.parent else {
        audit.problems.append("runs: \(end.at) names no parent")
        continue
      }
      let above = PathEnd(namespace: end.namespace, at: parent)
      if parent != .root, audit.blocks[above] == nil {
        audit.problems.append("runs: the parent of \(end.at) is missing")
      }
      audit.inner.insert(above)
      if try !contains(.children, .child(end.namespace, parent, end.at.run)) {
        audit.problems.append("children: no entry for \(end.at)")
      }
    }
    if try entryCount(.children) != runCount {
      audit.problems.append("children: not \(runCount) entries")
    }
  }

  private func checkStamps(
    _ namespaces: [NamespaceRow],
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    var stamped: [PathEnd: UInt64] = [:]
    for pool in Set(namespaces.map(\.pool)) {
      var rows: [StampRow] = []
      try forEachStamp(pool: pool) { row in
        rows.append(row)
        return true
      }
      for row in rows {
        let end = PathEnd(namespace: row.namespace, at: row.end)
        if stamped.updateValue(row.stamp, forKey: end) != nil {
          audit.problems.append("stamps: two for \(row.end)")
        }
        if namespaces.first(where: { $0.id == row.namespace })?.pool != pool {
          audit.problems.append("stamps: \(row.end) in the wrong pool")
        }
        if audit.blocks[end] == nil { audit.problems.append("stamps: \(row.end) is missing") }
        if try storedStamp(row.namespace, row.end) != row.stamp {
          audit.problems.append("ends: \(row.end) has another stamp")
        }
      }
    }
    let (endCount, stampCount) = (try entryCount(.ends), try entryCount(.stamps))
    if endCount != stamped.count || stampCount != stamped.count {
      audit.problems.append("ends: not the inverse of stamps")
    }
    for end in audit.blocks.keys where !audit.inner.contains(end) && stamped[end] == nil {
      audit.problems.append("stamps: none for the leaf \(end.at)")
    }
  }

  private func checkSlots(_ audit: inout CatalogAudit) throws(CatalogError) {
    var taken: Set<SlotAddress> = []
    for row in audit.blocks.values {
      for case let slot? in row.places.map(\.slotAddress) where !taken.insert(slot).inserted {
        audit.problems.append("slots: \(slot) is in two blocks")
      }
    }
    for reservation in try reservations() {
      for slot in reservation.slots where !taken.insert(slot).inserted {
        audit.problems.append("slots: \(slot) is reserved and in use")
      }
    }
    var usedCount = 0
    for file in try slotFiles() {
      let used = try usedSlots(file.tier, file.file) ?? []
      usedCount += used.count
      if used.count != Int(file.usedCount) {
        audit.problems.append("slots: used count of file \(file.file)")
      }
      for slot in used
      where !taken.contains(SlotAddress(tier: file.tier, file: file.file, slot: slot)) {
        audit.problems.append("slots: \(slot) of file \(file.file) is used by nobody")
      }
    }
    if usedCount != taken.count { audit.problems.append("slots: a place is not marked as used") }
  }
}

/// What an audit has gathered.
private struct CatalogAudit {
  var problems: [String] = []
  var blocks: [PathEnd: BlockRow] = [:]
  /// Blocks that something comes after.
  var inner: Set<PathEnd> = []
}
