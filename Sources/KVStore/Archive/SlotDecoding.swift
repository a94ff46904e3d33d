internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVTiers

/// One archive slot on its way to being a raw one: what the reading thread does once it has the bytes.
///
/// Unchecked: until the read is reported nobody else touches the memory.
@safe final class SlotDecoding: @unchecked Sendable {
  private let coders: SlotCoders
  private let place: BlockPlace
  private let headerByteCount: Int
  private let regions: [Range<Int>]
  /// The stored bytes.
  private let stored: AlignedBuffer
  private let target: UnsafeMutableRawBufferPointer
  /// Keeps the target, where it is not a slot of the arena.
  private let owner: AlignedBuffer?

  /// Nil when memory is short or the place is none.
  ///
  /// `target` holds a raw slot; `regions` of it are wanted.
  init?(
    _ coders: SlotCoders,
    _ place: BlockPlace,
    _ layout: SlotLayout,
    regions: [Range<Int>],
    into target: UnsafeMutableRawBufferPointer,
    owner: AlignedBuffer?
  ) {
    let byteCount = roundUp(layout.headerByteCount + Int(place.storedByteCount), to: 4096)
    guard let stored = try? AlignedBuffer(byteCount: byteCount) else { return nil }
    self.coders = coders
    self.place = place
    headerByteCount = layout.headerByteCount
    self.regions = regions
    self.stored = stored
    unsafe self.target = unsafe target
    self.owner = owner
  }

  /// The read that ends with the decoding; nil when the archive has no such file.
  func request(_ files: ArchiveFiles) -> ReadRequest? {
    let address = SlotAddress(tier: place.tier, file: place.file, slot: place.slot)
    guard let slotByteCount = files.slotByteCount(address.file),
      unsafe stored.bytes.count <= slotByteCount
    else { return nil }
    return unsafe ReadRequest(
      address: address,
      slotByteCount: slotByteCount,
      offset: 0,
      buffer: stored.bytes
    ) { [self] in run() ? nil : .unsound }
  }

  /// Every stored byte that is used is checked: the header against the catalog's, the regions against the header.
  private func run() -> Bool {
    let header = unsafe UnsafeRawBufferPointer(rebasing: stored.readOnly[0..<headerByteCount])
    guard let view = unsafe SlotHeaderView(header), BlockBytes.isPromised(view, by: place)
    else { return false }
    return coders.withDecoder { decoder in
      unsafe decoder.decode(
        stored.readOnly,
        headerByteCount: headerByteCount,
        regions: regions,
        into: target
      )
    } ?? false
  }
}
