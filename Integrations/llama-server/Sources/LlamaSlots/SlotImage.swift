import Glibc

/// Where everything lies in a slot file that is about to be made.
///
/// The sizes come first: a file that is one byte too short aborts the server.
package struct SlotImage: Sendable {
  package let layout: SlotLayout
  /// The prefix that the file stands for.
  package let tokenCount: Int
  /// Of the window's cells, the masked one first where there is one.
  package let windowPositions: [Int32]
  /// Cells before the window that are left zero: 1 or 0.
  package let paddingCount: Int
  /// Where each plane of each cache begins.
  package private(set) var planeOffsets: [[Int]] = []
  package private(set) var stateOffset = 0
  package private(set) var byteCount = 0
  private var headers: [(offset: Int, bytes: [UInt8])] = []

  /// Lays out a file.
  ///
  /// - Parameters:
  ///   - layout: of the server that will read it.
  ///   - tokens: the prefix.
  ///   - window: positions of the sliding window's cells, ascending; ignored where the layout has none.
  ///   - windowTokenCount: how far back the server believes that a token sees; 0: as far as the window has cells.
  ///   - stream: which of a cache's streams has the cells; whichever slot restores them puts them into its own.
  ///   - sequence: the number that each cell has of its slot; whichever slot restores them gives them its own.
  ///
  /// The server takes a window only if a cell before it is there as well, though nothing will look at it. The cell before the
  /// first one that it could want is that: it is masked for every token to come, and left zero. Where a window is the chunk that a
  /// token is in, it may begin long after what the server could want.
  package init(
    layout: SlotLayout,
    tokens: [Int32],
    window: [Int32] = [],
    windowTokenCount: Int = 0,
    stream: Int = 0,
    sequence: Int32 = 0
  ) {
    self.layout = layout
    tokenCount = tokens.count
    let first = window.first ?? 0
    paddingCount = first > 0 ? 1 : 0
    let before = min(first - 1, Int32(max(0, tokens.count - windowTokenCount - 1)))
    windowPositions = first > 0 ? [before] + window : window

    var header = Writer()
    header.put(SlotFile.magic)
    header.put(layout.version)
    header.put(UInt32(tokens.count))
    tokens.withUnsafeBytes { header.bytes.append(contentsOf: $0) }
    var offset = 0
    func place(_ bytes: [UInt8]) {
      headers.append((offset, bytes))
      offset += bytes.count
    }
    for (index, cache) in layout.caches.enumerated() {
      let positions = index == 0 ? Array(0..<Int32(tokens.count)) : windowPositions
      header.put(UInt32(cache.streamCount))
      let stream = min(stream, cache.streamCount - 1)
      for _ in 0..<stream { header.put(0) }
      header.put(UInt32(positions.count))
      for position in positions {
        header.put(UInt32(bitPattern: position))
        header.put(1)
        header.put(UInt32(bitPattern: sequence))
      }
      header.put(cache.isTransposed ? 1 : 0)
      header.put(UInt32(cache.planes.count / 2))
      for field in cache.rotation { header.put(field) }
      var offsets: [Int] = []
      for plane in cache.planes {
        header.put(UInt32(bitPattern: plane.type))
        if plane.elementByteCount > 0 {
          header.put(UInt32(plane.elementByteCount))
          header.put(UInt32(plane.rowByteCount / plane.elementByteCount))
        } else {
          header.putWide(UInt64(plane.rowByteCount))
        }
        place(header.bytes)
        header = Writer()
        offsets.append(offset)
        offset += positions.count * plane.rowByteCount
      }
      planeOffsets.append(offsets)
      for _ in stream + 1..<cache.streamCount { header.put(0) }
    }
    place(header.bytes)
    stateOffset = offset
    byteCount = offset + layout.stateByteCount
  }

  /// Writes everything but the payload.
  package func writeHeaders(to bytes: UnsafeMutableRawBufferPointer) {
    precondition(bytes.count == byteCount)
    for (offset, header) in headers {
      header.withUnsafeBytes {
        UnsafeMutableRawBufferPointer(rebasing: bytes[offset...]).copyMemory(from: $0)
      }
    }
  }
}

private struct Writer {
  var bytes: [UInt8] = []
  mutating func put(_ value: UInt32) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }
  mutating func putWide(_ value: UInt64) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }
}
