internal import Glibc
package import KVCore

/// A block row as it lies in the catalog; lent within a closure, its checksum has been checked.
///
/// Layout: docs/file-format.md, "Block row". Offsets count from the checksum on.
@safe package struct RowView {
  static let fixedByteCount = 48
  static let parentByteCount = 12

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
    guard value.count >= Self.fixedByteCount + BlockPlace.byteCount else { return nil }
    func load<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _ type: T.Type) -> T {
      unsafe value.loadInteger(offset)
    }
    blockKey = BlockKey(
      high: load(8, UInt64.self).byteSwapped,
      low: load(16, UInt64.self).byteSwapped
    )
    payloadByteCount = load(24, UInt32.self)
    extraByteCount = Int(load(28, UInt16.self))
    placeCount = Int(load(30, UInt8.self))
    flags = RowFlags(rawValue: load(31, UInt8.self))
    expiry = load(32, UInt64.self)
    createdSeconds = load(40, UInt32.self)
    priority = load(44, UInt8.self)
    // With other flags more would follow, and the words could not be found.
    guard placeCount >= 1, flags.isSubset(of: [.firstOfRun, .idleExpiry]),
      value.count >= Self.fixedByteCount + placeCount * BlockPlace.byteCount,
      let place = unsafe BlockPlace(value, at: Self.fixedByteCount)
    else { return nil }
    self.place = place
    let parentOffset = Self.fixedByteCount + placeCount * BlockPlace.byteCount
    let hasParent = flags.contains(.firstOfRun)
    wordsOffset = parentOffset + (hasParent ? Self.parentByteCount : 0)
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
      unsafe BlockPlace(value, at: Self.fixedByteCount + index * BlockPlace.byteCount)
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
  /// Bytes of its row, the checksum included.
  func rowByteCount(isFirstOfRun: Bool) -> Int {
    unsafe RowView.fixedByteCount + BlockPlace.byteCount
      + (isFirstOfRun ? RowView.parentByteCount : 0) + words.count + extra.count
  }

  /// Writes what follows the checksum.
  func encode(isFirstOfRun: Bool, into body: UnsafeMutableRawBufferPointer) {
    var writer = unsafe RawWriter(body)
    writer.write(blockKey.high.byteSwapped)
    writer.write(blockKey.low.byteSwapped)
    writer.write(payloadByteCount)
    writer.write(UInt16(truncatingIfNeeded: unsafe extra.count))
    writer.write(UInt8(1))
    var flags: RowFlags = isFirstOfRun ? .firstOfRun : []
    if life.isIdle { flags.insert(.idleExpiry) }
    writer.write(flags.rawValue)
    writer.write(life.storedExpiry)
    writer.write(createdSeconds)
    writer.write(UInt32(priority))
    place.encode(into: &writer)
    if isFirstOfRun {
      writer.write(parent.run.rawValue)
      writer.write(parent.position)
    }
    unsafe writer.write(words)
    unsafe writer.write(extra)
  }
}

extension BlockPlace {
  /// The caller has checked that the bytes are there.
  init?(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
    guard let tier = unsafe Tier(rawValue: bytes[offset]) else { return nil }
    unsafe self.init(
      tier: tier,
      codec: bytes[offset + 1],
      group: bytes[offset + 2],
      isInline: bytes[offset + 3] & 1 != 0,
      file: bytes.loadInteger(offset + 4),
      slot: bytes.loadInteger(offset + 8),
      storedByteCount: bytes.loadInteger(offset + 12),
      generation: Generation(rawValue: bytes.loadInteger(offset + 16)),
      headerChecksum: bytes.loadInteger(offset + 24)
    )
  }

  func encode(into writer: inout RawWriter) {
    writer.write(tier.rawValue)
    writer.write(codec)
    writer.write(group)
    writer.write(UInt8(isInline ? 1 : 0))
    writer.write(file)
    writer.write(slot)
    writer.write(storedByteCount)
    writer.write(generation.rawValue)
    writer.write(headerChecksum)
  }

  /// The slot it names; nil when inline.
  var slotAddress: SlotAddress? {
    isInline ? nil : SlotAddress(tier: tier, file: file, slot: slot)
  }
}

/// Writes little-endian integers into bytes that LMDB set aside for a row.
@safe struct RawWriter {
  private let bytes: UnsafeMutableRawBufferPointer
  private var offset = 0

  init(_ bytes: UnsafeMutableRawBufferPointer) { unsafe self.bytes = bytes }

  mutating func write<T: FixedWidthInteger & BitwiseCopyable>(_ value: T) {
    let size = MemoryLayout<T>.size
    guard unsafe bytes.count - offset >= size else { return assertionFailure("row too short") }
    unsafe bytes.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
    offset += size
  }

  @safe mutating func write(_ more: UnsafeRawBufferPointer) {
    guard unsafe !more.isEmpty else { return }
    guard unsafe bytes.count - offset >= more.count else {
      return assertionFailure("row too short")
    }
    unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[offset...]).copyMemory(from: more)
    offset += more.count
  }
}

extension UnsafeRawBufferPointer {
  /// A little-endian integer; the caller has checked that its bytes are there.
  ///
  /// Inlined, since rows are read by the
  /// thousand.
  @inline(__always) func loadInteger<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int) -> T {
    unsafe T(littleEndian: loadUnaligned(fromByteOffset: offset, as: T.self))
  }
}

@safe func bytesEqual(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
  guard a.count == b.count else { return false }
  guard let left = a.baseAddress, let right = b.baseAddress else { return true }
  return unsafe memcmp(left, right, a.count) == 0
}
