import KVCatalog
import KVCore

/// What bytes mean to the fuzzer of catalog rows: hostile rows first, then calls.
struct CatalogProgram {
  let bytes: [UInt8]
  private var offset = 0

  init(bytes: [UInt8]) { self.bytes = bytes }

  private mutating func next() -> UInt8 {
    guard offset < bytes.count else { return 0 }
    defer { offset += 1 }
    return bytes[offset]
  }

  private mutating func next(_ count: Int) -> [UInt8] { (0..<count).map { _ in next() } }

  private mutating func word() -> UInt32 {
    next(4).reversed().reduce(0) { $0 << 8 | UInt32($1) }
  }

  mutating func run(
    _ transaction: WriteTransaction,
    _ rows: [[(key: [UInt8], value: [UInt8])]]
  ) {
    let rowCount = Int(next() % 5)
    for _ in 0..<rowCount { putRow(transaction, rows) }
    Self.read(transaction)
    let callCount = Int(next() % 6)
    for _ in 0..<callCount {
      // Refusals are answers.
      _ = try? call(transaction)
    }
    Self.read(transaction)
  }

  /// A row of the catalog with some bytes replaced, under its own key or another one; or any row at all.
  private mutating func putRow(
    _ transaction: WriteTransaction,
    _ rows: [[(key: [UInt8], value: [UInt8])]]
  ) {
    let table = Int(next()) % rows.count
    let way = next()
    var key: [UInt8]
    var body: [UInt8]
    if way & 1 == 0, let row = element(rows[table]) {
      key = row.key
      body = table == 0 ? row.value : Array(row.value.dropFirst(8))
      let changeCount = Int(next() % 8)
      for _ in 0..<changeCount where !body.isEmpty {
        change(&body)
      }
      if way & 2 != 0, !key.isEmpty { key[Int(next()) % key.count] = next() }
      if way & 4 != 0 { body = Array(body.prefix(Int(next()))) }
      if way & 8 != 0 { body += next(Int(next() % 32)) }
    } else {
      key = next(Int(next() % 25))
      body = next(Int(next() % 96))
    }
    // Keys that are none are refused.
    try? transaction.putRawRow(ofTable: table, key: key, body: body)
  }

  /// One byte, or an integer of 4 or 8 bytes that is as large or as small as it can be.
  private mutating func change(_ body: inout [UInt8]) {
    let index = Int(next()) % body.count
    let way = next()
    switch way {
    case 0..<128: body[index] = next()
    default:
      let byteCount = way & 1 == 0 ? 4 : 8
      let value: UInt8 = way & 2 == 0 ? 0xFF : 0
      for offset in index..<min(index + byteCount, body.count) { body[offset] = value }
      // Just below the largest: what is added one to next.
      if way & 4 != 0, index < body.count { body[index] = 0xFE }
    }
  }

  private mutating func element<T>(_ list: [T]) -> T? {
    list.isEmpty ? nil : list[Int(next()) % list.count]
  }

  private mutating func position() -> BlockPosition {
    let run = RunID(rawValue: UInt64(next() % 8))
    let near = next()
    return BlockPosition(run: run, position: near < 200 ? UInt32(near % 8) : word())
  }

  private mutating func call(_ transaction: WriteTransaction) throws(CatalogError) {
    let namespace = NamespaceID(rawValue: UInt32(next() % 4))
    switch next() % 16 {
    case 0:
      _ = try CatalogSample.publish(
        transaction,
        namespace,
        word: UInt32(next()),
        parent: position(),
        slot: nil
      )
    case 1:
      let slots = try transaction.reserveSlots(
        tier: .disk,
        slotByteCount: 8192,
        count: Int(next() % 40),
        owner: CatalogSample.owner
      )
      _ = try CatalogSample.publish(
        transaction,
        namespace,
        word: UInt32(next()),
        parent: position(),
        slot: slots.first
      )
    case 2: _ = try transaction.touch(namespace, pathEnd: position())
    case 3: _ = try transaction.evict(pool: nil, blockCount: Int(next() % 16))
    case 4: _ = try transaction.removeSubtree(namespace, at: position(), reason: .forgotten)
    case 5: _ = try transaction.removeNamespaceBlocks(namespace, reason: .forgotten)
    case 6:
      let removed = try transaction.removeLastBlocks(namespace, reason: .forgotten, blockCount: 4)
      try transaction.holdForErasing(removed.freedSlots)
    case 7: try transaction.slotsErased(try transaction.slotsToErase(limit: 4))
    case 8:
      guard let excess = try transaction.quotaExcess(namespace) else { return }
      _ = try transaction.evict(
        pools: [excess.pool],
        blockCount: excess.blockCount,
        reason: .quota
      ) { _, _, _ in false }
    case 9:
      var limits = NamespaceLimits()
      limits.quotaBytes = UInt64(next()) << (next() % 56)
      _ = try transaction.setLimits(namespace, limits)
    case 10: _ = try transaction.freeReservations(ofOwner: CatalogSample.owner)
    case 11: _ = try transaction.removeSlotFile(tier: .disk, file: UInt32(next() % 4))
    case 12:
      _ = transaction.nextOwner()
      let session = SessionRow(
        id: 2,
        namespace: namespace,
        createdNanoseconds: 2_000,
        name: []
      )
      try transaction.putSession(session, steps: [4, .max].map(CatalogSample.step))
    case 13: _ = transaction.reserveGenerations(Int(next()))
    case 14:
      _ = try transaction.createNamespace(
        NamespaceRow(
          rootKey: BlockKey(high: 0, low: UInt64(next() % 4)),
          identityRecord: [next()],
          slotByteCount: 4096,
          headerByteCount: 4096,
          wordsPerBlock: 1
        )
      )
    default:
      _ = try transaction.createSlotFile(tier: .disk, slotByteCount: 4096, slotCount: 8)
    }
  }

  // MARK: Everything that reads

  private static func read(_ transaction: WriteTransaction) {
    try? readStore(transaction)
    for namespace in UInt32(0)..<4 {
      try? readBlocks(transaction, NamespaceID(rawValue: namespace))
    }
    var audit = CatalogAudit(findingCountMax: 20, checksContents: true)
    var stepCount = 0
    while stepCount < 200, (try? transaction.auditStep(&audit, rowCountMax: 100)) == true {
      stepCount += 1
    }
    if stepCount == 200 { fatalError("an audit without an end") }
    FuzzTarget.keep(audit.rowCount)
  }

  private static func readStore(_ transaction: WriteTransaction) throws(CatalogError) {
    var sum = 0
    for row in (try? transaction.namespaces()) ?? [] { sum ^= Int(row.pool) }
    sum ^= (try? transaction.lastCommittedNanoseconds()).map { Int(truncatingIfNeeded: $0) } ?? 0
    for file in (try? transaction.slotFiles()) ?? [] {
      sum ^= (try? transaction.usedSlots(file.tier, file.file))?.count ?? 0
    }
    sum ^= (try? transaction.reservations())?.count ?? 0
    sum ^= (try? transaction.ownersWithReservations())?.count ?? 0
    sum ^= (try? transaction.slotsToErase(limit: 8))?.count ?? 0
    let sequences = try? transaction.eventSequences()
    sum ^= (try? transaction.events(after: sequences?.lowerBound ?? 0, limit: 100))?.count ?? 0
    for pool in [0, 2, 1 << 31 | 1] as [UInt32] {
      try? transaction.forEachStamp(pool: pool) { row in
        sum ^= Int(row.end.position)
        return true
      }
    }
    for id in (try? transaction.sessionIDs()) ?? [] {
      sum ^= (try? transaction.session(id))?.name.count ?? 0
      try? transaction.forEachSessionStep(id, from: 1) { step in
        sum ^= Int(step.tokenCount)
        return true
      }
    }
    FuzzTarget.keep(sum)
  }

  private static func readBlocks(
    _ transaction: WriteTransaction,
    _ namespace: NamespaceID
  ) throws(CatalogError) {
    var sum = 0
    sum ^=
      (try? transaction.accounting(namespace)).map { Int(truncatingIfNeeded: $0.blockCount) }
      ?? 0
    for word in UInt32(100)..<108 {
      sum ^= (try? transaction.find(namespace, CatalogSample.key(word)))?.hashValue ?? 0
    }
    for run in UInt64(0)..<8 {
      let run = RunID(rawValue: run)
      try? transaction.forEachRow(namespace, run, from: 0) { position, row in
        guard let row else { return true }
        unsafe sum ^= row.words.count ^ row.extra.count ^ row.places.count
        return position < 100
      }
      sum ^= (try? transaction.lastPosition(namespace, run)).flatMap { $0.map { Int($0) } } ?? 0
      for position in UInt32(0)..<3 {
        let at = BlockPosition(run: run, position: position)
        sum ^= (try? transaction.children(namespace, at))?.count ?? 0
        sum ^= (try? transaction.parent(namespace, at))?.hashValue ?? 0
        sum ^= (try? transaction.row(namespace, at))?.words.count ?? 0
        sum ^= (try? transaction.stamp(namespace, at)).flatMap { $0.map { $0.hashValue } } ?? 0
        sum ^= (try? transaction.inlinePayload(namespace, at) { $0.count }) ?? 0
      }
    }
    FuzzTarget.keep(sum)
  }
}
