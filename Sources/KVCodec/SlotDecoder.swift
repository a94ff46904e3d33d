internal import KVCore

/// Turns archive slots back into raw ones; for one thread at a time.
package struct SlotDecoder: ~Copyable {
  private let frames: FrameDecoder

  /// Nil when memory is short.
  package init?() {
    guard let frames = FrameDecoder() else { return nil }
    self.frames = frames
  }

  /// Decodes some regions of a slot into `target`, where they come to lie as in a raw slot; false when a check fails.
  ///
  /// `slot` is header and stored bytes, whose header has been compared with the catalog's; every stored byte that is used is
  /// checked here. The target gets a header that describes it: raw, with the checksums of all regions only when all of them were asked for
  /// (those of the others are 0). `wanted` is ascending. Regions are decoded in groups, so neighbours may come along.
  package borrowing func decode(
    _ slot: UnsafeRawBufferPointer,
    headerByteCount: Int,
    regions wanted: [Range<Int>],
    into target: UnsafeMutableRawBufferPointer
  ) -> Bool {
    guard headerByteCount <= slot.count, headerByteCount <= target.count,
      let view = unsafe SlotHeaderView(UnsafeRawBufferPointer(rebasing: slot[0..<headerByteCount])),
      view.codec <= SlotEncoder.framesCodec,
      wanted.allSatisfy({ $0.upperBound <= view.regionCount }),
      headerByteCount + view.payloadByteCount <= target.count
    else { return false }
    var header = SlotHeader(view)
    let isEncoded = view.codec == SlotEncoder.framesCodec
    var read = headerByteCount
    var written = headerByteCount
    var region = 0
    while region < view.regionCount {
      // A region with stored bytes and those behind it without are one group.
      var past = region + 1
      if isEncoded {
        while past < view.regionCount, header.regions[past].storedByteCount == 0 { past += 1 }
      }
      let first = header.regions[region]
      let rawCount = header.regions[region..<past].reduce(0) { $0 + Int($1.rawByteCount) }
      let storedCount = Int(first.storedByteCount)
      guard read + storedCount <= slot.count, written + rawCount <= target.count else {
        return false
      }
      if wanted.contains(where: { $0.overlaps(region..<past) }) {
        let stored = unsafe UnsafeRawBufferPointer(rebasing: slot[read..<read + storedCount])
        let raw = unsafe UnsafeMutableRawBufferPointer(
          rebasing: target[written..<written + rawCount]
        )
        guard xxh3Checksum(stored) == first.checksum else { return false }
        if isEncoded {
          guard unsafe rawCount == 0 || frames.decode(stored, into: raw) == storedCount else {
            return false
          }
        } else {
          guard rawCount == storedCount else { return false }
          unsafe raw.copyMemory(from: stored)
        }
      }
      read += storedCount
      written += rawCount
      region = past
    }
    guard written - headerByteCount == view.payloadByteCount else { return false }
    unsafe describe(&header, isWhole: wanted == [0..<view.regionCount], target, headerByteCount)
    return unsafe header.encode(
      into: UnsafeMutableRawBufferPointer(rebasing: target[0..<headerByteCount])
    )
  }

  /// Makes the header that of a raw slot.
  private borrowing func describe(
    _ header: inout SlotHeader,
    isWhole: Bool,
    _ target: UnsafeMutableRawBufferPointer,
    _ headerByteCount: Int
  ) {
    var offset = headerByteCount
    for index in header.regions.indices {
      let count = Int(header.regions[index].rawByteCount)
      let raw = unsafe UnsafeRawBufferPointer(rebasing: target[offset..<offset + count])
      header.regions[index].storedByteCount = header.regions[index].rawByteCount
      header.regions[index].checksum = isWhole ? xxh3Checksum(raw) : 0
      offset += count
    }
    header.codec = 0
    header.tier = .disk
    header.slotByteCount = 0
    header.storedByteCount = header.payloadByteCount
  }
}
