/// What is stored at a block boundary beside the blocks: the tokens after it up to the very end that was saved, the window there
/// and the recurrent state.
///
/// ```
/// u32 version | u32 tokens | u32 window cells | u32 state bytes
/// i32 tokens[] | of each plane of the block cache: the tokens' rows | i32 positions[]
/// | of each plane of the window's cache: its rows | state
/// ```
package struct PrefixEnd: Sendable {
  package var tokens: [Int32]
  package var windowPositions: [Int32]
  /// Where the rows of the block cache's planes, those of the window's, and the state begin.
  package var rows: Int
  package var windowRows: Int
  package var state: Int
  package var stateByteCount: Int

  static let version: UInt32 = 1
  static let headerByteCount = 16

  /// The most bytes that one can have.
  ///
  /// - Parameters:
  ///   - layout: of the server.
  ///   - tokensPerBlock: the tokens are fewer.
  ///   - windowTokenCount: of the sliding window.
  package static func byteCountMax(
    _ layout: SlotLayout,
    tokensPerBlock: Int,
    windowTokenCount: Int
  ) -> Int {
    var count = headerByteCount + layout.stateByteCount
    count += (tokensPerBlock - 1) * (4 + (layout.blockCache?.rowByteCount ?? 0))
    for cache in layout.caches.dropFirst() { count += windowTokenCount * (4 + cache.rowByteCount) }
    return count
  }

  /// Reads one; nil when it is not whole.
  package init?(_ bytes: UnsafeRawBufferPointer, layout: SlotLayout) {
    var reader = Reader(bytes)
    guard (try? reader.u32()) == Self.version, let tokenCount = try? Int(reader.u32()),
      let windowCount = try? Int(reader.u32()), let stateByteCount = try? Int(reader.u32()),
      let list = try? reader.take(tokenCount, of: 4),
      let rows = try? reader.take(tokenCount, of: layout.blockCache?.rowByteCount ?? 0),
      let positions = try? reader.take(windowCount, of: 4),
      let windowRows = try? reader.take(
        windowCount,
        of: layout.caches.count > 1 ? layout.caches[1].rowByteCount : 0
      ),
      let state = try? reader.take(stateByteCount, of: 1), reader.offset == bytes.count,
      stateByteCount == layout.stateByteCount
    else { return nil }
    tokens = (0..<tokenCount).map { reader.i32(at: list.lowerBound + $0 * 4) }
    windowPositions = (0..<windowCount).map { reader.i32(at: positions.lowerBound + $0 * 4) }
    self.rows = rows.lowerBound
    self.windowRows = windowRows.lowerBound
    self.state = state.lowerBound
    self.stateByteCount = stateByteCount
  }

  /// Makes one from a saved file, for the boundary after `blockTokenCount` tokens.
  ///
  /// - Returns: nil where the file has no end that something can go on from: shifted or missing window cells.
  package static func encode(
    _ file: SlotFile,
    _ bytes: UnsafeRawBufferPointer,
    blockTokenCount: Int
  ) -> [UInt8]? {
    let end = file.tokens.count
    guard blockTokenCount <= end, file.caches.first.map({ $0.positions.count == end }) ?? true
    else {
      return nil
    }
    let tail = blockTokenCount..<end
    var result: [UInt8] = []
    func put(_ value: Int) {
      withUnsafeBytes(of: UInt32(value).littleEndian) { result.append(contentsOf: $0) }
    }
    var window: [(position: Int32, cell: Int)] = []
    if file.caches.count > 1 {
      window = file.caches[1].positions.enumerated().map { ($1, $0) }.sorted { $0.0 < $1.0 }
      // Without a gap and up to the end, or nothing can go on from here.
      guard let last = window.last, Int(last.position) == end - 1,
        Int(last.position) - Int(window[0].position) == window.count - 1,
        // The server wants a cell before the window, and before the first token there is none.
        window[0].position > 0
      else { return nil }
    }
    put(Int(version))
    put(tail.count)
    put(window.count)
    put(file.state.count)
    for token in file.tokens[tail] {
      withUnsafeBytes(of: token.littleEndian) { result.append(contentsOf: $0) }
    }
    if let cache = file.layout.blockCache, let planes = file.caches.first {
      for (plane, offset) in zip(cache.planes, planes.planeOffsets) {
        copyRows(plane, bytes, offset, cells: tail, of: end, into: &result)
      }
    }
    if file.caches.count > 1 {
      for entry in window {
        withUnsafeBytes(of: entry.position.littleEndian) { result.append(contentsOf: $0) }
      }
      let cellCount = file.caches[1].positions.count
      for (plane, offset) in zip(file.layout.caches[1].planes, file.caches[1].planeOffsets) {
        // As runs: the server's ring is two of them at most.
        var index = 0
        if plane.elementByteCount == 0 {
          while index < window.count {
            var next = index + 1
            while next < window.count, window[next].cell == window[next - 1].cell + 1 { next += 1 }
            let cells = window[index].cell..<window[index].cell + (next - index)
            copyRows(plane, bytes, offset, cells: cells, of: cellCount, into: &result)
            index = next
          }
        } else {
          let size = plane.elementByteCount
          for row in 0..<plane.rowByteCount / size {
            for entry in window {
              let at = offset + (row * cellCount + entry.cell) * size
              result.append(contentsOf: bytes[at..<at + size])
            }
          }
        }
      }
    }
    result.append(contentsOf: bytes[file.state])
    return result
  }

  private static func copyRows(
    _ plane: SlotLayout.Plane,
    _ bytes: UnsafeRawBufferPointer,
    _ offset: Int,
    cells: Range<Int>,
    of cellCount: Int,
    into result: inout [UInt8]
  ) {
    guard plane.elementByteCount > 0 else {
      let size = plane.rowByteCount
      result.append(
        contentsOf: bytes[offset + cells.lowerBound * size..<offset + cells.upperBound * size]
      )
      return
    }
    let size = plane.elementByteCount
    for row in 0..<plane.rowByteCount / size {
      let at = offset + row * cellCount * size
      result.append(contentsOf: bytes[at + cells.lowerBound * size..<at + cells.upperBound * size])
    }
  }

  /// Copies its rows and state into a file that is being made.
  package func write(
    _ bytes: UnsafeRawBufferPointer,
    to file: UnsafeMutableRawBufferPointer,
    _ image: SlotImage,
    blockTokenCount: Int,
    usedTokenCount: Int
  ) {
    var source = rows
    if let cache = image.layout.blockCache {
      for (plane, offset) in zip(cache.planes, image.planeOffsets[0]) {
        Self.place(
          plane,
          bytes,
          source,
          count: tokens.count,
          used: usedTokenCount,
          file,
          offset,
          at: blockTokenCount,
          of: image.tokenCount
        )
        source += tokens.count * plane.rowByteCount
      }
    }
    if image.layout.caches.count > 1 {
      var source = windowRows
      for (plane, offset) in zip(image.layout.caches[1].planes, image.planeOffsets[1]) {
        Self.place(
          plane,
          bytes,
          source,
          count: windowPositions.count,
          used: windowPositions.count,
          file,
          offset,
          at: image.paddingCount,
          of: image.windowPositions.count
        )
        source += windowPositions.count * plane.rowByteCount
      }
    }
    UnsafeMutableRawBufferPointer(rebasing: file[image.stateOffset...]).copyMemory(
      from: UnsafeRawBufferPointer(rebasing: bytes[state..<state + stateByteCount])
    )
  }

  /// Rows of `count` cells, the first `used` of which go to the cells from `at` on of a plane that has `total`.
  private static func place(
    _ plane: SlotLayout.Plane,
    _ bytes: UnsafeRawBufferPointer,
    _ source: Int,
    count: Int,
    used: Int,
    _ file: UnsafeMutableRawBufferPointer,
    _ offset: Int,
    at cell: Int,
    of total: Int
  ) {
    guard used > 0 else { return }
    func copy(_ from: Int, _ to: Int, _ byteCount: Int) {
      UnsafeMutableRawBufferPointer(rebasing: file[to..<to + byteCount]).copyMemory(
        from: UnsafeRawBufferPointer(rebasing: bytes[from..<from + byteCount])
      )
    }
    guard plane.elementByteCount > 0 else {
      copy(source, offset + cell * plane.rowByteCount, used * plane.rowByteCount)
      return
    }
    let size = plane.elementByteCount
    for row in 0..<plane.rowByteCount / size {
      copy(source + row * count * size, offset + (row * total + cell) * size, used * size)
    }
  }
}
