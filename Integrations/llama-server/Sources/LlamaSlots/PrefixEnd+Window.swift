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

  /// The tokens of an end that was taken apart, and which blocks its window needs; nil when it is not whole.
  package static func needs(
    _ parted: UnsafeRawBufferPointer,
    _ layout: SlotLayout,
    blockTokenCount: Int,
    tokensPerBlock: Int
  ) -> (tokens: [Int32], first: Int, blocks: Range<Int>)? {
    guard let head = Head(parted, layout) else { return nil }
    let first = head.first
    let end = blockTokenCount + head.tokens.count
    guard first > 0, first <= end, head.own == min(head.tokens.count, end - first) else {
      return nil
    }
    let blocks =
      first < blockTokenCount
      ? first / tokensPerBlock..<blockTokenCount / tokensPerBlock : 0..<0
    return (head.tokens, first, blocks)
  }

  /// Puts an end together again, as `encode` made it; nil when a part is missing or not whole.
  package static func join(
    _ parted: [UInt8],
    _ layout: SlotLayout,
    blockTokenCount: Int,
    tokensPerBlock: Int,
    window: (_ block: Int, _ isWhole: Bool) throws -> [UInt8]?
  ) rethrows -> [UInt8]? {
    guard
      let (tokens, first, blocks) = parted.withUnsafeBytes({
        needs($0, layout, blockTokenCount: blockTokenCount, tokensPerBlock: tokensPerBlock)
      }), let head = parted.withUnsafeBytes({ Head($0, layout) })
    else { return nil }
    let planes = layout.caches[1].planes
    let rowByteCount = layout.caches[1].rowByteCount
    let count = blockTokenCount + tokens.count - first
    var result: [UInt8] = []
    let tokenBytes = tokens.count * (4 + (layout.blockCache?.rowByteCount ?? 0))
    result.reserveCapacity(
      headerByteCount + tokenBytes + count * (4 + rowByteCount) + layout.stateByteCount
    )
    func put(_ value: Int) {
      withUnsafeBytes(of: UInt32(value).littleEndian) { result.append(contentsOf: $0) }
    }
    put(Int(version))
    put(tokens.count)
    put(count)
    put(layout.stateByteCount)
    result.append(contentsOf: parted[partedHeaderByteCount..<partedHeaderByteCount + tokenBytes])
    for position in first..<first + count { put(position) }
    let rowsStart = result.count
    result.append(contentsOf: repeatElement(0, count: count * rowByteCount))

    /// The last `used` of the rows of `total` cells.
    func place(
      _ source: UnsafeRawBufferPointer,
      _ start: Int,
      used: Int,
      of total: Int,
      at cell: Int
    ) {
      result.withUnsafeMutableBytes { target in
        var from = start
        var to = rowsStart
        for plane in planes {
          move(plane, source, from, total - used, of: total, target, to, cell, of: count, used)
          from += total * plane.rowByteCount
          to += count * plane.rowByteCount
        }
      }
    }
    for block in blocks {
      let start = max(first, block * tokensPerBlock)
      let used = (block + 1) * tokensPerBlock - start
      // A whole block serves as well where only its last rows are needed.
      var total = tokensPerBlock
      var rows = try window(block, true)
      if rows == nil, used < tokensPerBlock {
        total = used
        rows = try window(block, false)
      }
      guard let rows, rows.count == total * rowByteCount else { return nil }
      rows.withUnsafeBytes { place($0, 0, used: used, of: total, at: start - first) }
    }
    parted.withUnsafeBytes {
      place($0, head.rows, used: head.own, of: head.own, at: count - head.own)
    }
    result.append(contentsOf: parted[head.state..<parted.count])
    return result
  }

  private struct Head {
    var tokens: [Int32]
    var own: Int
    var first: Int
    var rows: Int
    var state: Int

    init?(_ bytes: UnsafeRawBufferPointer, _ layout: SlotLayout) {
      var reader = Reader(bytes)
      guard layout.caches.count > 1, (try? reader.u32()) == PrefixEnd.partedVersion,
        let tokenCount = try? Int(reader.u32()), let own = try? Int(reader.u32()),
        let stateByteCount = try? Int(reader.u32()), let first = try? Int(reader.u32()),
        let list = try? reader.take(tokenCount, of: 4),
        (try? reader.take(tokenCount, of: layout.blockCache?.rowByteCount ?? 0)) != nil,
        let rows = try? reader.take(own, of: layout.caches[1].rowByteCount),
        let state = try? reader.take(stateByteCount, of: 1), reader.offset == bytes.count,
        stateByteCount == layout.stateByteCount, first <= Int(Int32.max)
      else { return nil }
      tokens = (0..<tokenCount).map { reader.i32(at: list.lowerBound + $0 * 4) }
      self.own = own
      self.first = first
      self.rows = rows.lowerBound
      self.state = state.lowerBound
    }
  }

  /// Copies `used` cells of one plane, from the cell `cell` of `total` to the cell `targetCell` of `targetTotal`.
  private static func move(
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
