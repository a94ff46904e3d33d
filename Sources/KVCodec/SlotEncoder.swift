package import KVCore

/// Makes archive slots from slots of the disk tier: the same header fields, the payload as frames.
///
/// For one thread at a time.
package struct SlotEncoder: ~Copyable {
  /// What came out.
  package struct Result: Sendable, Equatable {
    /// Header and stored bytes, up to the next multiple of 4096.
    package var byteCount: Int
    package var storedByteCount: Int
    /// 0 = the payload is stored as it is.
    package var codec: UInt8
    package var headerChecksum: UInt64
  }

  /// In slot header and place: the payload is made of frames.
  package static let framesCodec: UInt8 = 1

  private let payloads: PayloadEncoder

  /// Nil when memory is short.
  package init?() {
    guard let payloads = PayloadEncoder() else { return nil }
    self.payloads = payloads
  }

  /// Room that encoding a slot of a namespace needs.
  package static func bound(headerByteCount: Int, regionByteCounts: [Int]) -> Int {
    roundUp(headerByteCount + PayloadEncoder.bound(regionByteCounts), to: 4096)
  }

  /// Encodes a raw slot; nil when its bytes are not what its header says, so that damage is never handed on.
  ///
  /// `slot` is the header and the regions behind it, whose header has been compared with the catalog's. `target` needs `bound`.
  package borrowing func encode(
    _ slot: UnsafeRawBufferPointer,
    headerByteCount: Int,
    _ format: PayloadFormat,
    generation: Generation,
    into target: UnsafeMutableRawBufferPointer
  ) -> Result? {
    guard headerByteCount <= slot.count,
      let view = unsafe SlotHeaderView(UnsafeRawBufferPointer(rebasing: slot[0..<headerByteCount])),
      view.codec == 0, headerByteCount + view.payloadByteCount <= slot.count
    else { return nil }
    let payload = unsafe UnsafeRawBufferPointer(
      rebasing: slot[headerByteCount..<headerByteCount + view.payloadByteCount]
    )
    var header = SlotHeader(view)
    let sizes = header.regions.map { Int($0.rawByteCount) }
    guard unsafe Self.regionsMatch(header.regions, payload),
      target.count >= Self.bound(headerByteCount: headerByteCount, regionByteCounts: sizes)
    else { return nil }
    let body = unsafe UnsafeMutableRawBufferPointer(rebasing: target[headerByteCount...])
    var stored = sizes
    if let counts = unsafe payloads.encode(payload, regionByteCounts: sizes, format, into: body) {
      stored = counts
      header.codec = Self.framesCodec
    } else {
      unsafe body.copyMemory(from: payload)
    }
    var offset = 0
    for index in stored.indices {
      let bytes = unsafe UnsafeRawBufferPointer(rebasing: body[offset..<offset + stored[index]])
      header.regions[index].storedByteCount = UInt32(stored[index])
      header.regions[index].checksum = xxh3Checksum(bytes)
      offset += stored[index]
    }
    header.storedByteCount = UInt32(offset)
    header.tier = .archive
    header.generation = generation
    let end = roundUp(headerByteCount + offset, to: 4096)
    let headerBytes = unsafe UnsafeMutableRawBufferPointer(rebasing: target[0..<headerByteCount])
    guard unsafe header.encode(into: headerBytes),
      let checksum = unsafe SlotHeaderView(UnsafeRawBufferPointer(headerBytes))?.checksum
    else { return nil }
    // What the memory held before may be another tenant's: it does not get to disk.
    unsafe UnsafeMutableRawBufferPointer(rebasing: target[headerByteCount + offset..<end])
      .initializeMemory(as: UInt8.self, repeating: 0)
    return Result(
      byteCount: end,
      storedByteCount: offset,
      codec: header.codec,
      headerChecksum: checksum
    )
  }

  private static func regionsMatch(
    _ regions: [SlotHeader.Region],
    _ payload: UnsafeRawBufferPointer
  ) -> Bool {
    var offset = 0
    for region in regions {
      let count = Int(region.storedByteCount)
      guard region.rawByteCount == region.storedByteCount, offset + count <= payload.count,
        unsafe xxh3Checksum(UnsafeRawBufferPointer(rebasing: payload[offset..<offset + count]))
          == region.checksum
      else { return false }
      offset += count
    }
    return offset == payload.count
  }
}
