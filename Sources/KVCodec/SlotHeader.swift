package import KVCore

/// What makes a slot self-describing: the header of docs/file-format.md, "Slot files".
///
/// Byte order little-endian, keys most significant byte first. `SlotHeaderView` reads it back.
package struct SlotHeader: Sendable, Equatable {
  /// One region of the payload.
  package struct Region: Sendable, Equatable {
    package var rawByteCount: UInt32
    package var storedByteCount: UInt32
    /// XXH3-64 of its stored bytes.
    package var checksum: UInt64

    /// Stored as it is.
    package init(byteCount: Int, checksum: UInt64) {
      self.init(
        rawByteCount: UInt32(byteCount),
        storedByteCount: UInt32(byteCount),
        checksum: checksum
      )
    }

    package init(rawByteCount: UInt32, storedByteCount: UInt32, checksum: UInt64) {
      self.rawByteCount = rawByteCount
      self.storedByteCount = storedByteCount
      self.checksum = checksum
    }
  }

  package static let formatVersion: UInt32 = 1
  /// "KVSLOT", 1, 10, as a little-endian number.
  static let magic: UInt64 = 0x0A01_544F_4C53_564B
  package static let fixedByteCount = 160
  package static let regionByteCount = 16

  /// Where the fields of the fixed part lie; behind it come the regions, the words and the extra bytes.
  enum Offset {
    static let magic = 0
    static let formatVersion = 8
    static let headerByteCount = 12
    static let checksum = 16
    /// The checksum covers everything from here on.
    static let usedByteCount = 24
    static let namespaceID = 28
    static let storeUUID = 32
    static let generation = 48
    static let rootKey = 56
    static let blockKey = 72
    static let parentKey = 88
    static let depth = 104
    static let wordCount = 108
    static let extraByteCount = 112
    static let regionCount = 116
    static let payloadByteCount = 120
    static let storedByteCount = 124
    static let expiry = 128
    static let created = 136
    static let codec = 144
    static let tier = 145
    static let group = 146
    static let priority = 147
    /// Bit 0: the expiry is that of an idle life.
    static let flags = 148
    static let slotByteCount = 152
    /// 0.
    static let reserved = 156
  }

  /// Where the fields of a region lie.
  enum RegionOffset {
    static let rawByteCount = 0
    static let storedByteCount = 4
    static let checksum = 8
  }

  package var headerByteCount: UInt32 = 4096
  package var namespaceID = NamespaceID(rawValue: 0)
  /// 16 bytes.
  package var storeUUID = [UInt8](repeating: 0, count: 16)
  package var generation = Generation(rawValue: 0)
  package var rootKey = BlockKey(high: 0, low: 0)
  package var blockKey = BlockKey(high: 0, low: 0)
  package var parentKey = BlockKey(high: 0, low: 0)
  package var depth: UInt32 = 0
  package var payloadByteCount: UInt32 = 0
  package var storedByteCount: UInt32 = 0
  /// As in the block row: Unix time, or of an idle life the nanoseconds after a use; 0 = never.
  package var expiry: UInt64 = 0
  package var hasIdleExpiry = false
  package var created: UInt64 = 0
  package var codec: UInt8 = 0
  package var tier = Tier.disk
  package var group: UInt8 = 0
  package var priority: UInt8 = 0
  /// Bytes of the slot in the archive, whose files do not have the namespace's slot size; 0 on disk.
  package var slotByteCount: UInt32 = 0
  package var regions: [Region] = []
  /// The words' bytes, little-endian u32 each.
  package var words: [UInt8] = []
  package var extra: [UInt8] = []

  package init() {}

  /// Bytes that carry information.
  package var usedByteCount: Int {
    Self.fixedByteCount + Self.regionByteCount * regions.count + words.count + extra.count
  }

  /// Writes the header with its checksum; false when it does not fit.
  @discardableResult
  package func encode(into bytes: UnsafeMutableRawBufferPointer) -> Bool {
    guard usedByteCount <= bytes.count, usedByteCount <= Int(headerByteCount),
      storeUUID.count == 16
    else { return false }
    func store<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, _ offset: Int) {
      unsafe bytes.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
    }
    func store(_ key: BlockKey, _ offset: Int) {
      store(key.high.byteSwapped, offset)
      store(key.low.byteSwapped, offset + 8)
    }
    var end = Self.fixedByteCount
    func append(_ more: [UInt8]) {
      unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[end...]).copyBytes(from: more)
      end += more.count
    }
    store(Self.magic, Offset.magic)
    store(Self.formatVersion, Offset.formatVersion)
    store(headerByteCount, Offset.headerByteCount)
    store(UInt32(usedByteCount), Offset.usedByteCount)
    store(namespaceID.rawValue, Offset.namespaceID)
    unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[Offset.storeUUID...])
      .copyBytes(from: storeUUID)
    store(rootKey, Offset.rootKey)
    store(blockKey, Offset.blockKey)
    store(parentKey, Offset.parentKey)
    store(depth, Offset.depth)
    store(UInt32(words.count / 4), Offset.wordCount)
    store(UInt32(extra.count), Offset.extraByteCount)
    store(UInt32(regions.count), Offset.regionCount)
    store(payloadByteCount, Offset.payloadByteCount)
    store(storedByteCount, Offset.storedByteCount)
    store(expiry, Offset.expiry)
    store(created, Offset.created)
    store(codec, Offset.codec)
    store(tier.rawValue, Offset.tier)
    store(group, Offset.group)
    store(priority, Offset.priority)
    store(UInt32(hasIdleExpiry ? 1 : 0), Offset.flags)
    store(slotByteCount, Offset.slotByteCount)
    store(UInt32(0), Offset.reserved)
    for region in regions {
      store(region.rawByteCount, end + RegionOffset.rawByteCount)
      store(region.storedByteCount, end + RegionOffset.storedByteCount)
      store(region.checksum, end + RegionOffset.checksum)
      end += Self.regionByteCount
    }
    append(words)
    append(extra)
    // What the memory held before may be another tenant's: it does not get to disk.
    unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[end...])
      .initializeMemory(as: UInt8.self, repeating: 0)
    return unsafe Self.seal(bytes, generation: generation) != nil
  }

  /// Sets the generation of an encoded header and its checksum anew; returns the checksum.
  ///
  /// The slot's size as well where it is in the archive.
  package static func seal(
    _ bytes: UnsafeMutableRawBufferPointer,
    generation: Generation,
    slotByteCount: UInt32? = nil
  ) -> UInt64? {
    guard bytes.count >= fixedByteCount else { return nil }
    let used = unsafe Int(
      UInt32(littleEndian: bytes.load(fromByteOffset: Offset.usedByteCount, as: UInt32.self))
    )
    guard used >= fixedByteCount, used <= bytes.count else { return nil }
    unsafe bytes.storeBytes(
      of: generation.rawValue.littleEndian,
      toByteOffset: Offset.generation,
      as: UInt64.self
    )
    if let slotByteCount {
      unsafe bytes.storeBytes(
        of: slotByteCount.littleEndian,
        toByteOffset: Offset.slotByteCount,
        as: UInt32.self
      )
    }
    let checksum = xxh3Checksum(
      unsafe UnsafeRawBufferPointer(rebasing: bytes[Offset.usedByteCount..<used])
    )
    unsafe bytes.storeBytes(
      of: checksum.littleEndian,
      toByteOffset: Offset.checksum,
      as: UInt64.self
    )
    return checksum
  }
}
