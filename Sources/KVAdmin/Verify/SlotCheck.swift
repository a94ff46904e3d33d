internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVStore

/// Compares what a slot holds with what the catalog says of its block.
struct SlotCheck {
  let storeUUID: [UInt8]
  let namespace: NamespaceRow
  let regionCount: Int

  init?(storeUUID: [UInt8], namespace: NamespaceRow) {
    guard let identity = NamespaceIdentity(record: namespace.identityRecord) else { return nil }
    self.storeUUID = storeUUID
    self.namespace = namespace
    regionCount = identity.regionByteCounts.count
  }

  /// What is wrong with a slot's bytes, or with an inline payload's; nil when they are the block's.
  ///
  /// `bytes` begins with the header. Without payload it may end there.
  func problem(
    in bytes: UnsafeRawBufferPointer,
    of block: AuditedBlock,
    at place: BlockPlace,
    checksPayload: Bool
  ) -> (kind: Finding.Kind, text: String)? {
    let headerByteCount = Int(namespace.headerByteCount)
    let headerBytes = unsafe UnsafeRawBufferPointer(rebasing: bytes.prefix(headerByteCount))
    guard let header = unsafe SlotHeaderView(headerBytes) else {
      return (.slotHeader, "no header, or its checksum does not match")
    }
    if let text = difference(header, block, place) { return (.slotHeader, text) }
    guard checksPayload else { return nil }
    let start = place.isInline ? header.usedByteCount : headerByteCount
    return unsafe Self.payloadProblem(header, bytes, from: start)
  }

  /// Whether what an archive slot holds can be decoded; its checksums have been compared.
  func decodes(
    _ bytes: UnsafeRawBufferPointer,
    payloadByteCount: Int,
    _ decoder: borrowing SlotDecoder
  ) -> Bool {
    let headerByteCount = Int(namespace.headerByteCount)
    let target = UnsafeMutableRawBufferPointer.allocate(
      byteCount: headerByteCount + payloadByteCount,
      alignment: 64
    )
    defer { unsafe target.deallocate() }
    return unsafe decoder.decode(
      bytes,
      headerByteCount: headerByteCount,
      regions: [0..<regionCount],
      into: target
    )
  }

  private func difference(
    _ header: SlotHeaderView,
    _ block: AuditedBlock,
    _ place: BlockPlace
  ) -> String? {
    if header.generation != place.generation { return "the header has another generation" }
    if header.checksum != place.headerChecksum { return "the header is not the one of the row" }
    if unsafe !header.storeUUID.elementsEqual(storeUUID) { return "the header is another store's" }
    if header.namespaceID != block.namespace || header.rootKey != namespace.rootKey {
      return "the header is another namespace's"
    }
    if header.blockKey != block.blockKey { return "the header has another key" }
    if let parentKey = block.parentKey, header.parentKey != parentKey {
      return "the header has another parent"
    }
    if unsafe !header.words.elementsEqual(block.words) { return "the header has other words" }
    if unsafe !header.extra.elementsEqual(block.extra) { return "the header has other extra bytes" }
    if header.headerByteCount != Int(namespace.headerByteCount) {
      return "the header has another size"
    }
    if header.regionCount != regionCount { return "\(header.regionCount) regions" }
    if header.payloadByteCount != Int(block.payloadByteCount)
      || header.storedByteCount != Int(place.storedByteCount)
    {
      return "the header has other byte counts"
    }
    return nil
  }

  /// The first region whose bytes are not what the header says; `start` is where the first one begins.
  static func payloadProblem(
    _ header: SlotHeaderView,
    _ bytes: UnsafeRawBufferPointer,
    from start: Int
  ) -> (kind: Finding.Kind, text: String)? {
    var offset = start
    for index in 0..<header.regionCount {
      let region = header.region(index)
      let end = offset + Int(region.storedByteCount)
      guard end <= bytes.count else { return (.payload, "region \(index) is cut off") }
      let stored = unsafe UnsafeRawBufferPointer(rebasing: bytes[offset..<end])
      guard xxh3Checksum(stored) == region.checksum else {
        return (.payload, "the checksum of region \(index) does not match")
      }
      offset = end
    }
    return offset - start == header.storedByteCount
      ? nil : (.slotHeader, "the regions are not as long as the payload")
  }
}
