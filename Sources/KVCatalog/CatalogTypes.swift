package import KVCore

/// How a catalog is opened.
package struct CatalogOptions: Sendable {
  /// Whether a commit waits for the disk; `.buffered` is for tests.
  package enum Durability: Sendable { case synced, buffered }

  /// Where LMDB's lock file is, by which processes and threads keep clear of each other.
  package enum Lock: Sendable, Equatable {
    /// Beside the catalog.
    case beside
    /// This file, which is there already and as long as `lockByteCount` wants it; links to it are made in its folder.
    case file(String)
    /// Nowhere: nobody else knows of the catalog, or nobody can write to it.
    case none
  }

  /// The file `catalog.mdb`.
  package var path: String
  package var lock = Lock.beside
  /// The file that has to be found there, an empty one where a catalog is made; nil = whatever there is.
  package var identity: FileIdentity?
  /// Kept as long as the catalog is open: the path may go through it.
  package var folder: (any AnyObject & Sendable)?
  /// Bytes that the catalog may grow to; nil = what the file says.
  package var mapByteCount: Int?
  package var isReadOnly = false
  package var durability = Durability.synced
  package var readerCountMax: UInt32 = 510
  /// The ring of events; a small map keeps fewer (`eventCountMax(forMap:)`).
  package var eventCountMax: UInt64 = 65_536

  /// Events that fit into an eighth of the map; an event takes 80 to 160 bytes of it, by how full LMDB's pages are.
  static func eventCountMax(forMap mapByteCount: Int) -> UInt64 {
    UInt64(max(64, mapByteCount / 8 / 160))
  }

  package init(path: String) { self.path = path }

  /// Bytes that LMDB's lock file takes at most for so many readers: a cache line for each, and what all share.
  package var lockByteCount: Int { (Int(readerCountMax) + 64) * 64 }
}

/// What is decided once, when the store is made.
package struct StoreMeta: Sendable, Equatable {
  package var storeUUID: [UInt8]
  package var createdNanoseconds: UInt64
  package var saltKey: [UInt8]
  package var capacityBytes: UInt64
  package var catalogBytes: UInt64
  package var inlinePayloadBytesMax: UInt64
  package var slotFileBytes: UInt64

  package init(
    storeUUID: [UInt8],
    createdNanoseconds: UInt64,
    saltKey: [UInt8],
    capacityBytes: UInt64,
    catalogBytes: UInt64,
    inlinePayloadBytesMax: UInt64,
    slotFileBytes: UInt64
  ) {
    self.storeUUID = storeUUID
    self.createdNanoseconds = createdNanoseconds
    self.saltKey = saltKey
    self.capacityBytes = capacityBytes
    self.catalogBytes = catalogBytes
    self.inlinePayloadBytesMax = inlinePayloadBytesMax
    self.slotFileBytes = slotFileBytes
  }
}

/// How full the catalog is.
package struct CatalogUsage: Sendable, Equatable {
  package var mapByteCount: Int
  /// Bytes of the file: pages in use and free pages.
  package var fileByteCount: Int
  package var freeByteCount: Int
  package var usedByteCount: Int { fileByteCount - freeByteCount }
}

/// A namespace before it has an id.
package struct NewNamespace: Sendable, Equatable {
  package var rootKey: BlockKey
  package var identityRecord: [UInt8]
  /// 0 = payloads are inline.
  package var slotByteCount: UInt32
  package var headerByteCount: UInt32
  package var wordsPerBlock: UInt32
  package var flags: UInt32
  /// 0 = none.
  package var quotaBytes: UInt64
  /// 0 = never.
  package var defaultTTLNanoseconds: UInt64

  package init(
    rootKey: BlockKey,
    identityRecord: [UInt8],
    slotByteCount: UInt32,
    headerByteCount: UInt32,
    wordsPerBlock: UInt32,
    flags: UInt32 = 0,
    quotaBytes: UInt64 = 0,
    defaultTTLNanoseconds: UInt64 = 0
  ) {
    self.rootKey = rootKey
    self.identityRecord = identityRecord
    self.slotByteCount = slotByteCount
    self.headerByteCount = headerByteCount
    self.wordsPerBlock = wordsPerBlock
    self.flags = flags
    self.quotaBytes = quotaBytes
    self.defaultTTLNanoseconds = defaultTTLNanoseconds
  }
}

/// A namespace as it is stored.
package struct NamespaceRow: Sendable, Equatable {
  package var id: NamespaceID
  package var namespace: NewNamespace

  package init(id: NamespaceID, namespace: NewNamespace) {
    self.id = id
    self.namespace = namespace
  }

  package var rootKey: BlockKey { namespace.rootKey }
  package var identityRecord: [UInt8] { namespace.identityRecord }
  package var slotByteCount: UInt32 { namespace.slotByteCount }
  package var headerByteCount: UInt32 { namespace.headerByteCount }
  package var wordsPerBlock: UInt32 { namespace.wordsPerBlock }
  package var flags: UInt32 { namespace.flags }
  package var quotaBytes: UInt64 { namespace.quotaBytes }
  package var defaultTTLNanoseconds: UInt64 { namespace.defaultTTLNanoseconds }
  /// Where its stamps are: one pool for each slot size, 0 for inline payloads.
  package var pool: UInt32 { namespace.slotByteCount / 4096 }
  /// Where its stamps are a second time, in an order of their own, while it has a quota.
  var quotaPool: UInt32? { quotaBytes == 0 ? nil : 1 << 31 | id.rawValue }
  var pools: [UInt32] { quotaPool.map { [pool, $0] } ?? [pool] }
  package var facts: NamespaceFlags { NamespaceFlags(rawValue: namespace.flags) }

  /// What counts against the quota: whole slots, or the payload where it is inline.
  package func quotaUsage(_ accounting: Accounting) -> UInt64 {
    slotByteCount == 0
      ? accounting.payloadByteCount
      : accounting.blockCount.multipliedReportingOverflow(by: UInt64(slotByteCount)).partialValue
  }
}

/// What a namespace row says about its blocks.
package struct NamespaceFlags: OptionSet, Sendable {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }
  /// Some block had another priority than the default: the order of victims then needs each block's.
  package static let hasPriorities = NamespaceFlags(rawValue: 1)
  /// Some block had a life that uses extend: then every block has its deadline noted.
  package static let hasIdleLives = NamespaceFlags(rawValue: 2)
  /// Some block had a life that ends at a time.
  package static let hasAbsoluteLives = NamespaceFlags(rawValue: 4)
  /// The default life is absolute.
  package static let defaultIsAbsolute = NamespaceFlags(rawValue: 8)

  /// Whether blocks may come to an end by themselves.
  package var mayExpire: Bool {
    contains(.hasIdleLives) || contains(.hasAbsoluteLives)
  }
}

/// What a namespace holds.
package struct Accounting: Sendable, Equatable {
  package var blockCount: UInt64 = 0
  package var payloadByteCount: UInt64 = 0
  package var storedByteCount: UInt64 = 0
  package init() {}
}

/// A slot file as the catalog knows it.
package struct SlotFileRow: Sendable, Equatable {
  package var tier: Tier
  package var file: UInt32
  package var slotByteCount: UInt32
  package var slotCount: UInt32
  /// Used or reserved.
  package var usedCount: UInt32
  /// 0 = in use.
  package var state: UInt32 = 0
}

extension SlotFileRow {
  /// A file of which nothing is used.
  package init(tier: Tier, file: UInt32, slotByteCount: UInt32, slotCount: UInt32) {
    self.init(
      tier: tier,
      file: file,
      slotByteCount: slotByteCount,
      slotCount: slotCount,
      usedCount: 0
    )
  }
}

/// Slots that an owner holds reserved and has not published.
package struct ReservationRow: Sendable, Equatable {
  package var owner: OwnerID
  package var slots: [SlotAddress]
}

/// What happened to a range of blocks of one run.
package struct CatalogEvent: Sendable, Equatable {
  package enum Kind: UInt8, Sendable { case stored = 1, removed, quarantined, moved }

  package var sequence: UInt64
  package var kind: Kind
  package var reason: RemovalReason
  package var tier: Tier
  package var namespace: NamespaceID
  package var run: RunID
  package var firstPosition: UInt32
  package var blockCount: UInt32
  package var timeNanoseconds: UInt64
  package var owner: OwnerID
  /// Of a removal: the key of the block at `firstPosition`, by which a later miss is explained; nil when its row was damaged.
  package var topKey: BlockKey?
}

/// Why blocks left.
package enum RemovalReason: UInt8, Sendable {
  case none = 0, evicted, forgotten, corrupt, expired, quota
}

/// The order of victims: lowest priority first, then the oldest stamp.
package struct StampOrder: Sendable, Hashable, Comparable {
  package var priority: UInt8
  package var stamp: UInt64

  package init(priority: UInt8, stamp: UInt64) {
    self.priority = priority
    self.stamp = stamp
  }

  /// Before every stamp: the counter begins at 1.
  static let first = StampOrder(priority: 0, stamp: 0)

  package static func < (a: StampOrder, b: StampOrder) -> Bool {
    (a.priority, a.stamp) < (b.priority, b.stamp)
  }
}

/// A stamp and the path end that has it.
package struct StampRow: Sendable, Equatable {
  package var pool: UInt32
  package var order: StampOrder
  package var stamp: UInt64 { order.stamp }
  package var namespace: NamespaceID
  package var end: BlockPosition
}

/// A block to be published.
///
/// The buffers must outlive the call, and may not point into the catalog.
@safe package struct NewBlock {
  package var blockKey: BlockKey
  package var parent: BlockPosition
  package var words: UnsafeRawBufferPointer
  package var extra: UnsafeRawBufferPointer
  package var payloadByteCount: UInt32
  package var life = BlockLife.unlimited
  package var createdSeconds: UInt32
  /// From 0 to 100; blocks of lower priority are evicted first.
  package var priority: UInt8 = NewBlock.priorityDefault
  package var place: BlockPlace
  package static let priorityDefault: UInt8 = 50

  /// Slot header and stored bytes, when the place is inline.
  package var inlinePayload: UnsafeRawBufferPointer?

  package init(
    blockKey: BlockKey,
    parent: BlockPosition,
    words: UnsafeRawBufferPointer,
    extra: UnsafeRawBufferPointer,
    payloadByteCount: UInt32,
    createdSeconds: UInt32,
    place: BlockPlace,
    inlinePayload: UnsafeRawBufferPointer? = nil
  ) {
    self.blockKey = blockKey
    self.parent = parent
    unsafe self.words = words
    unsafe self.extra = extra
    self.payloadByteCount = payloadByteCount
    self.createdSeconds = createdSeconds
    self.place = place
    unsafe self.inlinePayload = inlinePayload
  }
}

/// What became of a block that was to be published.
///
/// Only `.stored` has used up its reservation.
package enum PublishOutcome: Sendable, Equatable {
  case stored(BlockPosition)
  /// The same block is there already; its life and priority are not less than they were asked for.
  case duplicate(BlockPosition)
  /// The same block is there, but its life is over: remove it (`.expired`), then publish again.
  case expired(BlockPosition)
  /// The key leads to another block: other words, extra bytes or parent.
  case collision
  case parentMissing
  /// The key leads to a row whose checksum fails: remove it (`.corrupt`), then publish again.
  case corruptRow(BlockPosition)
  /// The owner does not hold the slot any more, so it may be another's by now.
  case slotNotReserved
}

/// A block that had come to its end.
package struct ExpiredTop: Sendable, Equatable {
  package var namespace: NamespaceID
  package var at: BlockPosition
}

/// What a removal took away.
package struct RemovedSummary: Sendable, Equatable {
  package struct Range: Sendable, Equatable {
    package var namespace: NamespaceID
    package var run: RunID
    package var firstPosition: UInt32
    package var blockCount: UInt32

    package init(
      namespace: NamespaceID,
      run: RunID,
      firstPosition: UInt32,
      blockCount: UInt32
    ) {
      self.namespace = namespace
      self.run = run
      self.firstPosition = firstPosition
      self.blockCount = blockCount
    }
  }

  package var ranges: [Range] = []
  /// The blocks that had come to their end, and took those below along.
  package var expiredTops: [ExpiredTop] = []
  package var expiredBlockCount = 0
  package var freedSlots: [SlotAddress] = []
  /// Of a subtree: the slot of its first block.
  package var topSlot: SlotAddress?
  package var blockCount = 0
  package var payloadByteCount: UInt64 = 0
  package var storedByteCount: UInt64 = 0
  /// Rows whose checksum failed; their slots are unknown and stay marked as used.
  package var corruptRowCount = 0
  package init() {}
}
