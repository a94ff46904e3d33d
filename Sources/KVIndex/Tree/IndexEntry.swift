package import KVCore

/// What the index knows of one block, besides its words and extra bytes: 72 bytes.
///
/// The index itself reads `hostSlot` only; all else belongs to the store.
package struct IndexEntry: Hashable, Sendable {
  /// Facts about a block.
  package struct Flags: OptionSet, Hashable, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The durable place is set.
    package static let durable = Flags(rawValue: 1)
    /// The durable place is the catalog's table `payloads`.
    package static let inline = Flags(rawValue: 2)
    /// Offloaded here and not published yet.
    package static let pending = Flags(rawValue: 4)
    /// A check failed: hidden until the writer has removed it.
    package static let corrupt = Flags(rawValue: 8)
    /// The expiry counts from the last use.
    package static let idleExpiry = Flags(rawValue: 16)
  }

  package var blockKey: BlockKey
  private var generation: UInt64 = 0
  private var headerChecksum: UInt64 = 0
  /// Unix time in nanoseconds, 0 = never; of an idle life as it is now.
  package var expiry: UInt64
  /// Of an idle life: nanoseconds after a use.
  package var idleNanoseconds: UInt64 = 0
  private var file: UInt32 = 0
  private var slot: UInt32 = 0
  private var storedByteCount: UInt32 = 0
  package var payloadByteCount: UInt32
  /// The slot in the host tier that holds a copy, or -1.
  package var hostSlot: Int32
  private var tier: Tier = .disk
  private var codec: UInt8 = 0
  private var group: UInt8 = 0
  package var flags: Flags

  package init(
    blockKey: BlockKey,
    place: BlockPlace? = nil,
    payloadByteCount: UInt32 = 0,
    expiry: UInt64 = 0,
    hostSlot: Int32 = -1,
    flags: Flags = []
  ) {
    self.blockKey = blockKey
    self.expiry = expiry
    self.payloadByteCount = payloadByteCount
    self.hostSlot = hostSlot
    self.flags = flags
    self.place = place
  }

  /// The tier of the durable place, if there is one.
  package var durableTier: Tier? { flags.contains(.durable) ? tier : nil }

  /// The durable place; setting it keeps `flags.durable` and `flags.inline` in step.
  package var place: BlockPlace? {
    get {
      guard flags.contains(.durable) else { return nil }
      return BlockPlace(
        tier: tier,
        codec: codec,
        group: group,
        isInline: flags.contains(.inline),
        file: file,
        slot: slot,
        storedByteCount: storedByteCount,
        generation: Generation(rawValue: generation),
        headerChecksum: headerChecksum
      )
    }
    set {
      flags.subtract([.durable, .inline])
      guard let place = newValue else { return }
      flags.insert(place.isInline ? [.durable, .inline] : .durable)
      tier = place.tier
      codec = place.codec
      group = place.group
      file = place.file
      slot = place.slot
      storedByteCount = place.storedByteCount
      generation = place.generation.rawValue
      headerChecksum = place.headerChecksum
    }
  }
}
