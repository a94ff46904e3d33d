internal import CLMDB
internal import KVCore

/// The steps of a `CatalogAudit`: each table row by row, and what only the whole can show.
extension ReadTransaction {
  /// Looks at the next rows, at most `rowCountMax` of them; false when all tables are through.
  ///
  /// A page that LMDB refuses ends the table with a finding.
  package func auditStep(
    _ audit: inout CatalogAudit,
    rowCountMax: Int
  ) throws(CatalogError) -> Bool {
    guard let table = audit.table else { return false }
    audit.beginStep(try snapshotID())
    do throws(CatalogError) {
      if try walk(table, &audit, rowCountMax: rowCountMax) { return true }
    } catch {
      guard error.isDamage else { throw error }
      audit.findings.add(.unreadable, table.name, "a page is damaged: what follows was not checked")
    }
    audit.nextTable()
    return true
  }

  /// Number of the last commit that this snapshot has seen.
  package func snapshotID() throws(CatalogError) -> UInt64 {
    unsafe UInt64(mdb_txn_id(try liveHandle()))
  }

  /// Rows of all tables together, as LMDB counts them.
  package func rowCountOfAllTables() throws(CatalogError) -> Int {
    var count = 0
    for table in Table.allCases { count += try entryCount(table) }
    return count
  }

  /// False when the table is through.
  private func walk(
    _ table: Table,
    _ audit: inout CatalogAudit,
    rowCountMax: Int
  ) throws(CatalogError) -> Bool {
    guard has(table) else { return false }
    var cursor = try cursor(table)
    var isThere: Bool
    if let last = audit.lastKey {
      isThere = try cursor.seek(last)
      if isThere, unsafe last.withBytes({ unsafe bytesEqual($0, cursor.key) }) {
        isThere = try cursor.next()
      }
    } else {
      isThere = try cursor.first()
    }
    var count = 0
    while isThere {
      if count == rowCountMax { return true }
      guard let key = unsafe TableKey(copying: cursor.key) else {
        audit.findings.add(.malformed, table.name, "a key is longer than any of ours")
        return false
      }
      audit.lastKey = key
      audit.countRow(of: table)
      count += 1
      unsafe try auditRow(table, key: cursor.key, value: cursor.value, &audit)
      isThere = try cursor.next()
    }
    return false
  }

  private func auditRow(
    _ table: Table,
    key: UnsafeRawBufferPointer,
    value: UnsafeRawBufferPointer,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    if table != .keys, !checksumMatches(table, key: key, value: value) {
      let place = unsafe describedKey(table, key)
      audit.findings.add(.checksum, place, "the row's checksum does not match")
      if table == .runs, let found = unsafe keyIntegers(key) {
        audit.damagedNamespaces.insert(found.namespace)
      }
      return
    }
    switch table {
    case .runs: unsafe try auditBlock(key: key, value: value, &audit)
    case .keys: unsafe try auditKey(key: key, value: value, &audit)
    case .children: unsafe try auditChild(key: key, &audit)
    case .stamps: unsafe try auditStamp(key: key, value: value, &audit)
    case .ends: unsafe try auditEnd(key: key, value: value, &audit)
    case .payloads: unsafe try auditPayload(key: key, &audit)
    case .namespaces: unsafe try auditNamespace(key: key, &audit)
    case .slots: unsafe try auditSlots(key: key, &audit)
    case .deadlines: unsafe try auditDeadline(key: key, value: value, &audit)
    case .expiries: unsafe try auditExpiry(key: key, &audit)
    case .events: unsafe auditEvent(key: key, value: value, &audit)
    default: break
    }
  }

  func describedKey(_ table: Table, _ key: UnsafeRawBufferPointer) -> String {
    if let found = unsafe keyIntegers(key),
      [.runs, .children, .ends, .payloads, .deadlines].contains(table)
    {
      return "\(table.name): \(described(found.namespace, found.at))"
    }
    let digits = unsafe key.map { hexadecimalText(UInt64($0), digitCount: 2) }.joined()
    return "\(table.name): key \(digits)"
  }

  // MARK: Small tables

  private func auditKey(
    key: UnsafeRawBufferPointer,
    value: UnsafeRawBufferPointer,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    let place = unsafe describedKey(.keys, key)
    var reader = unsafe ByteReader(value)
    guard let (namespace, blockKey) = unsafe keysKey(key), let at = reader.readPosition() else {
      return audit.findings.add(.malformed, place, "the entry is too short")
    }
    guard namespace != .ofRootKeys else {
      let id = NamespaceID(rawValue: UInt32(truncatingIfNeeded: at.run.rawValue))
      if try auditedNamespace(id, &audit)?.row.rootKey != blockKey {
        audit.findings.add(.dangling, place, "leads to no namespace with this root key")
      }
      return
    }
    guard try storedBlockKey(namespace, at) != blockKey else { return }
    audit.findings.add(
      .dangling,
      place,
      "leads to \(described(namespace, at)), which has another key or none"
    )
  }

  private func auditChild(
    key: UnsafeRawBufferPointer,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    let place = unsafe describedKey(.children, key)
    guard let found = unsafe keyIntegers(key), let run = unsafe childRun(key) else {
      return audit.findings.add(.malformed, place, "the key is too short")
    }
    if found.at != .root, try !containsRow(found.namespace, found.at) {
      audit.findings.add(.dangling, place, "the parent is missing")
    }
    let first = BlockPosition(run: run, position: 0)
    guard let parent = try rowIfSound(found.namespace, first) else {
      if try !containsRow(found.namespace, first) {
        audit.findings.add(.dangling, place, "run \(run.rawValue) is missing")
      }
      return
    }
    if parent.parent != found.at {
      audit.findings.add(.contradiction, place, "run \(run.rawValue) names another parent")
    }
  }

  private func auditStamp(
    key: UnsafeRawBufferPointer,
    value: UnsafeRawBufferPointer,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    let place = unsafe describedKey(.stamps, key)
    guard let (pool, order) = unsafe stampKey(key),
      let row = unsafe StampRow(pool: pool, order: order, rowBody(value))
    else { return audit.findings.add(.malformed, place, "the row is too short") }
    if try !containsRow(row.namespace, row.end) {
      audit.findings.add(.dangling, place, "\(described(row.namespace, row.end)) is missing")
    } else if let block = try rowIfSound(row.namespace, row.end), block.priority != order.priority {
      audit.findings.add(.contradiction, place, "the block's priority is \(block.priority)")
    }
    if let space = try auditedNamespace(row.namespace, &audit), !space.row.pools.contains(pool) {
      audit.findings.add(.contradiction, place, "the namespace's blocks are in another pool")
    }
    if let counters = try auditedCounters(&audit), order.stamp >= counters.stamp {
      audit.findings.add(.contradiction, place, "the stamp was never given")
    }
    if try stampIfSound(row.namespace, row.end) != row.order {
      audit.findings.add(.contradiction, place, "table ends has another stamp for this block")
    }
  }

  private func auditEnd(
    key: UnsafeRawBufferPointer,
    value: UnsafeRawBufferPointer,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    let place = unsafe describedKey(.ends, key)
    guard let found = unsafe keyIntegers(key), let order = unsafe StampOrder(rowBody(value)) else {
      return audit.findings.add(.malformed, place, "the row is too short")
    }
    guard let space = try auditedNamespace(found.namespace, &audit) else {
      return audit.findings.add(.dangling, place, "the namespace is missing")
    }
    for pool in space.row.pools where try !contains(.stamps, .stamp(pool, order)) {
      audit.findings.add(.dangling, place, "table stamps has no stamp \(order.stamp)")
    }
    if space.row.quotaPool != nil { audit.secondStampCount += 1 }
  }

  private func auditPayload(
    key: UnsafeRawBufferPointer,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    let place = unsafe describedKey(.payloads, key)
    guard let found = unsafe keyIntegers(key) else {
      return audit.findings.add(.malformed, place, "the key is too short")
    }
    if try !containsRow(found.namespace, found.at) {
      audit.findings.add(.dangling, place, "the block is missing")
    } else if let row = try rowIfSound(found.namespace, found.at), !row.place.isInline {
      audit.findings.add(.contradiction, place, "the block's payload is in a slot")
    }
  }

  private func auditNamespace(
    key: UnsafeRawBufferPointer,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    guard let (id, kind) = unsafe namespaceKey(key) else {
      return audit.findings.add(.malformed, "namespaces", "a key is too short")
    }
    let place = "namespaces: namespace \(id.rawValue)"
    guard let space = try auditedNamespace(id, &audit) else {
      return audit.findings.add(.missing, place, "its row is missing or damaged")
    }
    guard kind == NamespaceRowKind.namespace.rawValue else { return }
    let record = space.row.identityRecord
    if audit.checksContents, space.chain == nil {
      audit.findings.add(.malformed, place, "the identity record cannot be read")
    } else if audit.checksContents,
      unsafe record.withUnsafeBytes({ xxh3Key($0) }) != space.row.rootKey
    {
      audit.findings.add(.keyChain, place, "the root key is not the hash of the identity record")
    }
    if try namespaceID(rootKey: space.row.rootKey) != id {
      audit.findings.add(.contradiction, place, "table keys does not lead here from its root key")
    }
    if let counters = try auditedCounters(&audit), id.rawValue >= counters.namespace {
      audit.findings.add(.contradiction, place, "the number was never given")
    }
  }

  private func auditEvent(
    key: UnsafeRawBufferPointer,
    value: UnsafeRawBufferPointer,
    _ audit: inout CatalogAudit
  ) {
    guard let sequence = unsafe keyNumber(key),
      unsafe CatalogEvent(sequence, rowBody(value)) != nil
    else { return unsafe audit.findings.add(.malformed, describedKey(.events, key), "the event") }
    // The ring moves on at its old end only: in between no number is left out, whoever writes meanwhile.
    if let last = audit.lastEvent, sequence != last &+ 1 {
      audit.findings.add(.missing, "events: \(last &+ 1)", "a number is left out")
    }
    audit.lastEvent = sequence
  }

  private func auditSlots(
    key: UnsafeRawBufferPointer,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    guard let key = unsafe SlotRowKey(key) else {
      return audit.findings.add(.malformed, "slots", "a key is too short")
    }
    let place = "slots: tier \(key.tier.rawValue), file \(key.file)"
    let fileKey = SlotFileKey(tier: key.tier, file: key.file)
    guard let slotFile = try auditedSlotFile(fileKey, &audit) else {
      return audit.findings.add(.missing, place, "the row of the file is missing or malformed")
    }
    if key.owner == .file {
      let row = try storedSlotFiles().first { $0.tier == key.tier && $0.file == key.file }
      if let row, Int(row.usedCount) != slotFile.used.slots.count {
        audit.findings.add(
          .accounting,
          place,
          "\(row.usedCount) slots are said to be used, \(slotFile.used.slots.count) are"
        )
      }
      if let counters = try auditedCounters(&audit), key.file >= counters.slotFile {
        audit.findings.add(.contradiction, place, "the number was never given")
      }
      return
    }
    guard let value = unsafe try get(.slots, .slots(key.tier, key.file, key.owner)) else { return }
    let reserved = unsafe SlotBitmap(rowBody(value))
    for slot in reserved.slots where !slotFile.used[Int(slot)] {
      audit.findings.add(
        .contradiction,
        place,
        "slot \(slot) is reserved by owner \(key.owner.rawValue) and not marked as used"
      )
    }
  }
}

extension CatalogError {
  /// What is stored is broken, as opposed to what was asked.
  package var isDamage: Bool {
    switch self {
    case .corrupt, .lmdb, .notACatalog: true
    default: false
    }
  }
}
