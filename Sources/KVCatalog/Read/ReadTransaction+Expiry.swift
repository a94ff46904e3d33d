package import KVCore

/// Until when blocks live: docs/file-format.md, "Deadlines".
extension ReadTransaction {
  /// The records of a run from a position on: later positions have earlier deadlines.
  ///
  /// The deadline of a block is that of the first record at or behind it.
  package func deadlines(
    _ namespace: NamespaceID,
    _ run: RunID,
    from first: UInt32 = 0,
    limit: Int = .max
  ) throws(CatalogError) -> [DeadlineRecord] {
    var records: [DeadlineRecord] = []
    var cursor = try cursor(.deadlines)
    var isThere = try cursor.seek(.block(namespace, BlockPosition(run: run, position: first)))
    while isThere, records.count < limit, let found = unsafe keyIntegers(cursor.key),
      found.namespace == namespace, found.at.run == run
    {
      records.append(try cursor.deadline(at: found.at.position))
      isThere = try cursor.next()
    }
    return records
  }

  /// Until when the blocks of a run with an idle life live, pins included, for those from a position on.
  package func runDeadlines(
    _ namespace: NamespaceID,
    _ run: RunID,
    from first: UInt32,
    now: UInt64
  ) throws(CatalogError) -> RunDeadlines {
    RunDeadlines(
      records: try deadlines(namespace, run, from: first),
      pins: try pins(now: now).flatMap { pin in
        pin.path.filter { $0.run == run }.map {
          DeadlineRecord(position: $0.position, deadline: pin.endNanoseconds)
        }
      }
    )
  }

  /// Whether some block or pin has come to its end.
  package func hasExpired(now: UInt64) throws(CatalogError) -> Bool {
    let suspendedBefore = try idleSuspendedBefore()
    for kind in Expiry.Kind.allCases {
      let first = kind == .idle ? suspendedBefore : 0
      if try !expiries(kind, from: Expiry.first(kind, first), before: now, limit: 1).isEmpty {
        return true
      }
    }
    return try pins().contains { $0.hasEnded(at: now) }
  }

  /// Whether something may come to an end at some time.
  package func hasExpiries() throws(CatalogError) -> Bool {
    var cursor = try cursor(.expiries)
    if try cursor.first() { return true }
    return try !pins().isEmpty
  }

  /// Entries of one kind from `first` on, soonest first.
  func expiries(
    _ kind: Expiry.Kind,
    from first: TableKey,
    before now: UInt64,
    limit: Int
  ) throws(CatalogError) -> [Expiry] {
    var found: [Expiry] = []
    var cursor = try cursor(.expiries)
    var isThere = try cursor.seek(first)
    while isThere, found.count < limit, let expiry = unsafe Expiry(cursor.key),
      expiry.kind == kind, expiry.deadline < now
    {
      found.append(expiry)
      isThere = try cursor.next()
    }
    return found
  }

  /// Whether a block has come to its end by itself; one of its ancestors may have.
  func isExpired(
    _ namespace: NamespaceID,
    _ at: BlockPosition,
    _ row: RowView,
    now: UInt64
  ) throws(CatalogError) -> Bool {
    guard row.expiry != 0 else { return false }
    guard row.flags.contains(.idleExpiry) else { return row.expiry < now }
    let deadlines = try runDeadlines(namespace, at.run, from: at.position, now: now)
    let deadline = deadlines.deadline(at: at.position)
    let suspendedBefore = try idleSuspendedBefore()
    return deadline < now && deadline >= suspendedBefore
  }

  // MARK: Pins

  /// All pins, also those that have ended and were not removed yet.
  package func pins() throws(CatalogError) -> [PinRow] {
    var pins: [PinRow] = []
    var cursor = try cursor(.pins)
    var isThere = try cursor.first()
    while isThere {
      let body = unsafe try cursor.checkedBody(.pins)
      guard let id = unsafe keyNumber(cursor.key), let pin = unsafe PinRow(id: id, body) else {
        throw .corrupt(.pin)
      }
      pins.append(pin)
      isThere = try cursor.next()
    }
    return pins
  }

  /// The pins that hold.
  package func pins(now: UInt64) throws(CatalogError) -> [PinRow] {
    try pins().filter { !$0.hasEnded(at: now) }
  }

  /// What leases hold, and what pins hold.
  package func protected(
    _ leased: [RunID: UInt32],
    now: UInt64
  ) throws(CatalogError) -> ProtectedBlocks {
    var protected = ProtectedBlocks(leased: leased)
    for pin in try pins(now: now) {
      for at in pin.path {
        protected.pinned[at.run] = max(protected.pinned[at.run] ?? 0, at.position)
      }
    }
    return protected
  }
}

extension TableCursor {
  /// The record where the cursor stands.
  func deadline(at position: UInt32) throws(CatalogError) -> DeadlineRecord {
    let body = unsafe try checkedBody(.deadlines)
    guard let record = unsafe DeadlineRecord(position: position, body) else {
      throw .corrupt(.deadline)
    }
    return record
  }
}
