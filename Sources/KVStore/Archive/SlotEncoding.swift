internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVTiers

/// One block on its way from a slot of the disk to one of the archive: what the reading thread does once it has the bytes.
///
/// Unchecked: until the read is reported only the reading thread touches it, afterwards only the writer's.
@safe final class SlotEncoding: @unchecked Sendable {
  let block: PlacedBlock
  let namespace: ArchivedNamespace
  /// Header and frames, as they go to the archive; the header is still without generation and slot size.
  private(set) var result: SlotEncoder.Result?
  /// The bytes on disk are not what the catalog promised.
  private(set) var isDamaged = false
  private(set) var payloadByteCount = 0
  let target: AlignedBuffer
  private let coders: SlotCoders
  private var source: AlignedBuffer?

  /// Nil when memory is short.
  init?(_ coders: SlotCoders, _ block: PlacedBlock, _ namespace: ArchivedNamespace) {
    let bound = SlotEncoder.bound(
      headerByteCount: namespace.layout.headerByteCount,
      regionByteCounts: namespace.identity.regionByteCounts
    )
    guard let source = try? AlignedBuffer(byteCount: namespace.layout.slotByteCount),
      let target = try? AlignedBuffer(byteCount: bound)
    else { return nil }
    self.block = block
    self.namespace = namespace
    self.source = source
    self.target = target
    self.coders = coders
  }

  /// The read that ends with the encoding.
  var request: ReadRequest? {
    guard let source else { return nil }
    let place = block.place
    // Payload that is shorter than its slot has unwritten padding behind it, which costs no more than its reading.
    return unsafe ReadRequest(
      address: SlotAddress(tier: place.tier, file: place.file, slot: place.slot),
      slotByteCount: namespace.layout.slotByteCount,
      offset: 0,
      buffer: source.bytes
    ) { [self] in encode() ? nil : .unsound }
  }

  private func encode() -> Bool {
    guard let source else { return false }
    defer { self.source = nil }
    let layout = namespace.layout
    let header = unsafe UnsafeRawBufferPointer(
      rebasing: source.readOnly[0..<layout.headerByteCount]
    )
    guard let view = unsafe SlotHeaderView(header), view.checksum == block.place.headerChecksum,
      view.generation == block.place.generation,
      view.payloadByteCount <= layout.slotByteCount - layout.headerByteCount
    else {
      isDamaged = true
      return false
    }
    payloadByteCount = view.payloadByteCount
    let payload = unsafe UnsafeRawBufferPointer(
      rebasing: source.readOnly[layout.headerByteCount...].prefix(view.payloadByteCount)
    )
    let format = unsafe namespace.format(payload)
    result = coders.withEncoder { encoder in
      unsafe encoder.encode(
        source.readOnly,
        headerByteCount: layout.headerByteCount,
        format,
        generation: block.place.generation,
        into: target.bytes
      )
    }
    isDamaged = result == nil
    return !isDamaged
  }

  /// Completes the header for a slot; returns the place, nil if there is none.
  func seal(_ slot: SlotAddress, _ slotByteCount: Int, _ generation: Generation) -> BlockPlace? {
    guard let result else { return nil }
    let header = unsafe UnsafeMutableRawBufferPointer(
      rebasing: target.bytes[0..<namespace.layout.headerByteCount]
    )
    guard
      let checksum = unsafe SlotHeader.seal(
        header,
        generation: generation,
        slotByteCount: UInt32(slotByteCount)
      )
    else { return nil }
    return BlockPlace(
      tier: .archive,
      codec: result.codec,
      group: block.place.group,
      isInline: false,
      file: slot.file,
      slot: slot.slot,
      storedByteCount: UInt32(result.storedByteCount),
      generation: generation,
      headerChecksum: checksum
    )
  }
}

/// What moving a namespace's blocks takes; also of one that this process has not opened.
final class ArchivedNamespace: Sendable {
  let id: NamespaceID
  let identity: NamespaceIdentity
  let layout: SlotLayout
  /// Found out by the first block that is encoded.
  private let known = Monitor<PayloadFormat?>(nil)

  init?(_ row: NamespaceRow) {
    guard let identity = NamespaceIdentity(record: row.identityRecord) else { return nil }
    id = row.id
    self.identity = identity
    layout = SlotLayout(
      regionByteCounts: identity.regionByteCounts,
      wordsPerBlock: identity.wordsPerBlock,
      extraByteCountMax: identity.extraByteCountMax
    )
    guard layout.slotByteCount == Int(row.slotByteCount) else { return nil }
  }

  func format(_ payload: UnsafeRawBufferPointer) -> PayloadFormat {
    known.withLock { known in
      if let known { return known }
      let format = unsafe PayloadFormat.detect(
        payload,
        ElementType(name: identity.kvDtype) ?? .opaque
      )
      known = format
      return format
    }
  }
}
