import Glibc

/// A slot file that the server wrote, and where in it everything lies.
///
/// Every number that is read is checked against the bytes that are there: a file that is not understood to its last byte is refused.
package struct SlotFile: Sendable {
  /// One cache of it.
  package struct Cache: Sendable {
    /// Of each cell, in the file's order.
    package var positions: [Int32]
    /// Where the payload of each plane begins.
    package var planeOffsets: [Int]
    /// Which of the streams has the cells: that of the slot, where each slot has its own.
    package var stream = 0
    /// The slot's number, as each cell has it.
    package var sequence: Int32 = 0
  }

  package var layout: SlotLayout
  package var tokens: [Int32]
  package var caches: [Cache]
  /// The recurrent state's bytes.
  package var state: Range<Int>
  /// Whether the tokens stand for media as well, which no token tells.
  package var hasMedia: Bool

  static let magic: UInt32 = 0x6767_7371

  /// Reads the file's structure.
  ///
  /// - Parameters:
  ///   - bytes: the whole file.
  ///   - stateByteCount: the length of the state, where it is known; nil = what no cache explains.
  package init(_ bytes: UnsafeRawBufferPointer, stateByteCount: Int? = nil) throws(SlotFileError) {
    var reader = Reader(bytes)
    guard try reader.u32() == Self.magic else { throw .notASlotFile }
    let version = try reader.u32()
    let count = Int(try reader.u32())
    let list = try reader.take(count, of: 4)
    let start = reader.offset
    var words = [Int32](repeating: 0, count: count)
    words.withUnsafeMutableBytes {
      $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[list]))
    }
    (tokens, hasMedia) = try Self.unwrap(words)
    let wrapsTokens = words.first == -1

    // The fields of the rotation came with a later version that no number tells; only what consumes every byte is right.
    for rotationCount in [2, 0] {
      if let (layouts, caches, end) = Self.caches(bytes, from: start, rotationCount, stateByteCount)
      {
        layout = SlotLayout(
          version: version,
          wrapsTokens: wrapsTokens,
          caches: layouts,
          stateByteCount: bytes.count - end
        )
        self.caches = caches
        state = end..<bytes.count
        return
      }
    }
    throw .unknownLayout
  }

  /// Caches one after the other up to the state, which is `stateByteCount` bytes at the end.
  private static func caches(
    _ bytes: UnsafeRawBufferPointer,
    from start: Int,
    _ rotationCount: Int,
    _ stateByteCount: Int?
  ) -> ([SlotLayout.Cache], [Cache], end: Int)? {
    var layouts: [SlotLayout.Cache] = []
    var caches: [Cache] = []
    var offset = start
    let end = stateByteCount.map { bytes.count - $0 }
    if let end, end < start { return nil }
    while offset < end ?? bytes.count {
      var reader = Reader(bytes)
      reader.offset = offset
      reader.end = end ?? bytes.count
      guard let (layout, cache) = try? Self.cache(&reader, rotationCount) else { break }
      layouts.append(layout)
      caches.append(cache)
      offset = reader.offset
    }
    if let end { return offset == end ? (layouts, caches, end) : nil }
    return offset == bytes.count ? (layouts, caches, offset) : nil
  }

  /// The caches that can be read from the front, and where the rest begins: what a model with recurrent layers is tried with.
  package static func stateByteCount(_ bytes: UnsafeRawBufferPointer) throws(SlotFileError) -> [Int]
  {
    var reader = Reader(bytes)
    guard try reader.u32() == Self.magic else { throw .notASlotFile }
    _ = try reader.u32()
    let count = Int(try reader.u32())
    _ = try reader.take(count, of: 4)
    var candidates: [Int] = []
    for rotationCount in [2, 0] {
      var next = reader
      while next.offset < bytes.count, (try? Self.cache(&next, rotationCount)) != nil {
        candidates.append(bytes.count - next.offset)
      }
    }
    candidates.append(bytes.count - reader.offset)
    return candidates.sorted()
  }

  private static func cache(
    _ reader: inout Reader,
    _ rotationCount: Int
  ) throws(SlotFileError) -> (SlotLayout.Cache, Cache) {
    let streamCount = Int(try reader.u32())
    guard (1...4096).contains(streamCount) else { throw .unknownLayout }
    var result: (SlotLayout.Cache, Cache)?
    for stream in 0..<streamCount {
      let cellCount = Int(try reader.u32())
      if cellCount == 0 { continue }
      // A sequence lives in one stream.
      guard result == nil else { throw .unknownLayout }
      let cells = try reader.take(cellCount, of: 12)
      var positions = [Int32](repeating: 0, count: cellCount)
      let sequence = reader.i32(at: cells.lowerBound + 8)
      for index in 0..<cellCount {
        let at = cells.lowerBound + index * 12
        positions[index] = reader.i32(at: at)
        guard reader.i32(at: at + 4) == 1, reader.i32(at: at + 8) == sequence else {
          throw .unknownLayout
        }
      }
      let transposed = try reader.u32()
      let layerCount = Int(try reader.u32())
      guard transposed <= 1, (1...4096).contains(layerCount) else { throw .unknownLayout }
      var layout = SlotLayout.Cache(
        streamCount: streamCount,
        isTransposed: transposed == 1,
        rotation: [],
        planes: []
      )
      for _ in 0..<rotationCount { layout.rotation.append(try reader.u32()) }
      var offsets: [Int] = []
      for plane in 0..<2 * layerCount {
        let type = Int32(bitPattern: try reader.u32())
        guard (0..<256).contains(type) else { throw .unknownLayout }
        var rowByteCount: Int
        var elementByteCount = 0
        if layout.isTransposed, plane >= layerCount {
          elementByteCount = Int(try reader.u32())
          let rows = Int(try reader.u32())
          guard (1...64).contains(elementByteCount), rows >= 1 else { throw .unknownLayout }
          rowByteCount = elementByteCount * rows
        } else {
          let count = try reader.u64()
          guard (1...1 << 30).contains(count) else { throw .unknownLayout }
          rowByteCount = Int(count)
        }
        offsets.append(try reader.take(cellCount, of: rowByteCount).lowerBound)
        layout.planes.append(
          SlotLayout.Plane(
            type: type,
            rowByteCount: rowByteCount,
            elementByteCount: elementByteCount
          )
        )
      }
      result = (
        layout,
        Cache(positions: positions, planeOffsets: offsets, stream: stream, sequence: sequence)
      )
    }
    guard let result else { throw .unknownLayout }
    return result
  }

  /// The token ids: as they are, or out of the later versions' wrapping.
  private static func unwrap(_ words: [Int32]) throws(SlotFileError) -> ([Int32], hasMedia: Bool) {
    guard words.first == -1 else { return (words, words.contains { $0 < 0 }) }
    guard words.count >= 3, case let count = Int(words[2]), (0...words.count - 3).contains(count)
    else {
      throw .truncated
    }
    let tokens = Array(words[3..<3 + count])
    // What follows is the list of media: nothing but its count of 0 where there are none.
    let rest = words[(3 + count)...]
    return (tokens, tokens.contains { $0 < 0 } || rest.contains { $0 != 0 })
  }
}

/// Bounds-checked reading from a file's bytes.
struct Reader {
  let bytes: UnsafeRawBufferPointer
  var offset = 0
  var end: Int

  init(_ bytes: UnsafeRawBufferPointer) {
    self.bytes = bytes
    end = bytes.count
  }

  mutating func u32() throws(SlotFileError) -> UInt32 {
    guard offset <= end - 4 else { throw .truncated }
    defer { offset += 4 }
    return UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  mutating func u64() throws(SlotFileError) -> UInt64 {
    guard offset <= end - 8 else { throw .truncated }
    defer { offset += 8 }
    return UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }

  /// Where it was checked to lie inside.
  func i32(at offset: Int) -> Int32 {
    Int32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self))
  }

  /// The next `count` things of `size` bytes.
  mutating func take(_ count: Int, of size: Int) throws(SlotFileError) -> Range<Int> {
    let (total, overflow) = count.multipliedReportingOverflow(by: size)
    guard !overflow, total >= 0, total <= end - offset else { throw .truncated }
    defer { offset += total }
    return offset..<offset + total
  }
}

extension SlotFile {
  /// Whether cell `i` of the block cache holds token `i`.
  package var isInOrder: Bool {
    guard let cells = caches.first?.positions else { return true }
    return cells.count == tokens.count && cells.enumerated().allSatisfy { Int($1) == $0 }
  }

  /// The block cache's cells in the order of their tokens, where each token has exactly one: nil after a shift of the context.
  package func cellsInOrder() -> [Int]? {
    guard let cells = caches.first?.positions, cells.count == tokens.count else { return nil }
    var order = [Int](repeating: -1, count: cells.count)
    for (index, position) in cells.enumerated() {
      guard order.indices.contains(Int(position)), order[Int(position)] < 0 else { return nil }
      order[Int(position)] = index
    }
    return order
  }

  /// The same file with the block cache's cells in order, and its bytes; nil where they have none.
  package func reordered(_ bytes: UnsafeRawBufferPointer) -> (SlotFile, [UInt8])? {
    guard let order = cellsInOrder(), let cache = layout.blockCache else { return nil }
    var result = [UInt8](bytes)
    let count = order.count
    for (plane, offset) in zip(cache.planes, caches[0].planeOffsets) {
      let size = plane.elementByteCount > 0 ? plane.elementByteCount : plane.rowByteCount
      for row in 0..<plane.rowByteCount / size {
        let base = offset + row * count * size
        for (index, cell) in order.enumerated() {
          result.withUnsafeMutableBytes { target in
            UnsafeMutableRawBufferPointer(
              rebasing: target[base + index * size..<base + (index + 1) * size]
            )
            .copyMemory(
              from: UnsafeRawBufferPointer(
                rebasing: bytes[base + cell * size..<base + (cell + 1) * size]
              )
            )
          }
        }
      }
    }
    var file = self
    file.caches[0].positions = Array(0..<Int32(count))
    return (file, result)
  }
}
