package import KVCatalog
package import KVCore
package import KVFile

/// `identities.kvs`: what slot files alone do not say, kept beside them so that a lost catalog can be rebuilt
/// (docs/file-format.md).
///
/// Records are appended within a write transaction of the catalog, so that no two processes append at once, and synced before
/// it commits.
package struct IdentityFile {
  /// One namespace; its root key is the hash of the record, which proves both.
  package struct Identity: Hashable {
    package var id: NamespaceID
    package var record: [UInt8]
    package var rootKey: BlockKey { unsafe record.withUnsafeBytes { xxh3Key($0) } }

    package init(id: NamespaceID, record: [UInt8]) {
      self.id = id
      self.record = record
    }
  }

  /// Blocks that were given up on purpose: slots that still hold them are not to be believed.
  package struct Removal: Equatable {
    package var rootKey: BlockKey
    /// The block that went with all below it; nil = the whole namespace.
    package var top: BlockKey?
    /// Contents of earlier generations are gone; a block that was offloaded again later has a larger one.
    package var generationFloor: UInt64
  }

  package enum Record: Equatable {
    case store(StoreMeta)
    case identity(Identity)
    case removal(Removal)
    /// Numbers of owners, events and generations that are given, or may be by now, lie below these; every namespace below its number has
    /// a record here, or has left.
    case numbers(GivenNumbers)
  }

  private enum Kind: UInt32 { case identity = 0, store, removal, numbers }

  private static let magic: UInt32 = 0x5349_564B
  private static let headerByteCount = 40

  package private(set) var store: StoreMeta?
  package private(set) var identities: [Identity] = []
  package private(set) var removals: [Removal] = []
  package private(set) var numbers: GivenNumbers?
  /// Bytes that no record accounts for: torn or damaged.
  package private(set) var damagedByteCount = 0

  static let name = "identities.kvs"

  // MARK: Reading

  /// The records of this store in the order in which they were written; what is torn or damaged is stepped over.
  ///
  /// An absent file has none. Without a UUID all stores' records are taken.
  package static func read(
    _ folder: any Storage,
    storeUUID: [UInt8]?
  ) throws(FileError) -> IdentityFile {
    guard try folder.fileExists(name) else { return IdentityFile() }
    let file = try folder.openFile(name, mode: .readOnly, direct: false)
    defer { file.close() }
    let buffer = try AlignedBuffer(byteCount: Int(try file.byteCount()))
    unsafe try file.read(into: buffer.bytes, at: 0)
    return unsafe IdentityFile(buffer.readOnly, storeUUID: storeUUID)
  }

  private init() {}

  init(_ bytes: UnsafeRawBufferPointer, storeUUID: [UInt8]?) {
    var offset = 0
    while offset < bytes.count {
      if let next = unsafe add(bytes, at: offset, storeUUID) {
        offset = next
      } else {
        offset += 1
        damagedByteCount += 1
      }
    }
  }

  /// Where the next record begins; nil when there is none at `offset`.
  private mutating func add(
    _ bytes: UnsafeRawBufferPointer,
    at offset: Int,
    _ storeUUID: [UInt8]?
  ) -> Int? {
    var reader = unsafe ByteReader(bytes, offset: offset)
    guard reader.read(UInt32.self) == Self.magic, let id = reader.read(UInt32.self),
      let byteCount = reader.read(UInt32.self), let kind = reader.read(UInt32.self),
      let uuid = reader.readBytes(16), let checksum = reader.read(UInt64.self),
      let body = reader.readBytes(Int(byteCount)),
      unsafe body.withUnsafeBytes({ xxh3Checksum($0) }) == checksum
    else { return nil }
    guard storeUUID == nil || uuid == storeUUID else { return reader.offset }
    switch Kind(rawValue: kind) {
    case .identity: identities.append(Identity(id: NamespaceID(rawValue: id), record: body))
    case .store: store = unsafe body.withUnsafeBytes { unsafe Self.store($0, uuid) } ?? store
    case .removal:
      if let removal = unsafe body.withUnsafeBytes({ unsafe Self.removal($0) }) {
        removals.append(removal)
      }
    case .numbers:
      if let more = unsafe body.withUnsafeBytes({ unsafe Self.numbers($0) }) {
        numbers = more.joined(with: numbers ?? more)
      }
    case nil: break
    }
    return reader.offset
  }

  private static func numbers(_ body: UnsafeRawBufferPointer) -> GivenNumbers? {
    var reader = unsafe ByteReader(body)
    guard reader.read(UInt32.self) == Kind.numbers.rawValue,
      let owner = reader.read(UInt32.self), let event = reader.read(UInt64.self),
      let generation = reader.read(UInt64.self)
    else { return nil }
    // Older versions ended here.
    let namespace = reader.read(UInt32.self) ?? 0
    return GivenNumbers(
      owner: owner,
      event: event,
      generation: generation,
      namespace: namespace
    )
  }

  private static func store(_ body: UnsafeRawBufferPointer, _ uuid: [UInt8]) -> StoreMeta? {
    var reader = unsafe ByteReader(body)
    guard reader.read(UInt32.self) == Kind.store.rawValue, let created = reader.read(UInt64.self),
      let saltKey = reader.readBytes(32), let capacityBytes = reader.read(UInt64.self),
      let catalogBytes = reader.read(UInt64.self), let inlineMax = reader.read(UInt64.self),
      let slotFileBytes = reader.read(UInt64.self)
    else { return nil }
    return StoreMeta(
      storeUUID: uuid,
      createdNanoseconds: created,
      saltKey: saltKey,
      capacityBytes: capacityBytes,
      catalogBytes: catalogBytes,
      inlinePayloadBytesMax: inlineMax,
      slotFileBytes: slotFileBytes
    )
  }

  private static func removal(_ body: UnsafeRawBufferPointer) -> Removal? {
    var reader = unsafe ByteReader(body)
    guard reader.read(UInt32.self) == Kind.removal.rawValue, let flags = reader.read(UInt32.self),
      let rootKey = reader.readKey(), let top = reader.readKey(),
      let floor = reader.read(UInt64.self)
    else { return nil }
    return Removal(rootKey: rootKey, top: flags & 1 != 0 ? nil : top, generationFloor: floor)
  }

  // MARK: Writing

  private static func encode(_ record: Record, storeUUID: [UInt8]) -> [UInt8] {
    var body = ByteWriter(capacity: 512)
    var id = NamespaceID(rawValue: 0)
    let kind: Kind
    switch record {
    case .identity(let identity):
      kind = .identity
      id = identity.id
      body.append(contentsOf: identity.record)
    case .store(let meta):
      kind = .store
      body.append(kind.rawValue)
      body.append(meta.createdNanoseconds)
      body.append(contentsOf: meta.saltKey)
      body.append(meta.capacityBytes)
      body.append(meta.catalogBytes)
      body.append(meta.inlinePayloadBytesMax)
      body.append(meta.slotFileBytes)
    case .removal(let removal):
      kind = .removal
      body.append(kind.rawValue)
      body.append(UInt32(removal.top == nil ? 1 : 0))
      body.append(removal.rootKey)
      body.append(removal.top ?? BlockKey(high: 0, low: 0))
      body.append(removal.generationFloor)
    case .numbers(let numbers):
      kind = .numbers
      body.append(kind.rawValue)
      body.append(numbers.owner)
      body.append(numbers.event)
      body.append(numbers.generation)
      body.append(numbers.namespace)
    }
    var writer = ByteWriter(capacity: body.bytes.count + headerByteCount)
    writer.append(magic)
    writer.append(id.rawValue)
    writer.append(UInt32(body.bytes.count))
    writer.append(kind.rawValue)
    writer.append(contentsOf: storeUUID)
    writer.append(unsafe body.bytes.withUnsafeBytes { xxh3Checksum($0) })
    writer.append(contentsOf: body.bytes)
    return writer.bytes
  }

  /// What the catalog knows of namespaces when the file is condensed.
  struct Living {
    /// Of those that are there.
    var rootKeys: [NamespaceID: BlockKey]
    /// All numbers that were given are below this.
    var numberEnd: UInt32
    /// Those that the transaction removes, which may not be committed after all.
    var leaving: Set<NamespaceID> = []

    func contains(_ identity: Identity) -> Bool {
      leaving.contains(identity.id) || rootKeys[identity.id] == identity.rootKey
    }
  }

  /// Appends records and syncs them, the store's own record first where it is missing.
  ///
  /// Only within a write transaction. The file is not read for it, however long it is, but for its first record; and as a whole
  /// when it has grown to `condensedAt`, which then moves on to twice what is left.
  ///
  /// - Returns: false, with nothing appended, when the file would be longer than `byteCountMax`.
  static func append(
    _ records: [Record],
    _ folder: any Storage,
    meta: StoreMeta,
    condensedAt: inout UInt64,
    byteCountMax: UInt64,
    living: () -> Living?
  ) throws(FileError) -> Bool {
    let file = try folder.openFile(name, mode: .create, direct: false)
    defer { file.close() }
    let end = try file.byteCount()
    var hasStore = try beginsWithStore(file, end, meta)
    if !hasStore, end > 0 { hasStore = try read(folder, storeUUID: meta.storeUUID).store != nil }
    let all = (hasStore ? [] : [Record.store(meta)]) + records
    let bytes = all.flatMap { encode($0, storeUUID: meta.storeUUID) }
    let isFull = end + UInt64(bytes.count) > byteCountMax
    if end + UInt64(bytes.count) > condensedAt || isFull {
      let isReplaced = try condense(
        folder,
        meta: meta,
        isWanted: isFull,
        adding: records,
        byteCountMax: byteCountMax,
        living
      )
      condensedAt = max(condensedAtLeast, try length(folder) &* 2)
      if isReplaced { return true }
      if isFull { return false }
    }
    try write(bytes, to: file, at: end)
    try folder.syncDirectory(".")
    return true
  }

  private static func length(_ folder: any Storage) throws(FileError) -> UInt64 {
    let file = try folder.openFile(name, mode: .readOnly, direct: false)
    defer { file.close() }
    return try file.byteCount()
  }

  /// Replaces the file by a shorter one, where that halves it or is wanted; whether it did.
  @discardableResult
  static func condense(
    _ folder: any Storage,
    meta: StoreMeta,
    isWanted: Bool,
    adding records: [Record] = [],
    byteCountMax: UInt64 = .max,
    _ living: () -> Living?
  ) throws(FileError) -> Bool {
    var known = try read(folder, storeUUID: meta.storeUUID)
    let before = known.encodedByteCount
    known.condense(living())
    let after = known.encodedByteCount
    guard after * 2 < before || isWanted && after < before,
      UInt64(after + records.reduce(0) { $0 + encode($1, storeUUID: meta.storeUUID).count })
        <= byteCountMax
    else { return false }
    try known.replace(folder, adding: records, meta: meta)
    return true
  }

  /// Whether the first record is the store's own, as it is unless the file was damaged.
  private static func beginsWithStore(
    _ file: any StorageFile,
    _ end: UInt64,
    _ meta: StoreMeta
  ) throws(FileError) -> Bool {
    let byteCount = encode(.store(meta), storeUUID: meta.storeUUID).count
    guard end >= UInt64(byteCount) else { return false }
    let buffer = try AlignedBuffer(byteCount: byteCount)
    unsafe try file.read(into: buffer.bytes, at: 0)
    return unsafe IdentityFile(buffer.readOnly, storeUUID: meta.storeUUID).store != nil
  }

  private static func write(
    _ bytes: [UInt8],
    to file: any StorageFile,
    at offset: UInt64
  ) throws(FileError) {
    var failure: FileError?
    unsafe bytes.withUnsafeBytes { buffer in
      do throws(FileError) { try unsafe file.write(buffer, at: offset) } catch { failure = error }
    }
    if let failure { throw failure }
    try file.sync()
  }

  // MARK: Keeping it short

  /// From here on the removals are condensed each time that the file has doubled, as far as that gains something.
  static let condensedAtLeast: UInt64 = 512 << 10
  private static let removalCountMax = 2048

  /// How long a file of these records is.
  private var encodedByteCount: Int {
    let uuid = [UInt8](repeating: 0, count: 16)
    func byteCount(_ record: Record) -> Int { Self.encode(record, storeUUID: uuid).count }
    return (store.map { byteCount(.store($0)) } ?? 0)
      + identities.reduce(0) { $0 + Self.headerByteCount + $1.record.count }
      + (removals.first.map { byteCount(.removal($0)) } ?? 0) * removals.count
      + (numbers.map { byteCount(.numbers($0)) } ?? 0)
  }

  /// Leaves out namespaces that are gone, with their removals, and merges the removals of others: one for each block; where there are too
  /// many, one for each namespace, at the price that a repair gives back less of it than it could.
  private mutating func condense(_ living: Living?) {
    if let living {
      // One record each: a namespace whose creation failed may have had the number before.
      var seen: Set<NamespaceID> = []
      identities = identities.reversed().filter {
        living.contains($0) && (living.leaving.contains($0.id) || seen.insert($0.id).inserted)
      }.reversed()
      let rootKeys = Set(identities.map(\.rootKey))
      removals.removeAll { !rootKeys.contains($0.rootKey) }
      numbers = (numbers ?? GivenNumbers()).joined(
        with: GivenNumbers(namespace: living.numberEnd)
      )
    }
    var floors: [RemovalKey: UInt64] = [:]
    for removal in removals {
      let key = RemovalKey(rootKey: removal.rootKey, top: removal.top)
      floors[key] = max(floors[key] ?? 0, removal.generationFloor)
    }
    if floors.count > Self.removalCountMax {
      var whole: [RemovalKey: UInt64] = [:]
      for (key, floor) in floors {
        let namespace = RemovalKey(rootKey: key.rootKey, top: nil)
        whole[namespace] = max(whole[namespace] ?? 0, floor)
      }
      floors = whole
    }
    removals = floors.map {
      Removal(rootKey: $0.key.rootKey, top: $0.key.top, generationFloor: $0.value)
    }
  }

  private struct RemovalKey: Hashable {
    var rootKey: BlockKey
    var top: BlockKey?
  }

  private func replace(
    _ folder: any Storage,
    adding records: [Record],
    meta: StoreMeta
  ) throws(FileError) {
    try Self.rewrite(
      folder,
      meta: store ?? meta,
      identities: identities,
      removals: removals,
      numbers: numbers,
      adding: records
    )
  }

  /// Writes these records into a new file that takes the old one's place.
  package static func rewrite(
    _ folder: any Storage,
    meta: StoreMeta,
    identities: [Identity],
    removals: [Removal],
    numbers: GivenNumbers?,
    adding records: [Record] = []
  ) throws(FileError) {
    let newName = name + ".new"
    if try folder.fileExists(newName) { try folder.remove(newName) }
    let all =
      [.store(meta)] + identities.map { Record.identity($0) }
      + removals.map { Record.removal($0) } + (numbers.map { [Record.numbers($0)] } ?? []) + records
    let file = try folder.openFile(newName, mode: .createNew, direct: false)
    defer { file.close() }
    try write(
      all.flatMap { encode($0, storeUUID: meta.storeUUID) },
      to: file,
      at: 0
    )
    try folder.rename(newName, to: name)
    try folder.syncDirectory(".")
  }
}
