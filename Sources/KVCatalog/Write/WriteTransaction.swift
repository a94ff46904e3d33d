internal import CLMDB
package import KVCore

/// The one writer's transaction: all the reads, and what changes the catalog.
///
/// Counters, accounting, bitmaps, stamps and events gather in memory and go into the tables once, at the end or when
/// a read needs them (`settle`).
@safe package final class WriteTransaction: ReadTransaction {
  let timeNanoseconds: UInt64
  let owner: OwnerID
  /// Bytes that the catalog may grow to.
  let mapByteCount: Int
  let eventCountMax: UInt64
  var counters = Counters()
  var slotHints: [SlotClass: SlotHint]

  private var storedCounters = Counters()
  private var storedTime: UInt64 = 0
  private(set) var isChanged = false
  private var namespaceRows: [NamespaceID: NamespaceRow] = [:]
  private var accountings: [NamespaceID: Accounting] = [:]
  var slotFileStates: [SlotFileKey: SlotFileState] = [:]
  var reservationStates: [SlotRowKey: SlotBitmap] = [:]
  var changedReservations: Set<SlotRowKey> = []
  /// The newest stamps, not yet in `stamps` and `ends`.
  var pendingStamps: [PathEnd: UInt64] = [:]
  /// Idle deadlines, not yet in `deadlines` and `expiries`.
  var pendingDeadlines: [PathEnd: UInt64] = [:]
  /// `ReadTransaction.idleSuspendedBefore`.
  var idleSuspension: UInt64 = 0
  var pendingEvents: [CatalogEvent] = []
  /// nil = victims are chosen by recency.
  package var victimOrder: (any VictimOrder)?
  /// Whether the events of removals carry the key of their top block.
  var namesRemovedBlocks = true
  /// Last positions of runs; emptied by removals.
  var lastPositions: [RunKey: UInt32] = [:]

  init(
    handle: OpaquePointer,
    tables: [MDB_dbi],
    timeNanoseconds: UInt64 = 0,
    owner: OwnerID = OwnerID(rawValue: 0),
    mapByteCount: Int = 0,
    eventCountMax: UInt64 = 65_536,
    slotHints: [SlotClass: SlotHint] = [:]
  ) {
    self.timeNanoseconds = timeNanoseconds
    self.owner = owner
    self.mapByteCount = mapByteCount
    self.eventCountMax = eventCountMax
    self.slotHints = slotHints
    unsafe super.init(handle: handle, tables: tables)
  }

  // MARK: Writing rows

  /// Writes a row: `fill` writes what follows the checksum into LMDB's own page.
  ///
  /// It must not use the transaction.
  func put(
    _ table: Table,
    _ key: TableKey,
    bodyByteCount: Int,
    _ fill: (UnsafeMutableRawBufferPointer) -> Void
  ) throws(CatalogError) {
    let handle = unsafe try liveHandle()
    isChanged = true
    let checksumByteCount = table == .keys ? 0 : 8
    let code = unsafe key.withBytes { keyBytes in
      var keyValue = unsafe MDB_val(keyBytes)
      var value = unsafe MDB_val(
        mv_size: checksumByteCount + bodyByteCount,
        mv_data: nil
      )
      let code = unsafe mdb_put(
        handle,
        identifier(of: table),
        &keyValue,
        &value,
        UInt32(MDB_RESERVE)
      )
      guard code == MDB_SUCCESS, let start = unsafe value.mv_data else { return code }
      let body = unsafe UnsafeMutableRawBufferPointer(
        start: start + checksumByteCount,
        count: bodyByteCount
      )
      unsafe fill(body)
      if table != .keys {
        let checksum = rowChecksum(
          table,
          key: keyBytes,
          body: UnsafeRawBufferPointer(body)
        )
        unsafe start.storeBytes(of: checksum.littleEndian, as: UInt64.self)
      }
      return code
    }
    try check(code)
  }

  func put(_ table: Table, _ key: TableKey, _ body: [UInt8]) throws(CatalogError) {
    unsafe try put(table, key, bodyByteCount: body.count) { buffer in
      unsafe buffer.copyBytes(from: body)
    }
  }

  /// Returns whether the row was there.
  @discardableResult
  func delete(_ table: Table, _ key: TableKey) throws(CatalogError) -> Bool {
    let handle = unsafe try liveHandle()
    let code = unsafe key.withBytes { bytes in
      var keyValue = unsafe MDB_val(bytes)
      return unsafe mdb_del(handle, identifier(of: table), &keyValue, nil)
    }
    if code == MDB_NOTFOUND { return false }
    try check(code)
    isChanged = true
    return true
  }

  // MARK: What gathers in memory

  func loadCounters() throws(CatalogError) {
    guard let value = unsafe try getChecked(.meta, .meta(.counters)),
      let counters = unsafe Counters(value)
    else { throw .corrupt(.meta) }
    self.counters = counters
    storedCounters = counters
    storedTime = try lastCommittedNanoseconds()
    idleSuspension = try idleSuspendedBefore()
  }

  override func settle() throws(CatalogError) {
    try settleStamps()
    try settleDeadlines()
    try settleSlots()
    try settleEvents()
    for (id, accounting) in accountings {
      var writer = ByteWriter(capacity: 24)
      writer.append(accounting.blockCount)
      writer.append(accounting.payloadByteCount)
      writer.append(accounting.storedByteCount)
      try put(.namespaces, .namespace(id, kind: .accounting), writer.bytes)
    }
    accountings = [:]
    if counters != storedCounters {
      try put(.meta, .meta(.counters), counters.encoded)
      storedCounters = counters
    }
    // Only along with another change: an idle store does not write.
    if isChanged, timeNanoseconds > storedTime { try putClock(timeNanoseconds) }
  }

  func putClock(_ time: UInt64) throws(CatalogError) {
    storedTime = max(time, storedTime)
    var writer = ByteWriter()
    writer.append(storedTime)
    writer.append(idleSuspension)
    try put(.meta, .meta(.clock), writer.bytes)
  }

  func changeAccounting(
    _ id: NamespaceID,
    _ change: (inout Accounting) -> Void
  ) throws(CatalogError) {
    var accounting: Accounting
    if let pending = accountings[id] {
      accounting = pending
    } else {
      accounting = try storedAccounting(id)
    }
    change(&accounting)
    accountings[id] = accounting
  }

  func putNamespace(_ row: NamespaceRow) throws(CatalogError) {
    let new = row.namespace
    var writer = ByteWriter(capacity: 64 + new.identityRecord.count)
    writer.append(new.slotByteCount)
    writer.append(new.headerByteCount)
    writer.append(new.wordsPerBlock)
    writer.append(new.flags)
    writer.append(new.quotaBytes)
    writer.append(new.defaultTTLNanoseconds)
    writer.append(new.rootKey)
    writer.append(UInt32(new.identityRecord.count))
    writer.append(contentsOf: new.identityRecord)
    try put(.namespaces, .namespace(row.id, kind: .namespace), writer.bytes)
    namespaceRows[row.id] = row
  }

  /// Notes in the namespace's row what holds for its blocks from now on.
  func noteFact(_ fact: NamespaceFlags, of id: NamespaceID) throws(CatalogError) {
    guard var row = try cachedNamespace(id), !row.facts.contains(fact) else { return }
    row.namespace.flags = row.facts.union(fact).rawValue
    try putNamespace(row)
  }

  func cachedNamespace(_ id: NamespaceID) throws(CatalogError) -> NamespaceRow? {
    if let row = namespaceRows[id] { return row }
    let row = try namespace(id)
    namespaceRows[id] = row
    return row
  }

  // MARK: Store, owners, namespaces

  func createMeta(_ meta: StoreMeta) throws(CatalogError) {
    guard meta.storeUUID.count == 16, meta.saltKey.count == 32 else { throw .invalidArgument }
    var format = ByteWriter()
    format.append(Catalog.formatVersion)
    for _ in 0..<3 { format.append(UInt32(0)) }
    var store = ByteWriter()
    store.append(contentsOf: meta.storeUUID)
    store.append(meta.createdNanoseconds)
    store.append(contentsOf: meta.saltKey)
    try put(.meta, .meta(.format), format.bytes)
    try put(.meta, .meta(.store), store.bytes)
    try putConfig(meta)
    try put(.meta, .meta(.counters), counters.encoded)
    try setClean(true)
  }

  /// What was decided about sizes.
  func putConfig(_ meta: StoreMeta) throws(CatalogError) {
    var config = ByteWriter()
    config.append(meta.capacityBytes)
    config.append(meta.catalogBytes)
    config.append(meta.inlinePayloadBytesMax)
    config.append(meta.slotFileBytes)
    try put(.meta, .meta(.config), config.bytes)
  }

  /// The mark of a clean close.
  package func setClean(_ isClean: Bool) throws(CatalogError) {
    guard try self.isClean() != isClean else { return }
    try put(.meta, .meta(.clean), [isClean ? 1 : 0])
  }

  /// A number for a process that opens the store.
  package func nextOwner() -> OwnerID {
    defer { counters.owner += 1 }
    return OwnerID(rawValue: counters.owner)
  }

  /// The first of `count` generations that nobody else gets.
  package func reserveGenerations(_ count: Int) -> Generation {
    defer { counters.generation += UInt64(max(count, 0)) }
    return Generation(rawValue: counters.generation)
  }

  /// The namespace with this identity, made when it is not there.
  package func createNamespace(_ new: NewNamespace) throws(CatalogError) -> NamespaceID {
    if let id = try namespaceID(rootKey: new.rootKey) {
      guard let row = try namespace(id), row.identityRecord == new.identityRecord else {
        throw .identityCollision
      }
      return id
    }
    guard new.slotByteCount % 4096 == 0, new.slotByteCount == 0 || new.slotByteCount >= 4096 else {
      throw .invalidArgument
    }
    let id = NamespaceID(rawValue: counters.namespace)
    counters.namespace += 1
    try putNamespace(NamespaceRow(id: id, namespace: new))
    try putKey(
      .ofRootKeys,
      new.rootKey,
      BlockPosition(run: RunID(rawValue: UInt64(id.rawValue)), position: 0)
    )
    try changeAccounting(id) { _ in }
    return id
  }

  func putKey(
    _ namespace: NamespaceID,
    _ blockKey: BlockKey,
    _ target: BlockPosition
  ) throws(CatalogError) {
    unsafe try put(.keys, .blockKey(namespace, blockKey), bodyByteCount: 12) { body in
      var writer = unsafe RawWriter(body)
      writer.write(target.run.rawValue)
      writer.write(target.position)
    }
  }

  // MARK: Events

  /// Notes what happened; neighbours become one event.
  func note(_ event: CatalogEvent) {
    if let last = pendingEvents.last, last.kind == event.kind, last.reason == event.reason,
      last.tier == event.tier, last.namespace == event.namespace, last.run == event.run,
      last.owner == event.owner
    {
      let index = pendingEvents.count - 1
      if last.kind == .stored, last.isContinued(by: event) {
        pendingEvents[index].addBlocks(of: event)
        return
      }
      // What leaves goes from the end of its run upwards.
      if last.kind == .removed, event.isContinued(by: last) {
        pendingEvents[index].firstPosition = event.firstPosition
        pendingEvents[index].addBlocks(of: event)
        pendingEvents[index].topKey = event.topKey
        return
      }
    }
    pendingEvents.append(event)
  }

  private func settleEvents() throws(CatalogError) {
    guard !pendingEvents.isEmpty else { return }
    for event in pendingEvents.suffix(Int(clamping: eventCountMax)) {
      try put(.events, .event(counters.event), event.encoded)
      counters.event += 1
    }
    pendingEvents = []
    // The ring: only the oldest are looked at, as many as are too many.
    guard counters.event > eventCountMax else { return }
    var obsolete: [UInt64] = []
    do {
      var cursor = try cursor(.events)
      var isThere = try cursor.first()
      while isThere, let sequence = cursor.eventSequence,
        sequence < counters.event - eventCountMax
      {
        obsolete.append(sequence)
        isThere = try cursor.next()
      }
    }
    for sequence in obsolete { try delete(.events, .event(sequence)) }
  }
}

extension CatalogEvent {
  fileprivate mutating func addBlocks(of other: CatalogEvent) {
    blockCount = UInt32(clamping: Int(blockCount) + Int(other.blockCount))
  }

  fileprivate func isContinued(by next: CatalogEvent) -> Bool {
    UInt64(firstPosition) + UInt64(blockCount) == UInt64(next.firstPosition)
  }
}

/// The numbers that only go up; 0 is never given.
struct Counters: Equatable {
  var run: UInt64 = 1
  var stamp: UInt64 = 1
  var event: UInt64 = 1
  var generation: UInt64 = 1
  var namespace: UInt32 = 1
  var owner: UInt32 = 1
  var slotFile: UInt32 = 1
  var pin: UInt32 = 1

  init() {}

  init?(_ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let run = reader.read(UInt64.self), let stamp = reader.read(UInt64.self),
      let event = reader.read(UInt64.self), let generation = reader.read(UInt64.self),
      let namespace = reader.read(UInt32.self), let owner = reader.read(UInt32.self),
      let slotFile = reader.read(UInt32.self), let pin = reader.read(UInt32.self)
    else { return nil }
    // No store gets that far in its life: it is damage, and adding to it would trap.
    guard max(run, stamp, event, generation) < 1 << 62,
      max(namespace, owner, slotFile, pin) < 1 << 31
    else { return nil }
    self.run = run
    self.stamp = stamp
    self.event = event
    self.generation = generation
    self.namespace = namespace
    self.owner = owner
    self.slotFile = slotFile
    self.pin = pin
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 48)
    writer.append(run)
    writer.append(stamp)
    writer.append(event)
    writer.append(generation)
    writer.append(namespace)
    writer.append(owner)
    writer.append(slotFile)
    writer.append(pin)
    return writer.bytes
  }
}

/// A block as the end of a path.
struct PathEnd: Hashable {
  var namespace: NamespaceID
  var at: BlockPosition
}

/// A run of a namespace.
struct RunKey: Hashable {
  var namespace: NamespaceID
  var run: RunID
}
