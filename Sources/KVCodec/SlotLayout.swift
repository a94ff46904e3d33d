internal import KVCore

/// Where the parts of a namespace's slots lie (docs/file-format.md, "Slot files").
package struct SlotLayout: Sendable, Equatable {
  /// Bytes before the first region; a multiple of 4096.
  package let headerByteCount: Int
  /// Bytes of a whole slot; a multiple of 4096.
  package let slotByteCount: Int
  private let regionOffsets: [Int]
  private let payloadEnd: Int

  package init(regionByteCounts: [Int], wordsPerBlock: Int, extraByteCountMax: Int) {
    let used =
      SlotHeader.fixedByteCount + SlotHeader.regionByteCount * regionByteCounts.count
      + 4 * wordsPerBlock + extraByteCountMax
    headerByteCount = roundUp(used, to: 4096)
    var offset = headerByteCount
    var offsets: [Int] = []
    offsets.reserveCapacity(regionByteCounts.count)
    for byteCount in regionByteCounts {
      offsets.append(offset)
      offset += byteCount
    }
    regionOffsets = offsets
    payloadEnd = offset
    slotByteCount = headerByteCount + roundUp(offset - headerByteCount, to: 4096)
  }

  /// Offset in the slot of a region when all before it have their largest size.
  package func regionOffset(_ region: Int) -> Int { regionOffsets[region] }

  /// Offset in the slot behind a region, likewise.
  package func regionEnd(_ region: Int) -> Int {
    region + 1 < regionOffsets.count ? regionOffsets[region + 1] : payloadEnd
  }
}
