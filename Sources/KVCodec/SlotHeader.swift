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
  static let checksumOffset = 16
  static let checkedOffset = 24
  static let generationOffset = 48
  static let slotSizeOffset = 152

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
    var writer = ByteWriter(capacity: usedByteCount)
    writer.append(Self.magic)
    writer.append(Self.formatVersion)
    writer.append(headerByteCount)
    writer.append(UInt64(0))
    writer.append(UInt32(usedByteCount))
    writer.append(namespaceID.rawValue)
    writer.append(contentsOf: storeUUID)
    writer.append(generation.rawValue)
    writer.append(rootKey)
    writer.append(blockKey)
    writer.append(parentKey)
    writer.append(depth)
    writer.append(UInt32(words.count / 4))
    writer.append(UInt32(extra.count))
    writer.append(UInt32(regions.count))
    writer.append(payloadByteCount)
    writer.append(storedByteCount)
    writer.append(expiry)
    writer.append(created)
    writer.append(contentsOf: [codec, tier.rawValue, group, priority])
    writer.append(UInt32(hasIdleExpiry ? 1 : 0))
    writer.append(slotByteCount)
    writer.append(UInt32(0))
    for region in regions {
      writer.append(region.rawByteCount)
      writer.append(region.storedByteCount)
      writer.append(region.checksum)
    }
    writer.append(contentsOf: words)
    writer.append(contentsOf: extra)
    unsafe bytes.copyBytes(from: writer.bytes)
    // What the memory held before may be another tenant's: it does not get to disk.
    unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[usedByteCount...])
      .initializeMemory(as: UInt8.self, repeating: 0)
    return unsafe Self.seal(bytes, generation: generation) != nil
  }

  /// Sets the generation of an encoded header and its checksum anew; answers the checksum.
  ///
  /// The slot's size as well where it is in the archive.
  package static func seal(
    _ bytes: UnsafeMutableRawBufferPointer,
    generation: Generation,
    slotByteCount: UInt32? = nil
  ) -> UInt64? {
    guard bytes.count >= fixedByteCount else { return nil }
    let used = unsafe Int(UInt32(littleEndian: bytes.load(fromByteOffset: 24, as: UInt32.self)))
    guard used >= fixedByteCount, used <= bytes.count else { return nil }
    unsafe bytes.storeBytes(
      of: generation.rawValue.littleEndian,
      toByteOffset: generationOffset,
      as: UInt64.self
    )
    if let slotByteCount {
      unsafe bytes.storeBytes(
        of: slotByteCount.littleEndian,
        toByteOffset: slotSizeOffset,
        as: UInt32.self
      )
    }
    let checksum = xxh3Checksum(
      unsafe UnsafeRawBufferPointer(rebasing: bytes[checkedOffset..<used])
    )
    unsafe bytes.storeBytes(
      of: checksum.littleEndian,
      toByteOffset: checksumOffset,
      as: UInt64.self
    )
    return checksum
  }
}
