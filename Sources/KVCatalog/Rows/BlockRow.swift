package import KVCore

/// Offsets in a block row, from its checksum on: docs/file-format.md, "Block row".
///
/// Behind the places come, of the first block of a run, its parent; then words and extra bytes.
private enum Offset {
  static let blockKey = 8
  static let payloadByteCount = 24
  static let extraByteCount = 28
  static let placeCount = 30
  static let flags = 31
  static let expiry = 32
  static let created = 40
  static let priority = 44
  static let places = 48

  static func place(_ index: Int) -> Int { places + index * BlockPlace.byteCount }
}

/// A block row as it lies in the catalog; lent within a closure, its checksum has been checked.
@safe package struct RowView {

  private let value: UnsafeRawBufferPointer
  private let wordsOffset: Int
  package let blockKey: BlockKey
  package let payloadByteCount: UInt32
  package let flags: RowFlags
  /// Unix time in nanoseconds, 0 = never; of an idle life the nanoseconds after a use.
  package let expiry: UInt64
  package let createdSeconds: UInt32
  package let priority: UInt8
  package let placeCount: Int
  /// The first place.
  package let place: BlockPlace
  /// Only of the first block of a run; the others' parent is the row before.
  package let parent: BlockPosition?
  package let wordByteCount: Int
  package let extraByteCount: Int

  /// Nil when lengths do not fit together.
  init?(value: UnsafeRawBufferPointer) {
    guard value.count >= Offset.place(1) else { return nil }
    func load<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _ type: T.Type) -> T {
      unsafe value.loadInteger(offset)
    }
    blockKey = BlockKey(
      high: load(Offset.blockKey, UInt64.self).byteSwapped,
      low: load(Offset.blockKey + 8, UInt64.self).byteSwapped
    )
    payloadByteCount = load(Offset.payloadByteCount, UInt32.self)
    extraByteCount = Int(load(Offset.extraByteCount, UInt16.self))
    placeCount = Int(load(Offset.placeCount, UInt8.self))
    flags = RowFlags(rawValue: load(Offset.flags, UInt8.self))
    expiry = load(Offset.expiry, UInt64.self)
    createdSeconds = load(Offset.created, UInt32.self)
    priority = load(Offset.priority, UInt8.self)
    // With other flags more would follow, and the words could not be found.
    guard placeCount >= 1, flags.isSubset(of: [.firstOfRun, .idleExpiry]),
      value.count >= Offset.place(placeCount),
      let place = unsafe BlockPlace(value, at: Offset.place(0))
    else { return nil }
    self.place = place
    let parentOffset = Offset.place(placeCount)
    let hasParent = flags.contains(.firstOfRun)
    wordsOffset = parentOffset + (hasParent ? BlockPosition.byteCount : 0)
    wordByteCount = value.count - wordsOffset - extraByteCount
    guard wordByteCount >= 0, wordByteCount % 4 == 0 else { return nil }
    parent =
      hasParent
      ? BlockPosition(
        run: RunID(rawValue: load(parentOffset, UInt64.self)),
        position: load(parentOffset + 8, UInt32.self)
      ) : nil
    unsafe self.value = value
  }

  /// The words: token ids or the digest, little-endian u32.
  ///
  /// Valid within the closure that lent the row.
  package var words: UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(rebasing: value[wordsOffset..<wordsOffset + wordByteCount])
  }

  /// The extra bytes.
  ///
  /// Valid within the closure that lent the row.
  package var extra: UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(rebasing: value[(wordsOffset + wordByteCount)...])
  }

  /// Whether the words are these; `other` has as many bytes as the namespace's blocks have.
  @safe package func wordsEqual(_ other: UnsafeRawPointer) -> Bool {
    unsafe bytesEqual(words, UnsafeRawBufferPointer(start: other, count: wordByteCount))
  }

  package var places: [BlockPlace] {
    (0..<placeCount).compactMap { index in
      unsafe BlockPlace(value, at: Offset.place(index))
    }
  }

  /// The key that a row says it has, whose checksum nobody has looked at; nil when it is too short.
  static func blockKey(of value: UnsafeRawBufferPointer) -> BlockKey? {
    var reader = unsafe ByteReader(value, offset: Offset.blockKey)
    return reader.readKey()
  }

  /// What follows the checksum.
  fileprivate var body: UnsafeRawBufferPointer { unsafe rowBody(value) }
}

/// A copy of a block row in which fields change: LMDB may hand out the same page for the new one.
struct BlockRowEdit {
  /// What follows the checksum.
  private(set) var body: [UInt8]
  private var flags: RowFlags

  init(_ row: RowView) {
    body = unsafe Array(row.body)
    flags = row.flags
  }

  mutating func setExpiry(_ blockExpiry: BlockExpiry) {
    if blockExpiry.isIdle { flags.insert(.idleExpiry) } else { flags.remove(.idleExpiry) }
    change(Offset.flags) { [flags] in $0.write(flags.rawValue) }
    change(Offset.expiry) { $0.write(blockExpiry.storedExpiry) }
  }

  mutating func setPriority(_ priority: UInt8) { change(Offset.priority) { $0.write(priority) } }

  /// Sets the first place.
  mutating func setPlace(_ place: BlockPlace) {
    change(Offset.place(0)) { place.encode(into: &$0) }
  }

  private mutating func change(_ offset: Int, _ write: (inout RawWriter) -> Void) {
    unsafe body.withUnsafeMutableBytes { bytes in
      var writer = unsafe RawWriter(bytes, at: offset - rowChecksumByteCount)
      write(&writer)
    }
  }
}

/// Bits of a block row.
package struct RowFlags: OptionSet, Sendable {
  package let rawValue: UInt8
  package init(rawValue: UInt8) { self.rawValue = rawValue }
  /// The parent follows the places.
  package static let firstOfRun = RowFlags(rawValue: 1)
  package static let idleExpiry = RowFlags(rawValue: 2)
}

/// A copy of a block row.
package struct BlockRow: Sendable, Equatable {
  package var blockKey: BlockKey
  package var payloadByteCount: UInt32
  package var hasIdleExpiry: Bool
  package var expiry: UInt64
  package var createdSeconds: UInt32
  package var priority: UInt8
  package var places: [BlockPlace]
  package var parent: BlockPosition?
  package var words: [UInt8]
  package var extra: [UInt8]

  init(_ view: RowView) {
    blockKey = view.blockKey
    payloadByteCount = view.payloadByteCount
    hasIdleExpiry = view.flags.contains(.idleExpiry)
    expiry = view.expiry
    createdSeconds = view.createdSeconds
    priority = view.priority
    places = view.places
    parent = view.parent
    words = unsafe Array(view.words)
    extra = unsafe Array(view.extra)
  }
}

extension NewBlock {
  /// Bytes of its row, the checksum not counted.
  func bodyByteCount(isFirstOfRun: Bool) -> Int {
    unsafe Offset.place(1) - rowChecksumByteCount + (isFirstOfRun ? BlockPosition.byteCount : 0)
      + words.count + extra.count
  }

  /// Writes what follows the checksum, in the order of the offsets and without a gap.
  func encode(isFirstOfRun: Bool, into body: UnsafeMutableRawBufferPointer) {
    var writer = unsafe RawWriter(body)
    writer.write(blockKey.high.byteSwapped)
    writer.write(blockKey.low.byteSwapped)
    writer.write(payloadByteCount)
    writer.write(UInt16(truncatingIfNeeded: unsafe extra.count))
    writer.write(UInt8(1))
    var flags: RowFlags = isFirstOfRun ? .firstOfRun : []
    if blockExpiry.isIdle { flags.insert(.idleExpiry) }
    writer.write(flags.rawValue)
    writer.write(blockExpiry.storedExpiry)
    writer.write(createdSeconds)
    writer.write(UInt32(priority))
    place.encode(into: &writer)
    if isFirstOfRun { writer.write(parent) }
    unsafe writer.write(words)
    unsafe writer.write(extra)
  }
}

extension BlockExpiry {
  /// What the row has as its expiry: of an idle life the time after a use.
  package var storedExpiry: UInt64 {
    switch self {
    case .unlimited: 0
    case .idle(let nanoseconds, _): nanoseconds
    case .absolute(let deadline): deadline
    }
  }
}

extension BlockRow {
  /// Its life, given what the records say of its deadline.
  func blockExpiry(deadline: UInt64) -> BlockExpiry {
    if hasIdleExpiry { return .idle(nanoseconds: expiry, deadline: deadline) }
    return expiry == 0 ? .unlimited : .absolute(expiry)
  }
}
