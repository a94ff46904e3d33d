/// Encodes the payload of a block as independent frames, each of one group of neighbouring regions or of a piece of a large one.
///
/// A restore of some layers decodes their groups only, and several threads decode a block. For one thread at a time.
package struct PayloadEncoder: ~Copyable {
  /// Small neighbouring regions of equal size share a frame up to this size: each frame brings a Huffman table of its own.
  package static let groupByteCount = 64 << 10
  /// A larger region is cut: zstd makes a new Huffman table every 128 KiB in any case, and a frame should fit in a
  /// processor's cache.
  package static let pieceByteCountMax = 128 << 10

  private let frames: FrameEncoder

  /// Nil when memory is short.
  package init?() {
    guard let frames = FrameEncoder() else { return nil }
    self.frames = frames
  }

  /// Room that encoding a payload needs at most.
  package static func bound(_ regionByteCounts: [Int]) -> Int {
    regionByteCounts.reduce(0) {
      $0 + $1 + ($1 / (pieceByteCountMax / 2) + 2) * FrameEncoder.overheadByteCount
    }
  }

  /// Encodes `payload`, the regions side by side, into `target`; returns the stored bytes of each region.
  ///
  /// The frames of a group count for its first region, the others have 0. Nil when the frames are not smaller than the payload:
  /// it is stored as it is then, so that nothing is ever larger than raw.
  /// `target` needs `bound` of the regions, or more.
  package borrowing func encode(
    _ payload: UnsafeRawBufferPointer,
    regionByteCounts: [Int],
    _ format: PayloadFormat,
    into target: UnsafeMutableRawBufferPointer
  ) -> [Int]? {
    guard regionByteCounts.reduce(0, +) == payload.count,
      target.count >= Self.bound(regionByteCounts)
    else { return nil }
    var storedByteCounts = [Int](repeating: 0, count: regionByteCounts.count)
    var read = 0
    var written = 0
    var region = 0
    while region < regionByteCounts.count {
      let size = regionByteCounts[region]
      let past = Self.groupEnd(regionByteCounts, from: region)
      let end = read + size * (past - region)
      let start = written
      while read < end {
        let piece = min(end - read, Self.pieceByteCount(end - read, format))
        // A piece of a region with several tensors begins at one of them or a row within.
        let tensor = format.tensorByteCount > 0 ? min(format.tensorByteCount, piece) : piece
        guard
          let count = unsafe frames.encode(
            UnsafeRawBufferPointer(rebasing: payload[read..<read + piece]),
            format,
            segmentByteCount: past - region > 1 ? size : Self.wholeRows(tensor, format),
            into: UnsafeMutableRawBufferPointer(rebasing: target[written...])
          )
        else { return nil }
        written += count
        read += piece
      }
      storedByteCounts[region] = written - start
      region = past
    }
    return written < payload.count ? storedByteCounts : nil
  }

  /// Past the last region that shares a frame with this one.
  private static func groupEnd(_ regionByteCounts: [Int], from first: Int) -> Int {
    let size = regionByteCounts[first]
    var past = first + 1
    while past < regionByteCounts.count, regionByteCounts[past] == size,
      size * (past + 1 - first) <= groupByteCount
    { past += 1 }
    return past
  }

  /// Bytes of the next piece of what is left of a region: whole rows, whole tensors where several fit.
  private static func pieceByteCount(_ remaining: Int, _ format: PayloadFormat) -> Int {
    if remaining <= pieceByteCountMax { return remaining }
    let tensor = wholeRows(format.tensorByteCount, format)
    if tensor > 0, tensor <= pieceByteCountMax { return pieceByteCountMax / tensor * tensor }
    let pieces = (remaining + pieceByteCountMax - 1) / pieceByteCountMax
    let piece = wholeRows((remaining + pieces - 1) / pieces, format)
    let unit = wholeRows(1, format)
    return piece <= pieceByteCountMax ? piece : max(pieceByteCountMax / unit, 1) * unit
  }

  private static func wholeRows(_ byteCount: Int, _ format: PayloadFormat) -> Int {
    let unit = format.channelCount > 0 ? format.rowByteCount : format.elementType.byteCount
    return (byteCount + unit - 1) / unit * unit
  }
}
