internal import KVCatalog
public import KVCore
public import KVStore

/// Reads a store for people and tools: what is committed, in short transactions, beside a live server or at rest.
///
/// Every call is a snapshot of its own and walks at most 1,000 rows in one transaction.
public struct StoreInspector: Sendable {
  let core: StoreCore

  init(core: StoreCore) { self.core = core }

  /// The store as a whole.
  public struct Summary: Sendable {
    /// 32 hexadecimal digits.
    public var storeUUID: String
    /// Unix time, nanoseconds.
    public var createdNanoseconds: UInt64
    /// Version of the file format.
    public var formatVersion: UInt32
    /// Whether all that had it open closed it: since somebody opened it alone, nobody died before.
    public var isClean: Bool
    /// Slot files, by number.
    public var slotFiles: [SlotFile]
    /// Slots that processes hold reserved and have not published.
    public var reservedSlotCount: Int
    /// Numbers of the events that are kept, if any.
    public var events: ClosedRange<UInt64>?
    /// Number of the last commit.
    public var transactionID: UInt64
    /// Processes that have the store open for writing now.
    public var ownerCount: Int
    /// Pins that hold.
    public var pinCount: Int
    /// Bytes that the store was allowed to take when it was made or grown; who opens it may say otherwise.
    public var capacityBytes: UInt64
  }

  /// A preallocated file of equal slots.
  public struct SlotFile: Sendable {
    /// The tier.
    public var tier: Tier
    /// Its number.
    public var file: UInt32
    /// Bytes of a slot.
    public var slotByteCount: Int
    /// Slots in it.
    public var slotCount: Int
    /// Of those, used or reserved.
    public var usedSlotCount: Int
  }

  /// A namespace and what it holds.
  public struct NamespaceSummary: Sendable {
    /// Its number.
    public var id: NamespaceID
    /// Root of its key chain.
    public var rootKey: BlockKey
    /// What its blocks have in common (the salt excepted); nil when the record is damaged.
    public var identity: NamespaceIdentity?
    /// It has a salt.
    public var hasSalt: Bool
    /// The first digits of the salt's digest under the store's own key, which tell the salts of one store apart; nil without one.
    public var saltMark: String?
    /// Bytes of a slot; 0 when payloads lie in the catalog.
    public var slotByteCount: Int
    /// Blocks.
    public var blockCount: Int
    /// Their payload.
    public var payloadByteCount: Int
    /// What that takes as stored.
    public var storedByteCount: Int
    /// What it takes beside its blocks, in the catalog and in `identities.kvs`; it leaves when it is empty and nobody uses it.
    public var overheadByteCount: Int
    /// What it may hold; 0 = no bound of its own.
    public var quotaBytes: UInt64 = 0
    /// What of the quota is used up.
    public var quotaBytesUsed: UInt64 = 0
    /// How long blocks live that are written without a word about it.
    public var timeToLive = TimeToLive.unlimited
  }

  /// Blocks of one chain without a fork.
  public struct Run: Sendable {
    /// Its number.
    public var run: RunID
    /// The block before its first one.
    public var parent: BlockPosition
    /// Runs above it in the tree.
    public var depth: Int
    /// Blocks before its first one in the chain.
    public var firstBlockDepth: Int
    /// Its blocks.
    public var blockCount: Int
    /// Their payload.
    public var payloadByteCount: Int
    /// Key of its first block.
    public var firstBlockKey: BlockKey
    /// Key of its last block.
    public var lastBlockKey: BlockKey
    /// Unix seconds, of its last block.
    public var createdSeconds: UInt32
    /// Rows whose checksum fails.
    public var corruptRowCount: Int
    /// The newest use counter on the run, if it has one: larger is more recent.
    public var stamp: UInt64?
    /// Its leading blocks that a pin keeps.
    public var pinnedBlockCount: Int
    /// Words of its first block.
    public var firstWords: [UInt32] = []
    /// Of its blocks, those whose first place is in the archive tier.
    public var archivedBlockCount = 0
    /// Look-ups that ended in it, or in a run that hung below it and has left; peeks are none.
    public var hitCount: UInt64 = 0
    /// Tokens that these found, from the root on.
    public var hitTokenCount: UInt64 = 0
    /// When the first of its blocks whose life ends comes to its end, pins and ancestors included; nil = none does.
    public var firstEndNanoseconds: UInt64?
    /// When the last of them does.
    public var lastEndNanoseconds: UInt64?
    /// Its blocks whose life does not end.
    public var endlessBlockCount = 0
  }

  /// One block.
  public struct Block: Sendable {
    /// Its key.
    public var blockKey: BlockKey
    /// Run and position.
    public var position: BlockPosition
    /// The block before.
    public var parent: BlockPosition
    /// Token ids, or the digest as words.
    public var words: [UInt32]
    /// Extra bytes.
    public var extra: [UInt8]
    /// Payload bytes.
    public var payloadByteCount: Int
    /// Unix seconds.
    public var createdSeconds: UInt32
    /// When it expires.
    public var expiry: Expiry
    /// Unix nanoseconds until which a pin keeps it; 0 = none does.
    public var pinnedUntilNanoseconds: UInt64
    /// 0 to 100; the lowest leave first.
    public var priority: UInt8
    /// The tier of its first place.
    public var tier: Tier
    /// The payload lies in the catalog.
    public var isInline: Bool
    /// Slot file.
    public var file: UInt32
    /// Slot in it.
    public var slot: UInt32
    /// Generation of the slot's contents.
    public var generation: UInt64
    /// Runs that begin after it.
    public var children: [RunID]
    /// Its use counter, if it is a path end.
    public var stamp: UInt64?
  }

  /// The store as a whole.
  public func summary() throws(StoreError) -> Summary {
    let meta = core.catalog.meta
    let uuid = meta.storeUUID.map { byte in
      String(byte >> 4, radix: 16) + String(byte & 15, radix: 16)
    }.joined()
    var summary = try core.catalogRead { (transaction) throws(CatalogError) in
      Summary(
        storeUUID: uuid,
        createdNanoseconds: meta.createdNanoseconds,
        formatVersion: Catalog.formatVersion,
        isClean: try transaction.isClean(),
        slotFiles: try transaction.slotFiles().map {
          SlotFile(
            tier: $0.tier,
            file: $0.file,
            slotByteCount: Int($0.slotByteCount),
            slotCount: Int($0.slotCount),
            usedSlotCount: Int($0.usedCount)
          )
        },
        reservedSlotCount: try transaction.reservations().reduce(0) { $0 + $1.slots.count },
        events: try transaction.eventSequences(),
        transactionID: 0,
        ownerCount: 0,
        pinCount: try transaction.pins(now: core.time.now()).count,
        capacityBytes: meta.capacityBytes
      )
    }
    summary.transactionID = core.transactionID
    summary.ownerCount = core.ownerFiles.livingCount()
    return summary
  }

  /// All namespaces, by number.
  public func namespaces() throws(StoreError) -> [NamespaceSummary] {
    try core.catalogRead { (transaction) throws(CatalogError) in
      var summaries: [NamespaceSummary] = []
      for row in try transaction.namespaces() {
        let accounting = try transaction.accounting(row.id)
        summaries.append(
          NamespaceSummary(
            id: row.id,
            rootKey: row.rootKey,
            identity: NamespaceIdentity(record: row.identityRecord),
            hasSalt: NamespaceIdentity.recordHasSalt(row.identityRecord),
            saltMark: Self.saltMark(row.identityRecord),
            slotByteCount: Int(row.slotByteCount),
            blockCount: Int(accounting.blockCount),
            payloadByteCount: Int(accounting.payloadByteCount),
            storedByteCount: Int(accounting.storedByteCount),
            overheadByteCount: Self.overheadByteCount(row),
            quotaBytes: row.quotaBytes,
            quotaBytesUsed: row.quotaUsage(accounting),
            timeToLive: row.timeToLive
          )
        )
      }
      return summaries
    }
  }

  private static func saltMark(_ record: [UInt8]) -> String? {
    let digest = NamespaceIdentity.saltDigest(ofRecord: record)
    guard !digest.isEmpty else { return nil }
    return digest.prefix(4).map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
  }

  /// The record stands in both; the rest is keys, checksums and accounting of its three rows.
  private static func overheadByteCount(_ row: NamespaceRow) -> Int {
    2 * row.identityRecord.count + 210
  }

  /// The block of this key, or nil.
  public func block(_ namespace: NamespaceID, _ key: BlockKey) throws(StoreError) -> Block? {
    try core.catalogRead { (transaction) throws(CatalogError) in
      guard let position = try transaction.find(namespace, key),
        let row = try transaction.row(namespace, position), row.blockKey == key,
        let place = row.places.first
      else { return nil }
      let words = stride(from: 0, to: row.words.count - 3, by: 4).map { start in
        row.words[start..<start + 4].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
      }
      return Block(
        blockKey: key,
        position: position,
        parent: try transaction.parent(namespace, position) ?? .root,
        words: words,
        extra: row.extra,
        payloadByteCount: Int(row.payloadByteCount),
        createdSeconds: row.createdSeconds,
        expiry: try expiry(transaction, namespace, position, row),
        pinnedUntilNanoseconds: try pinnedUntil(transaction, namespace, position),
        priority: row.priority,
        tier: place.tier,
        isInline: place.isInline,
        file: place.file,
        slot: place.slot,
        generation: place.generation.rawValue,
        children: try transaction.children(namespace, position, limit: 1000),
        stamp: try transaction.stamp(namespace, position)
      )
    }
  }

  func childRuns(
    of namespace: NamespaceID,
    after: BlockPosition,
    limit: Int
  ) throws(StoreError) -> [RunID] {
    try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.children(namespace, after, limit: limit)
    }
  }
}

extension Store {
  /// Reads the catalog for people: namespaces, runs, blocks.
  ///
  /// Sees what is committed.
  public var inspector: StoreInspector { StoreInspector(core: core) }
}
