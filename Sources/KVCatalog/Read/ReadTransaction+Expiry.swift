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
      var reader = unsafe ByteReader(try cursor.checkedBody(.deadlines))
      guard let deadline = reader.read(UInt64.self) else { throw .corrupt(.deadline) }
      records.append(DeadlineRecord(position: found.at.position, deadline: deadline))
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

  /// Idle deadlines before this time do not count: they are from before a jump of the clock.
  package func idleSuspendedBefore() throws(CatalogError) -> UInt64 {
    guard let value = unsafe try getChecked(.meta, .meta(.clock)) else { return 0 }
    var reader = unsafe ByteReader(value, offset: 8)
    guard let time = reader.read(UInt64.self) else { throw .corrupt(.meta) }
    return time
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
    return try pins().contains { $0.endNanoseconds < now }
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
      var reader = unsafe ByteReader(cursor.key)
      let body = unsafe try cursor.checkedBody(.pins)
      guard let id = reader.read(UInt64.self)?.byteSwapped, let pin = unsafe PinRow(id: id, body)
      else { throw .corrupt(.pin) }
      pins.append(pin)
      isThere = try cursor.next()
    }
    return pins
  }

  /// The pins that hold.
  package func pins(now: UInt64) throws(CatalogError) -> [PinRow] {
    try pins().filter { $0.endNanoseconds >= now }
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

/// A block of a run, and until when it and those before it live at least.
package struct DeadlineRecord: Sendable, Equatable {
  package var position: UInt32
  /// Unix time in nanoseconds; `.max` = never.
  package var deadline: UInt64
}

/// The deadlines of a run's blocks.
package struct RunDeadlines: Sendable {
  /// By position; only the first at or behind a block counts.
  var records: [DeadlineRecord]
  var pins: [DeadlineRecord]

  package func deadline(at position: UInt32) -> UInt64 {
    let own = records.first { $0.position >= position }?.deadline ?? 0
    return pins.reduce(own) { $1.position >= position ? max($0, $1.deadline) : $0 }
  }
}

/// A prefix that stays until a time, whoever opens the store.
package struct PinRow: Sendable, Equatable {
  package var id: UInt64
  package var namespace: NamespaceID
  package var owner: OwnerID
  /// Unix time; exactly then it still holds.
  package var endNanoseconds: UInt64
  /// Where the path of its last block leaves each run, the last first.
  package var path: [BlockPosition]

  init?(id: UInt64, _ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let namespace = reader.read(UInt32.self), let owner = reader.read(UInt32.self),
      let end = reader.read(UInt64.self), let count = reader.read(UInt32.self)
    else { return nil }
    self.id = id
    self.namespace = NamespaceID(rawValue: namespace)
    self.owner = OwnerID(rawValue: owner)
    endNanoseconds = end
    path = []
    for _ in 0..<count {
      guard let run = reader.read(UInt64.self), let position = reader.read(UInt32.self) else {
        return nil
      }
      path.append(BlockPosition(run: RunID(rawValue: run), position: position))
    }
  }

  init(
    id: UInt64,
    namespace: NamespaceID,
    owner: OwnerID,
    endNanoseconds: UInt64,
    path: [BlockPosition]
  ) {
    self.id = id
    self.namespace = namespace
    self.owner = owner
    self.endNanoseconds = endNanoseconds
    self.path = path
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 20 + 12 * path.count)
    writer.append(namespace.rawValue)
    writer.append(owner.rawValue)
    writer.append(endNanoseconds)
    writer.append(UInt32(path.count))
    for at in path {
      writer.append(at.run.rawValue)
      writer.append(at.position)
    }
    return writer.bytes
  }
}

/// An entry of `expiries`: what ends when, soonest first.
struct Expiry: Equatable {
  enum Kind: UInt8, CaseIterable {
    /// A block row says so itself.
    case absolute = 0
    /// A record of `deadlines`.
    case idle = 1
  }

  var kind: Kind
  var deadline: UInt64
  var namespace: NamespaceID
  var at: BlockPosition

  init(_ kind: Kind, _ deadline: UInt64, _ namespace: NamespaceID, _ at: BlockPosition) {
    self.kind = kind
    self.deadline = deadline
    self.namespace = namespace
    self.at = at
  }

  init?(_ key: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(key)
    guard let kind = reader.read(UInt8.self).flatMap({ Kind(rawValue: $0) }),
      let deadline = reader.read(UInt64.self), let namespace = reader.read(UInt32.self),
      let run = reader.read(UInt64.self), let position = reader.read(UInt32.self)
    else { return nil }
    self.kind = kind
    self.deadline = deadline.byteSwapped
    self.namespace = NamespaceID(rawValue: namespace.byteSwapped)
    at = BlockPosition(run: RunID(rawValue: run.byteSwapped), position: position.byteSwapped)
  }

  /// The first that may end at this time.
  static func first(_ kind: Kind, _ deadline: UInt64) -> TableKey {
    TableKey.expiry(
      Expiry(
        kind,
        deadline,
        NamespaceID(rawValue: 0),
        BlockPosition(run: .root, position: 0)
      )
    )
  }
}
