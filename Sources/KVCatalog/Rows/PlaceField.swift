import KVCore

/// A place as it lies in a block row: docs/file-format.md, "Place".
extension BlockPlace {
  private enum Offset {
    static let tier = 0
    static let codec = 1
    static let group = 2
    static let flags = 3
    static let file = 4
    static let slot = 8
    static let storedByteCount = 12
    static let generation = 16
    static let headerChecksum = 24
  }

  /// The caller has checked that the bytes are there.
  init?(_ bytes: UnsafeRawBufferPointer, at start: Int) {
    guard let tier = unsafe Tier(rawValue: bytes[start + Offset.tier]) else { return nil }
    unsafe self.init(
      tier: tier,
      codec: bytes[start + Offset.codec],
      group: bytes[start + Offset.group],
      isInline: bytes[start + Offset.flags] & 1 != 0,
      file: bytes.loadInteger(start + Offset.file),
      slot: bytes.loadInteger(start + Offset.slot),
      storedByteCount: bytes.loadInteger(start + Offset.storedByteCount),
      generation: Generation(rawValue: bytes.loadInteger(start + Offset.generation)),
      headerChecksum: bytes.loadInteger(start + Offset.headerChecksum)
    )
  }

  /// In the order of the offsets, without a gap.
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
