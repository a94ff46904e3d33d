/// A window's rows belong to their tokens for good, as blocks do: those of whole blocks are kept by themselves, so that ends that lie
/// near each other share them, and an end keeps only what is behind the last block.
///
/// ```
/// end with a window: u32 version | u32 tokens | u32 window cells | u32 state bytes | u32 first position of the window
///                    | i32 tokens[] | of each plane of the block cache: the tokens' rows
///                    | of each plane of the window's cache: the last cells' rows | state
/// window of a block: of each plane of the window's cache: the rows of its last cells
/// ```
extension PrefixEnd {
  static let partedVersion: UInt32 = 2
  static let partedHeaderByteCount = 20

  /// The rows that a window has in one block: all of them, or the last where the window begins inside.
  package struct WindowBlock: Sendable {
    package var block: Int
    package var isWhole: Bool
    package var rows: [UInt8]
  }

  /// The most bytes that an end has without the blocks of its window.
  package static func partedByteCountMax(_ layout: SlotLayout, tokensPerBlock: Int) -> Int {
    var count = partedHeaderByteCount + layout.stateByteCount
    let row = layout.caches.reduce(0) { $0 + $1.rowByteCount }
    count += (tokensPerBlock - 1) * (4 + row)
    return count
  }

  /// Takes an end apart that `encode` made.
  package static func part(
    _ whole: [UInt8],
    _ layout: SlotLayout,
    blockTokenCount: Int,
    tokensPerBlock: Int
  ) -> (end: [UInt8], blocks: [WindowBlock])? {
    guard layout.caches.count > 1,
      let end = whole.withUnsafeBytes({ PrefixEnd($0, layout: layout) }),
      let first = end.windowPositions.first.map(Int.init), first >= 0
    else { return nil }
    let planes = layout.caches[1].planes
    let count = end.windowPositions.count
    let own = min(count, first + count - blockTokenCount)
    func rows(_ cells: Range<Int>) -> [UInt8] {
      var result = [UInt8](repeating: 0, count: cells.count * layout.caches[1].rowByteCount)
      result.withUnsafeMutableBytes { target in
        whole.withUnsafeBytes { source in
          var from = end.windowRows
          var to = 0
          for plane in planes {
            move(
              plane,
              source,
              from,
              cells.lowerBound,
              of: count,
              target,
              to,
              0,
              of: cells.count,
              cells.count
            )
            from += count * plane.rowByteCount
            to += cells.count * plane.rowByteCount
          }
        }
      }
      return result
    }
    // The zero cell that a restored window begins with is masked for those who go on from it, and not for everyone who shares a block.
    guard rows(0..<1).contains(where: { $0 != 0 }) else { return nil }
    var blocks: [WindowBlock] = []
    if first < blockTokenCount {
      for block in first / tokensPerBlock..<blockTokenCount / tokensPerBlock {
        let start = max(first, block * tokensPerBlock)
        let isWhole = start == block * tokensPerBlock
        let cells = start - first..<(block + 1) * tokensPerBlock - first
        blocks.append(WindowBlock(block: block, isWhole: isWhole, rows: rows(cells)))
      }
    }
    var result: [UInt8] = []
    func put(_ value: Int) {
      withUnsafeBytes(of: UInt32(value).littleEndian) { result.append(contentsOf: $0) }
    }
    put(Int(partedVersion))
    put(end.tokens.count)
    put(own)
    put(end.stateByteCount)
    put(first)
    // Tokens and rows, as they are.
    let tokenBytes = end.tokens.count * (4 + (layout.blockCache?.rowByteCount ?? 0))
    result.append(contentsOf: whole[headerByteCount..<headerByteCount + tokenBytes])
    result.append(contentsOf: rows(count - own..<count))
    result.append(contentsOf: whole[end.state..<end.state + end.stateByteCount])
    return (result, blocks)
  }

  /// Copies `used` cells of one plane, from the cell `cell` of `total` to the cell `targetCell` of `targetTotal`.
  fileprivate static func move(
    _ plane: SlotLayout.Plane,
    _ source: UnsafeRawBufferPointer,
    _ from: Int,
    _ cell: Int,
    of total: Int,
    _ target: UnsafeMutableRawBufferPointer,
    _ to: Int,
    _ targetCell: Int,
    of targetTotal: Int,
    _ used: Int
  ) {
    guard used > 0 else { return }
    let size = plane.elementByteCount > 0 ? plane.elementByteCount : plane.rowByteCount
    for row in 0..<plane.rowByteCount / size {
      let start = from + (row * total + cell) * size
      let end = to + (row * targetTotal + targetCell) * size
      UnsafeMutableRawBufferPointer(rebasing: target[end..<end + used * size]).copyMemory(
        from: UnsafeRawBufferPointer(rebasing: source[start..<start + used * size])
      )
    }
  }
}

/// An end that was taken apart, as it is stored.
package struct PartedEnd: Sendable {
  package let tokens: [Int32]
  /// The first position of the window.
  package let first: Int
  /// Blocks whose windows it needs; of the first one only the last rows, where it begins inside.
  package let blocks: Range<Int>
  /// Cells of the window behind the last block.
  private let own: Int
  private let blockTokenCount: Int
  private let tokensPerBlock: Int
  private let tokenRows: Int
  private let rows: Int
  private let state: Int

  /// Nil when it is not whole.
  package init?(
    _ bytes: UnsafeRawBufferPointer,
    _ layout: SlotLayout,
    blockTokenCount: Int,
    tokensPerBlock: Int
  ) {
    var reader = Reader(bytes)
    guard layout.caches.count > 1, (try? reader.u32()) == PrefixEnd.partedVersion,
      let tokenCount = try? Int(reader.u32()), let own = try? Int(reader.u32()),
      let stateByteCount = try? Int(reader.u32()), let first = try? Int(reader.u32()),
      let list = try? reader.take(tokenCount, of: 4),
      let tokenRows = try? reader.take(tokenCount, of: layout.blockCache?.rowByteCount ?? 0),
      let rows = try? reader.take(own, of: layout.caches[1].rowByteCount),
      let state = try? reader.take(stateByteCount, of: 1), reader.offset == bytes.count,
      stateByteCount == layout.stateByteCount
    else { return nil }
    let end = blockTokenCount + tokenCount
    guard first > 0, first <= end, own == min(tokenCount, end - first) else { return nil }
    tokens = (0..<tokenCount).map { reader.i32(at: list.lowerBound + $0 * 4) }
    self.first = first
    self.own = own
    self.blockTokenCount = blockTokenCount
    self.tokensPerBlock = tokensPerBlock
    self.tokenRows = tokenRows.lowerBound
    self.rows = rows.lowerBound
    self.state = state.lowerBound
    blocks =
      first < blockTokenCount
      ? first / tokensPerBlock..<blockTokenCount / tokensPerBlock : 0..<0
  }

  package var windowPositions: [Int32] {
    (first..<blockTokenCount + tokens.count).map { Int32($0) }
  }

  /// Copies what it has itself into a file that is being made: rows behind the last block, and the state.
  package func write(
    _ bytes: UnsafeRawBufferPointer,
    to file: UnsafeMutableRawBufferPointer,
    _ image: SlotImage
  ) {
    var from = tokenRows
    if let cache = image.layout.blockCache {
      for (plane, to) in zip(cache.planes, image.planeOffsets[0]) {
        PrefixEnd.move(
          plane,
          bytes,
          from,
          0,
          of: tokens.count,
          file,
          to,
          blockTokenCount,
          of: image.tokenCount,
          tokens.count
        )
        from += tokens.count * plane.rowByteCount
      }
    }
    let cell = image.windowPositions.count - own
    placeRows(bytes, rows, used: own, of: own, at: cell, to: file, image)
    let count = image.layout.stateByteCount
    UnsafeMutableRawBufferPointer(rebasing: file[image.stateOffset...]).copyMemory(
      from: UnsafeRawBufferPointer(rebasing: bytes[state..<state + count])
    )
  }

  /// Copies a block's window into a file that is being made; false where it is neither a whole block's nor what this end has of it.
  package func place(
    _ window: UnsafeRawBufferPointer,
    ofBlock block: Int,
    to file: UnsafeMutableRawBufferPointer,
    _ image: SlotImage
  ) -> Bool {
    let start = max(first, block * tokensPerBlock)
    let used = (block + 1) * tokensPerBlock - start
    let row = image.layout.caches[1].rowByteCount
    // A whole block serves as well where only its last rows are needed.
    guard let total = [tokensPerBlock, used].first(where: { $0 * row == window.count }) else {
      return false
    }
    let cell = image.paddingCount + start - first
    placeRows(window, 0, used: used, of: total, at: cell, to: file, image)
    return true
  }

  /// The last `used` of the rows of `total` cells.
  private func placeRows(
    _ source: UnsafeRawBufferPointer,
    _ start: Int,
    used: Int,
    of total: Int,
    at cell: Int,
    to file: UnsafeMutableRawBufferPointer,
    _ image: SlotImage
  ) {
    var from = start
    for (plane, to) in zip(image.layout.caches[1].planes, image.planeOffsets[1]) {
      PrefixEnd.move(
        plane,
        source,
        from,
        total - used,
        of: total,
        file,
        to,
        cell,
        of: image.windowPositions.count,
        used
      )
      from += total * plane.rowByteCount
    }
  }
}
