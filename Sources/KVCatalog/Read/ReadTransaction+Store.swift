package import KVCore

/// Reads of everything but blocks.
extension ReadTransaction {
  // MARK: Namespaces

  /// A namespace by its id.
  package func namespace(_ id: NamespaceID) throws(CatalogError) -> NamespaceRow? {
    guard let value = unsafe try getChecked(.namespaces, .namespace(id, kind: .namespace)) else {
      return nil
    }
    guard let namespace = unsafe NewNamespace(value) else { throw .corrupt(.namespace) }
    return NamespaceRow(id: id, namespace: namespace)
  }

  /// All namespaces, by id.
  package func namespaces() throws(CatalogError) -> [NamespaceRow] {
    var rows: [NamespaceRow] = []
    for id in try namespaceIDs() {
      if let row = try namespace(id) { rows.append(row) }
    }
    return rows
  }

  /// The numbers of all namespaces.
  package func namespaceIDs() throws(CatalogError) -> [NamespaceID] {
    var ids: [NamespaceID] = []
    var cursor = try cursor(.namespaces)
    var isThere = try cursor.first()
    while isThere {
      var reader = unsafe ByteReader(cursor.key)
      if let id = reader.read(UInt32.self), reader.read(UInt8.self) == 0 {
        ids.append(NamespaceID(rawValue: id.byteSwapped))
      }
      isThere = try cursor.next()
    }
    return ids
  }

  /// The namespace with this root key.
  ///
  /// The identity record has still to be compared.
  package func namespaceID(rootKey: BlockKey) throws(CatalogError) -> NamespaceID? {
    guard let target = try keyTarget(.ofRootKeys, rootKey),
      let id = UInt32(exactly: target.run.rawValue)
    else { return nil }
    return NamespaceID(rawValue: id)
  }

  /// What a namespace holds.
  package func accounting(_ id: NamespaceID) throws(CatalogError) -> Accounting {
    try settle()
    return try storedAccounting(id)
  }

  func storedAccounting(_ id: NamespaceID) throws(CatalogError) -> Accounting {
    var accounting = Accounting()
    guard let value = unsafe try getChecked(.namespaces, .namespace(id, kind: .accounting)) else {
      return accounting
    }
    var reader = unsafe ByteReader(value)
    guard let blockCount = reader.read(UInt64.self), let payload = reader.read(UInt64.self),
      let stored = reader.read(UInt64.self),
      // More than any disk holds is damage, and adding to it would trap.
      max(blockCount, payload, stored) < 1 << 62
    else { throw .corrupt(.namespace) }
    accounting.blockCount = blockCount
    accounting.payloadByteCount = payload
    accounting.storedByteCount = stored
    return accounting
  }

  // MARK: Store

  /// Whether the last process closed cleanly.
  package func isClean() throws(CatalogError) -> Bool {
    guard let value = unsafe try getChecked(.meta, .meta(.clean)) else { return false }
    return unsafe value.first == 1
  }

  /// The latest time that a commit carried, in Unix nanoseconds.
  package func lastCommittedNanoseconds() throws(CatalogError) -> UInt64 {
    guard let value = unsafe try getChecked(.meta, .meta(.clock)) else { return 0 }
    var reader = unsafe ByteReader(value)
    guard let time = reader.read(UInt64.self), time < 1 << 63 else { throw .corrupt(.meta) }
    return time
  }

  // MARK: Slot files

  /// All slot files, by tier and number.
  package func slotFiles() throws(CatalogError) -> [SlotFileRow] {
    try settle()
    return try storedSlotFiles()
  }

  func storedSlotFiles() throws(CatalogError) -> [SlotFileRow] {
    var files: [SlotFileRow] = []
    for key in try slotKeys() where key.owner == .file {
      guard let value = unsafe try get(.slots, .slots(key.tier, key.file, .file)) else { continue }
      // The bitmap may be long, so the checksum is left to who reads it.
      var reader = unsafe ByteReader(value, offset: 8)
      guard let slotByteCount = reader.read(UInt32.self), let slotCount = reader.read(UInt32.self),
        let usedCount = reader.read(UInt32.self), let state = reader.read(UInt32.self),
        // More than any disk holds is damage, and adding such sizes up would trap.
        UInt64(slotByteCount) * UInt64(slotCount) < 1 << 48
      else { throw .corrupt(.slotFile) }
      files.append(
        SlotFileRow(
          tier: key.tier,
          file: key.file,
          slotByteCount: slotByteCount,
          slotCount: slotCount,
          usedCount: usedCount,
          state: state
        )
      )
    }
    return files
  }

  /// The used slots of a slot file, those reserved included; nil when there is no such file.
  package func usedSlots(_ tier: Tier, _ file: UInt32) throws(CatalogError) -> [UInt32]? {
    try settle()
    guard let value = unsafe try getChecked(.slots, .slots(tier, file, .file)) else { return nil }
    return unsafe SlotBitmap(UnsafeRawBufferPointer(rebasing: value.dropFirst(16))).slots
  }

  /// All reservations, by slot file and owner.
  package func reservations() throws(CatalogError) -> [ReservationRow] {
    try settle()
    var rows: [ReservationRow] = []
    for key in try slotKeys() where key.owner != .file {
      guard
        let value = unsafe try getChecked(.slots, .slots(key.tier, key.file, key.owner))
      else { continue }
      let slots = unsafe SlotBitmap(value).slots
      rows.append(
        ReservationRow(
          owner: key.owner,
          slots: slots.map { SlotAddress(tier: key.tier, file: key.file, slot: $0) }
        )
      )
    }
    return rows
  }

  /// The processes that hold slots reserved.
  package func ownersWithReservations() throws(CatalogError) -> Set<OwnerID> {
    try settle()
    return Set(try slotKeys().map(\.owner)).subtracting([.file, .eraser])
  }

  func slotKeys() throws(CatalogError) -> [SlotRowKey] {
    var keys: [SlotRowKey] = []
    var cursor = try cursor(.slots)
    var isThere = try cursor.first()
    while isThere {
      var reader = unsafe ByteReader(cursor.key)
      if let tier = reader.read(UInt8.self).flatMap({ Tier(rawValue: $0) }),
        let file = reader.read(UInt32.self), let owner = reader.read(UInt32.self)
      {
        keys.append(
          SlotRowKey(
            tier: tier,
            file: file.byteSwapped,
            owner: OwnerID(rawValue: owner.byteSwapped)
          )
        )
      }
      isThere = try cursor.next()
    }
    return keys
  }

  // MARK: Events and stamps

  /// The events after a sequence number, oldest first.
  package func events(
    after sequence: UInt64,
    limit: Int = .max
  ) throws(CatalogError) -> [CatalogEvent] {
    try settle()
    var events: [CatalogEvent] = []
    var cursor = try cursor(.events)
    guard sequence < .max else { return [] }
    var isThere = try cursor.seek(.event(sequence + 1))
    while isThere, events.count < limit {
      let body = unsafe try cursor.checkedBody(.events)
      guard let found = cursor.eventSequence, let event = unsafe CatalogEvent(found, body) else {
        throw .corrupt(.event)
      }
      events.append(event)
      isThere = try cursor.next()
    }
    return events
  }

  /// The oldest and the newest event that are kept; nil when there is none.
  ///
  /// A reader whose next sequence number is below the oldest was lapped.
  package func eventSequences() throws(CatalogError) -> ClosedRange<UInt64>? {
    try settle()
    var cursor = try cursor(.events)
    guard try cursor.first(), let oldest = cursor.eventSequence, try cursor.last(),
      let newest = cursor.eventSequence, oldest <= newest
    else { return nil }
    return oldest...newest
  }

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
      guard let key = cursor.stampKey, key.pool == pool else { return }
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

/// A key of `slots`.
struct SlotRowKey: Hashable {
  var tier: Tier
  var file: UInt32
  var owner: OwnerID
}

extension TableCursor {
  var eventSequence: UInt64? {
    var reader = unsafe ByteReader(key)
    return reader.read(UInt64.self)?.byteSwapped
  }

  var stampKey: (pool: UInt32, order: StampOrder)? {
    var reader = unsafe ByteReader(key)
    guard let pool = reader.read(UInt32.self), let priority = reader.read(UInt8.self),
      let stamp = reader.read(UInt64.self)
    else { return nil }
    return (pool.byteSwapped, StampOrder(priority: priority, stamp: stamp.byteSwapped))
  }
}

extension StampOrder {
  /// The value of an `ends` row.
  init?(_ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let stamp = reader.read(UInt64.self), let priority = reader.read(UInt8.self) else {
      return nil
    }
    self.init(priority: priority, stamp: stamp)
  }
}

extension StampRow {
  init?(pool: UInt32, order: StampOrder, _ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let namespace = reader.read(UInt32.self), let run = reader.read(UInt64.self),
      let position = reader.read(UInt32.self)
    else { return nil }
    self.init(
      pool: pool,
      order: order,
      namespace: NamespaceID(rawValue: namespace),
      end: BlockPosition(run: RunID(rawValue: run), position: position)
    )
  }
}

extension CatalogEvent {
  init?(_ sequence: UInt64, _ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let kind = reader.read(UInt8.self).flatMap({ Kind(rawValue: $0) }),
      let reason = reader.read(UInt8.self).flatMap({ RemovalReason(rawValue: $0) }),
      let tier = reader.read(UInt8.self).flatMap({ Tier(rawValue: $0) }), reader.skip(1),
      let namespace = reader.read(UInt32.self), let run = reader.read(UInt64.self),
      let firstPosition = reader.read(UInt32.self), let blockCount = reader.read(UInt32.self),
      let time = reader.read(UInt64.self), let owner = reader.read(UInt32.self)
    else { return nil }
    self.init(
      sequence: sequence,
      kind: kind,
      reason: reason,
      tier: tier,
      namespace: NamespaceID(rawValue: namespace),
      run: RunID(rawValue: run),
      firstPosition: firstPosition,
      blockCount: blockCount,
      timeNanoseconds: time,
      owner: OwnerID(rawValue: owner),
      topKey: reader.skip(4) ? reader.readKey() : nil
    )
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 56)
    writer.append(kind.rawValue)
    writer.append(reason.rawValue)
    writer.append(tier.rawValue)
    writer.append(UInt8(0))
    writer.append(namespace.rawValue)
    writer.append(run.rawValue)
    writer.append(firstPosition)
    writer.append(blockCount)
    writer.append(timeNanoseconds)
    writer.append(owner.rawValue)
    writer.append(UInt32(0))
    if let topKey { writer.append(topKey) }
    return writer.bytes
  }
}

extension NewNamespace {
  /// From what follows the checksum; nil when it is too short.
  init?(_ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let slotByteCount = reader.read(UInt32.self),
      let headerByteCount = reader.read(UInt32.self), let wordsPerBlock = reader.read(UInt32.self),
      let flags = reader.read(UInt32.self), let quotaBytes = reader.read(UInt64.self),
      let defaultTTLNanoseconds = reader.read(UInt64.self), let rootKey = reader.readKey(),
      let recordByteCount = reader.read(UInt32.self),
      let identityRecord = reader.readBytes(Int(recordByteCount))
    else { return nil }
    self.init(
      rootKey: rootKey,
      identityRecord: identityRecord,
      slotByteCount: slotByteCount,
      headerByteCount: headerByteCount,
      wordsPerBlock: wordsPerBlock,
      flags: flags,
      quotaBytes: quotaBytes,
      defaultTTLNanoseconds: defaultTTLNanoseconds
    )
  }
}
