internal import KVCore

/// The named databases of the environment; the raw value is the tag in the row checksum (`keys` has none).
enum Table: UInt8, CaseIterable {
  case keys = 0, meta, namespaces, runs, children, stamps, ends, slots, events, payloads, sessions
  case deadlines = 12, expiries, pins
  case runHits = 11, history = 15

  /// One more than the largest raw value.
  static let count = 16

  /// Stores that were made before there was such a table get it when they are opened for writing; until then it is empty.
  var isAddedLater: Bool { self == .runHits || self == .history }

  var name: String {
    switch self {
    case .keys: "keys"
    case .meta: "meta"
    case .namespaces: "namespaces"
    case .runs: "runs"
    case .children: "children"
    case .stamps: "stamps"
    case .ends: "ends"
    case .slots: "slots"
    case .events: "events"
    case .payloads: "payloads"
    case .sessions: "sessions"
    case .deadlines: "deadlines"
    case .expiries: "expiries"
    case .pins: "pins"
    case .runHits: "runhits"
    case .history: "history"
    }
  }

  /// What a wrong checksum in this table damages.
  var part: CatalogPart {
    switch self {
    case .keys, .runs, .children: .blockRow
    case .meta: .meta
    case .namespaces: .namespace
    case .stamps, .ends: .stamp
    case .slots: .slotFile
    case .events: .event
    case .payloads: .inlinePayload
    case .sessions: .session
    case .deadlines, .expiries: .deadline
    case .pins: .pin
    case .runHits, .history: .meta
    }
  }
}

/// A key of a table: up to 32 bytes, integers big-endian so that LMDB's byte order is their numeric order.
struct TableKey {
  private var storage: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
  private(set) var byteCount = 0

  private mutating func append<T: FixedWidthInteger & BitwiseCopyable>(_ value: T) {
    assert(byteCount + MemoryLayout<T>.size <= 32)
    let offset = byteCount
    unsafe withUnsafeMutableBytes(of: &storage) { bytes in
      unsafe bytes.storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
    }
    byteCount += MemoryLayout<T>.size
  }

  init() {}

  /// A key that LMDB handed out; nil when it is longer than any of ours.
  init?(copying bytes: UnsafeRawBufferPointer) {
    guard bytes.count <= 32 else { return nil }
    unsafe withUnsafeMutableBytes(of: &storage) { unsafe $0.copyMemory(from: bytes) }
    byteCount = bytes.count
  }

  /// Lends the bytes of the key.
  func withBytes<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
    unsafe withUnsafeBytes(of: storage) { bytes in
      unsafe body(UnsafeRawBufferPointer(rebasing: bytes[0..<byteCount]))
    }
  }

  static func meta(_ name: MetaName) -> TableKey {
    var key = TableKey()
    for byte in name.rawValue.utf8 { key.append(byte) }
    return key
  }

  static func namespace(_ id: NamespaceID, kind: NamespaceRowKind) -> TableKey {
    var key = TableKey()
    key.append(id.rawValue)
    key.append(kind.rawValue)
    return key
  }

  /// Of `runs`, `ends` and `payloads`.
  static func block(_ namespace: NamespaceID, _ at: BlockPosition) -> TableKey {
    var key = TableKey()
    key.append(namespace.rawValue)
    key.append(at.run.rawValue)
    key.append(at.position)
    return key
  }

  static func child(_ namespace: NamespaceID, _ parent: BlockPosition, _ run: RunID) -> TableKey {
    var key = block(namespace, parent)
    key.append(run.rawValue)
    return key
  }

  /// Of `keys`; namespace 0 is for root keys.
  static func blockKey(_ namespace: NamespaceID, _ blockKey: BlockKey) -> TableKey {
    var key = TableKey()
    key.append(namespace.rawValue)
    key.append(blockKey.high)
    key.append(blockKey.low)
    return key
  }

  static func stamp(_ pool: UInt32, _ order: StampOrder) -> TableKey {
    var key = TableKey()
    key.append(pool)
    key.append(order.priority)
    key.append(order.stamp)
    return key
  }

  /// Owner 0 is the file itself.
  static func slots(_ tier: Tier, _ file: UInt32, _ owner: OwnerID) -> TableKey {
    var key = TableKey()
    key.append(tier.rawValue)
    key.append(file)
    key.append(owner.rawValue)
    return key
  }

  static func expiry(_ expiry: Expiry) -> TableKey {
    var key = TableKey()
    key.append(expiry.kind.rawValue)
    key.append(expiry.deadline)
    key.append(expiry.namespace.rawValue)
    key.append(expiry.at.run.rawValue)
    key.append(expiry.at.position)
    return key
  }

  /// What comes after an entry of `expiries`.
  static func after(_ expiry: Expiry) -> TableKey {
    // Position 0xFFFFFFFF is the root's and has none.
    var next = expiry
    next.at.position &+= 1
    return .expiry(next)
  }

  static func pin(_ id: UInt64) -> TableKey {
    var key = TableKey()
    key.append(id)
    return key
  }

  /// Step 0 is the session itself.
  static func session(_ id: UInt64, step: UInt32) -> TableKey {
    var key = TableKey()
    key.append(id)
    key.append(step)
    return key
  }

  static func runHits(_ namespace: NamespaceID, _ run: RunID) -> TableKey {
    var key = TableKey()
    key.append(namespace.rawValue)
    key.append(run.rawValue)
    return key
  }

  static func history(spanSeconds: UInt32, startSeconds: UInt64) -> TableKey {
    var key = TableKey()
    key.append(spanSeconds)
    key.append(startSeconds)
    return key
  }

  static func event(_ sequence: UInt64) -> TableKey {
    var key = TableKey()
    key.append(sequence)
    return key
  }
}

/// The rows of `meta`.
enum MetaName: String {
  case format, store, counters, clock, config, clean, erase, totals, hits, recent, boot, noted,
    floors
}

/// The two rows of a namespace.
enum NamespaceRowKind: UInt8 {
  case namespace = 0
  case accounting = 1
}

extension NamespaceID {
  /// Under which `keys` maps root keys to namespaces.
  static let ofRootKeys = NamespaceID(rawValue: 0)
}

extension OwnerID {
  /// Under which `slots` keeps the file itself.
  static let file = OwnerID(rawValue: 0)
}

/// A key of `slots`.
struct SlotRowKey: Hashable {
  var tier: Tier
  var file: UInt32
  var owner: OwnerID
}

// MARK: Keys that LMDB hands back; nil when they are too short

/// The numbers in a key of `runs`, `ends`, `payloads` and `deadlines`, and those that a key of `children` begins with.
func keyIntegers(
  _ bytes: UnsafeRawBufferPointer
) -> (namespace: NamespaceID, at: BlockPosition)? {
  guard bytes.count >= 16 else { return nil }
  let namespace: UInt32 = unsafe bytes.loadInteger(0)
  let run: UInt64 = unsafe bytes.loadInteger(4)
  let position: UInt32 = unsafe bytes.loadInteger(12)
  return (
    NamespaceID(rawValue: namespace.byteSwapped),
    BlockPosition(run: RunID(rawValue: run.byteSwapped), position: position.byteSwapped)
  )
}

/// The child run in a key of `children`.
func childRun(_ key: UnsafeRawBufferPointer) -> RunID? {
  var reader = unsafe ByteReader(key, offset: 16)
  return reader.readBigEndian(UInt64.self).map { RunID(rawValue: $0) }
}

/// The number in a key of `pins` and `events`.
func keyNumber(_ key: UnsafeRawBufferPointer) -> UInt64? {
  var reader = unsafe ByteReader(key)
  return reader.readBigEndian(UInt64.self)
}

/// A key of `sessions`.
func sessionKey(_ key: UnsafeRawBufferPointer) -> (id: UInt64, step: UInt32)? {
  var reader = unsafe ByteReader(key)
  guard let id = reader.readBigEndian(UInt64.self), let step = reader.readBigEndian(UInt32.self)
  else { return nil }
  return (id, step)
}

/// A key of `history`.
func historyKey(_ key: UnsafeRawBufferPointer) -> (spanSeconds: UInt32, startSeconds: UInt64)? {
  var reader = unsafe ByteReader(key)
  guard let span = reader.readBigEndian(UInt32.self),
    let start = reader.readBigEndian(UInt64.self)
  else { return nil }
  return (span, start)
}

/// A key of `namespaces`.
func namespaceKey(_ key: UnsafeRawBufferPointer) -> (id: NamespaceID, kind: UInt8)? {
  var reader = unsafe ByteReader(key)
  guard let id = reader.readBigEndian(UInt32.self), let kind = reader.read(UInt8.self) else {
    return nil
  }
  return (NamespaceID(rawValue: id), kind)
}

/// A key of `keys`.
func keysKey(_ key: UnsafeRawBufferPointer) -> (namespace: NamespaceID, blockKey: BlockKey)? {
  var reader = unsafe ByteReader(key)
  guard let namespace = reader.readBigEndian(UInt32.self), let blockKey = reader.readKey() else {
    return nil
  }
  return (NamespaceID(rawValue: namespace), blockKey)
}

/// A key of `stamps`.
func stampKey(_ key: UnsafeRawBufferPointer) -> (pool: UInt32, order: StampOrder)? {
  var reader = unsafe ByteReader(key)
  guard let pool = reader.readBigEndian(UInt32.self), let priority = reader.read(UInt8.self),
    let stamp = reader.readBigEndian(UInt64.self)
  else { return nil }
  return (pool, StampOrder(priority: priority, stamp: stamp))
}

extension SlotRowKey {
  /// Nil as well for a tier that this version does not know.
  init?(_ key: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(key)
    guard let tier = reader.read(UInt8.self).flatMap({ Tier(rawValue: $0) }),
      let file = reader.readBigEndian(UInt32.self), let owner = reader.readBigEndian(UInt32.self)
    else { return nil }
    self.init(tier: tier, file: file, owner: OwnerID(rawValue: owner))
  }
}

extension Expiry {
  init?(_ key: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(key)
    guard let kind = reader.read(UInt8.self).flatMap({ Kind(rawValue: $0) }),
      let deadline = reader.readBigEndian(UInt64.self),
      let namespace = reader.readBigEndian(UInt32.self),
      let run = reader.readBigEndian(UInt64.self),
      let position = reader.readBigEndian(UInt32.self)
    else { return nil }
    self.init(
      kind,
      deadline,
      NamespaceID(rawValue: namespace),
      BlockPosition(run: RunID(rawValue: run), position: position)
    )
  }
}

extension ByteReader {
  fileprivate mutating func readBigEndian(_: UInt32.Type) -> UInt32? {
    read(UInt32.self)?.byteSwapped
  }

  fileprivate mutating func readBigEndian(_: UInt64.Type) -> UInt64? {
    read(UInt64.self)?.byteSwapped
  }
}
