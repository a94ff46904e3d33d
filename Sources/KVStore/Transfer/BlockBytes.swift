internal import KVCatalog
internal import KVCodec
internal import KVCore

/// A stored block's bytes in memory; here alone it is said what a sound block is.
///
/// It is the one that the catalog promised (`isPromised`), of this store, namespace and prompt, and each region has
/// the checksum that its header says. The header is checked when this is made, a region when it is lent: it is in
/// the processor's cache then. What was decoded from the archive has been checked as it was stored (`SlotDecoding`).
@safe struct BlockBytes {
  private let base: UnsafeRawPointer
  /// Nil for a whole slot.
  private let pieces: SlotPieces?
  private let header: SlotHeaderView
  private let headerByteCount: Int
  private let slotByteCount: Int
  private let isChecked: Bool

  /// The block's copy in the arena, which was checked when it came from disk.
  ///
  /// Its header may be being sealed just now, so what it says of itself is not compared.
  init?(hostCopy slot: UnsafeRawPointer, _ namespace: NamespaceCore) {
    guard
      let header = unsafe SlotHeaderView(
        trusted: UnsafeRawBufferPointer(start: slot, count: namespace.layout.headerByteCount)
      )
    else { return nil }
    unsafe base = slot
    pieces = nil
    self.header = header
    headerByteCount = namespace.layout.headerByteCount
    slotByteCount = namespace.layout.slotByteCount
    isChecked = true
  }

  /// What was read from a slot, or the parts of it; nil when it is not the block that was planned.
  init?(
    read base: UnsafeRawPointer,
    _ pieces: SlotPieces,
    _ place: BlockPlace,
    _ planned: PlannedBlock,
    _ call: RestoreCall
  ) {
    let layout = call.namespace.layout
    guard
      let header = unsafe SlotHeaderView(
        UnsafeRawBufferPointer(start: base, count: layout.headerByteCount)
      ), call.isBlock(header, place, planned)
    else { return nil }
    unsafe self.base = unsafe base
    self.pieces = pieces
    self.header = header
    headerByteCount = layout.headerByteCount
    slotByteCount = layout.slotByteCount
    isChecked = place.tier == .archive
  }

  /// The same of a row of the catalog's table `payloads`: a header without padding, then the payload.
  init?(
    packed row: UnsafeRawBufferPointer,
    _ place: BlockPlace,
    _ planned: PlannedBlock,
    _ call: RestoreCall
  ) {
    let layout = call.namespace.layout
    guard let base = row.baseAddress, let header = unsafe SlotHeaderView(row),
      header.usedByteCount <= layout.headerByteCount, call.isBlock(header, place, planned)
    else { return nil }
    unsafe self.base = base
    pieces = SlotPieces(packed: row.count, usedByteCount: header.usedByteCount, layout)
    self.header = header
    headerByteCount = layout.headerByteCount
    slotByteCount = layout.slotByteCount
    isChecked = false
  }

  /// Whether a header that was read is the one that the catalog's row promised.
  static func isPromised(_ header: SlotHeaderView, by place: BlockPlace) -> Bool {
    header.checksum == place.headerChecksum && header.generation == place.generation
  }

  /// Lends some regions (ascending) one after the other, each checked; false at the first that is not sound.
  func forEachRegion(
    of ranges: [Range<Int>],
    _ body: (_ region: Int, UnsafeRawBufferPointer) -> Void
  ) -> Bool {
    var offset = headerByteCount
    var region = 0
    for range in ranges {
      while region < range.lowerBound {
        offset += Int(header.region(region).storedByteCount)
        region += 1
      }
      while region < range.upperBound {
        let stored = header.region(region)
        let length = Int(stored.storedByteCount)
        guard length <= slotByteCount - offset,
          let start = pieces == nil ? offset : pieces?.start(of: offset, byteCount: length)
        else { return false }
        let bytes = unsafe UnsafeRawBufferPointer(start: base + start, count: length)
        if !isChecked, xxh3Checksum(bytes) != stored.checksum { return false }
        unsafe body(region, bytes)
        offset += length
        region += 1
      }
    }
    return true
  }

  /// Where one region lies; nil when it is not sound.
  @unsafe func region(_ index: Int) -> UnsafeRawBufferPointer? {
    var found: UnsafeRawBufferPointer?
    _ = unsafe forEachRegion(of: [index..<index + 1]) { unsafe found = $1 }
    return unsafe found
  }

  /// Lays the block out as slots have it, the header padded; false when it is not sound.
  func copy(to slot: UnsafeMutableRawPointer) -> Bool {
    unsafe slot.copyMemory(from: base, byteCount: header.usedByteCount)
    unsafe UnsafeMutableRawBufferPointer(
      start: slot + header.usedByteCount,
      count: headerByteCount - header.usedByteCount
    ).initializeMemory(as: UInt8.self, repeating: 0)
    var offset = headerByteCount
    return unsafe forEachRegion(of: [0..<header.regionCount]) { _, bytes in
      guard let start = bytes.baseAddress else { return }
      unsafe (slot + offset).copyMemory(from: start, byteCount: bytes.count)
      offset += bytes.count
    }
  }
}

extension RestoreCall {
  /// Whether a header is that of the block that was planned.
  ///
  /// That of a decoded slot is not the stored one any more, which was compared before.
  fileprivate func isBlock(
    _ header: SlotHeaderView,
    _ place: BlockPlace,
    _ planned: PlannedBlock
  ) -> Bool {
    guard place.tier == .archive || BlockBytes.isPromised(header, by: place),
      header.generation == place.generation,
      header.namespaceID == namespace.id,
      unsafe header.storeUUID.elementsEqual(core.storeUUID),
      header.rootKey == namespace.chain.rootKey,
      header.blockKey == planned.blockKey,
      header.regionCount == namespace.regionCount,
      let block = namespace.block(planned.block, of: prompt)
    else { return false }
    return block.matches(header)
  }
}
