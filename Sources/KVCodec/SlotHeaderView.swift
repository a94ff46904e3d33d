package import KVCore

/// Reads a slot header in place, from bytes that may be anything.
///
/// Nothing is copied.
///
/// Once made, its magic, version, checksum and lengths are right; whether it is the header that was looked for is the caller's
/// to compare. Valid as long as the bytes are.
@safe package struct SlotHeaderView {
  private typealias Offset = SlotHeader.Offset

  private let bytes: UnsafeRawBufferPointer
  /// Bytes that carry information.
  package let usedByteCount: Int
  package let regionCount: Int
  package let wordByteCount: Int
  package let extraByteCount: Int

  package init?(_ bytes: UnsafeRawBufferPointer) {
    unsafe self.init(trusted: bytes)
    let checked = unsafe UnsafeRawBufferPointer(
      rebasing: bytes[Offset.usedByteCount..<usedByteCount]
    )
    guard xxh3Checksum(checked) == checksum else { return nil }
  }

  /// A header of this process's own memory: its checksum is not looked at.
  ///
  /// The writer seals the header of a block that is already being read: generation and checksum change while sizes, regions and words stay.
  package init?(trusted bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= SlotHeader.fixedByteCount,
      unsafe UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self)) == SlotHeader.magic
    else { return nil }
    func load(_ offset: Int) -> Int {
      unsafe Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
    }
    guard load(Offset.formatVersion) == SlotHeader.formatVersion else { return nil }
    usedByteCount = load(Offset.usedByteCount)
    guard usedByteCount >= SlotHeader.fixedByteCount, usedByteCount <= bytes.count else {
      return nil
    }
    wordByteCount = load(Offset.wordCount) * 4
    extraByteCount = load(Offset.extraByteCount)
    regionCount = load(Offset.regionCount)
    guard
      SlotHeader.fixedByteCount + regionCount * SlotHeader.regionByteCount + wordByteCount
        + extraByteCount == usedByteCount
    else { return nil }
    unsafe self.bytes = bytes
  }

  package var headerByteCount: Int { Int(integer(Offset.headerByteCount, UInt32.self)) }
  package var checksum: UInt64 { integer(Offset.checksum, UInt64.self) }
  package var namespaceID: NamespaceID {
    NamespaceID(rawValue: integer(Offset.namespaceID, UInt32.self))
  }
  package var storeUUID: UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(rebasing: bytes[Offset.storeUUID..<Offset.generation])
  }
  package var generation: Generation {
    Generation(rawValue: integer(Offset.generation, UInt64.self))
  }
  package var rootKey: BlockKey { key(Offset.rootKey) }
  package var blockKey: BlockKey { key(Offset.blockKey) }
  package var parentKey: BlockKey { key(Offset.parentKey) }
  package var depth: Int { Int(integer(Offset.depth, UInt32.self)) }
  package var payloadByteCount: Int { Int(integer(Offset.payloadByteCount, UInt32.self)) }
  package var storedByteCount: Int { Int(integer(Offset.storedByteCount, UInt32.self)) }
  package var expiry: UInt64 { integer(Offset.expiry, UInt64.self) }
  package var hasIdleExpiry: Bool { integer(Offset.flags, UInt32.self) & 1 != 0 }
  /// The block's life as it was when it was written: later uses are not in the header.
  package var blockExpiry: BlockExpiry {
    if expiry == 0 { return .unlimited }
    return hasIdleExpiry
      ? .idle(nanoseconds: expiry, deadline: created.advanced(by: expiry)) : .absolute(expiry)
  }
  package var slotByteCount: UInt32 { integer(Offset.slotByteCount, UInt32.self) }
  package var created: UInt64 { integer(Offset.created, UInt64.self) }
  package var codec: UInt8 { integer(Offset.codec, UInt8.self) }
  /// Nil for a tier that this version does not know.
  package var tier: Tier? { Tier(rawValue: integer(Offset.tier, UInt8.self)) }
  package var group: UInt8 { integer(Offset.group, UInt8.self) }
  package var priority: UInt8 { integer(Offset.priority, UInt8.self) }

  /// A region below `regionCount`.
  package func region(_ index: Int) -> SlotHeader.Region {
    let start = SlotHeader.fixedByteCount + index * SlotHeader.regionByteCount
    return SlotHeader.Region(
      rawByteCount: integer(start + SlotHeader.RegionOffset.rawByteCount, UInt32.self),
      storedByteCount: integer(start + SlotHeader.RegionOffset.storedByteCount, UInt32.self),
      checksum: integer(start + SlotHeader.RegionOffset.checksum, UInt64.self)
    )
  }

  package var words: UnsafeRawBufferPointer {
    let start = usedByteCount - extraByteCount - wordByteCount
    return unsafe UnsafeRawBufferPointer(rebasing: bytes[start..<start + wordByteCount])
  }

  package var extra: UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(rebasing: bytes[usedByteCount - extraByteCount..<usedByteCount])
  }

  private func integer<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _ type: T.Type) -> T {
    unsafe T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: type))
  }

  private func key(_ offset: Int) -> BlockKey {
    BlockKey(
      high: integer(offset, UInt64.self).byteSwapped,
      low: integer(offset + 8, UInt64.self).byteSwapped
    )
  }
}
