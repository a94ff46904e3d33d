internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVTiers

extension PlannedReads {
  /// The read of an archive slot, decoded into an arena slot or memory of its own: it looks like a raw slot then.
  static func archiveRead(
    _ core: StoreCore,
    _ place: BlockPlace,
    promoteTo: HostSlot?,
    _ namespace: NamespaceCore,
    regions: [Range<Int>],
    request: Int
  ) -> (ReadRequest, Memory)? {
    let byteCount = namespace.layout.slotByteCount
    var buffer: AlignedBuffer?
    let base: UnsafeMutableRawPointer
    if let promoteTo {
      unsafe base = core.hostMemory(of: promoteTo, namespace)
    } else {
      guard let own = try? AlignedBuffer(byteCount: byteCount),
        let address = unsafe own.bytes.baseAddress
      else { return nil }
      buffer = own
      unsafe base = address
    }
    let decoding = unsafe SlotDecoding(
      core,
      place,
      namespace.layout,
      regions: promoteTo == nil ? regions : [0..<namespace.regionCount],
      into: UnsafeMutableRawBufferPointer(start: base, count: byteCount),
      owner: buffer
    )
    guard let read = decoding?.request(core) else { return nil }
    let memory = unsafe Memory(
      base: base,
      pieces: SlotPieces(byteCount: byteCount),
      buffer: buffer,
      requests: request..<request + 1
    )
    return (read, memory)
  }
}
