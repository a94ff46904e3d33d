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
  var namespaceRows: [NamespaceID: NamespaceRow] = [:]
  var accountings: [NamespaceID: Accounting] = [:]
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
  /// nil = nobody asks for them; complete once the transaction has ended.
  package var stampChanges: [StampChange]?
  /// Whether the events of removals carry the key of their top block.
  var namesRemovedBlocks = true
  /// Pins by the runs of their paths; nil = not gone through yet.
  var pinsByRun: [RunKey: [UInt64]]?
  /// Last positions of runs; emptied by removals.
  var lastPositions: [RunKey: UInt32] = [:]
  /// What the process knows of namespaces of side sections, and which of them this transaction looked up.
  var sectionNamespaces: SectionNamespaces
  var sectionsAreComplete = false
  var sectionsByOwner: [NamespaceID: [SectionNamespace]] = [:]
  /// Those that this transaction removed.
  package internal(set) var removedNamespaces: Set<NamespaceID> = []
  /// Of runs, from their first block on.
  var prefixDigests: [RunKey: [PrefixDigest]] = [:]
  /// The keys of the blocks that were removed; nil = nobody asks for them.
  package var removedKeys: [NamespaceID: Set<BlockKey>]?
  /// Blocks that an eviction leaves; nil = the removal spares nothing.
  package var heldBlocks: ProtectedBlocks?

  init(
    handle: OpaquePointer,
    tables: [MDB_dbi],
    timeNanoseconds: UInt64 = 0,
    owner: OwnerID = OwnerID(rawValue: 0),
    mapByteCount: Int = 0,
    eventCountMax: UInt64 = 65_536,
    slotHints: [SlotClass: SlotHint] = [:],
    sectionNamespaces: SectionNamespaces = SectionNamespaces()
  ) {
    self.timeNanoseconds = timeNanoseconds
    self.owner = owner
    self.mapByteCount = mapByteCount
    self.eventCountMax = eventCountMax
    self.slotHints = slotHints
    self.sectionNamespaces = sectionNamespaces
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
    let checksumByteCount = table == .keys ? 0 : rowChecksumByteCount
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
    let clock = try clock()
    storedTime = clock.committed
    idleSuspension = clock.idleSuspension
  }

  override func settle() throws(CatalogError) {
    try settleStamps()
    try settleDeadlines()
    try settleSlots()
    try settleEvents()
    for (id, accounting) in accountings {
      try put(.namespaces, .namespace(id, kind: .accounting), accounting.encoded)
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
    let clock = ClockRow(committed: storedTime, idleSuspension: idleSuspension)
    try put(.meta, .meta(.clock), clock.encoded)
  }

  // MARK: Store and owners

  func createMeta(_ meta: StoreMeta) throws(CatalogError) {
    guard meta.storeUUID.count == 16, meta.saltKey.count == 32 else { throw .invalidArgument }
    try put(.meta, .meta(.format), FormatRow(version: Catalog.formatVersion).encoded)
    try put(.meta, .meta(.store), meta.storeRow)
    try putConfig(meta)
    try put(.meta, .meta(.counters), counters.encoded)
    try setClean()
  }

  /// What was decided about sizes.
  func putConfig(_ meta: StoreMeta) throws(CatalogError) {
    try put(.meta, .meta(.config), meta.configRow)
  }

  /// The mark of a clean close: nobody has the store open.
  package func setClean() throws(CatalogError) { try putOpenCount(0) }

  /// Counts a process that opens the store beside `others` that live.
  ///
  /// Those that died before they closed stay counted until somebody opens the store alone.
  package func noteOpened(beside others: Int) throws(CatalogError) {
    try putOpenCount(others == 0 ? 1 : (try openCount() ?? UInt32(clamping: others)) &+ 1)
  }

  /// Counts off a process that closes it; the store is clean when none is left that has not.
  package func noteClosed() throws(CatalogError) {
    let count = try openCount() ?? 1
    try putOpenCount(count > 0 ? count - 1 : 0)
  }

  /// nil: a process of a version that did not count has opened it.
  private func openCount() throws(CatalogError) -> UInt32? {
    guard let value = unsafe try getChecked(.meta, .meta(.clean)) else { return nil }
    var reader = unsafe ByteReader(value)
    let isClean = reader.read(UInt8.self) == 1
    return reader.read(UInt32.self) ?? (isClean ? 0 : nil)
  }

  private func putOpenCount(_ count: UInt32) throws(CatalogError) {
    var mark = ByteWriter()
    mark.append(UInt8(count == 0 ? 1 : 0))
    mark.append(count)
    try put(.meta, .meta(.clean), mark.bytes)
  }

  /// The stamp that the next use gets.
  package var useCounter: UInt64 { counters.stamp }

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

  func putKey(
    _ namespace: NamespaceID,
    _ blockKey: BlockKey,
    _ target: BlockPosition
  ) throws(CatalogError) {
    let byteCount = BlockPosition.byteCount
    unsafe try put(.keys, .blockKey(namespace, blockKey), bodyByteCount: byteCount) { body in
      var writer = unsafe RawWriter(body)
      writer.write(target)
    }
  }
}

/// A run of a namespace.
struct RunKey: Hashable {
  var namespace: NamespaceID
  var run: RunID
}
