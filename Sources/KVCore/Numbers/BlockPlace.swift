/// Where the payload of a block lies on a durable tier: the 32 bytes of docs/file-format.md, "Place".
package struct BlockPlace: Hashable, Sendable {
  package static let byteCount = 32

  package var tier: Tier
  package var codec: UInt8
  package var group: UInt8
  /// The payload is in the catalog's table `payloads`; file and slot are 0.
  package var isInline: Bool
  package var file: UInt32
  package var slot: UInt32
  package var storedByteCount: UInt32
  package var generation: Generation
  package var headerChecksum: UInt64

  package init(
    tier: Tier,
    codec: UInt8 = 0,
    group: UInt8 = 0,
    isInline: Bool,
    file: UInt32,
    slot: UInt32,
    storedByteCount: UInt32,
    generation: Generation,
    headerChecksum: UInt64
  ) {
    self.tier = tier
    self.codec = codec
    self.group = group
    self.isInline = isInline
    self.file = file
    self.slot = slot
    self.storedByteCount = storedByteCount
    self.generation = generation
    self.headerChecksum = headerChecksum
  }
}
