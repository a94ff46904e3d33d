import Testing

@testable import LlamaSlots

/// Files as a server writes them, made by us, and what may be wrong with them.
@Suite struct SlotFileTests {
  static let plane = SlotLayout.Plane(type: 1, rowByteCount: 8, elementByteCount: 0)
  static let transposed = SlotLayout.Plane(type: 1, rowByteCount: 8, elementByteCount: 2)

  static func cache(isTransposed: Bool = false, streams: Int = 1, rotation: [UInt32] = [])
    -> SlotLayout.Cache
  {
    SlotLayout.Cache(
      streamCount: streams,
      isTransposed: isTransposed,
      rotation: rotation,
      planes: [plane, plane] + (isTransposed ? [transposed, transposed] : [plane, plane])
    )
  }

  static let layouts = [
    SlotLayout(version: 2, wrapsTokens: false, caches: [cache()], stateByteCount: 0),
    SlotLayout(
      version: 4,
      wrapsTokens: false,
      caches: [cache(rotation: [3, 4])],
      stateByteCount: 0
    ),
    SlotLayout(
      version: 2,
      wrapsTokens: false,
      caches: [cache(isTransposed: true, streams: 3)],
      stateByteCount: 0
    ),
    SlotLayout(version: 2, wrapsTokens: false, caches: [cache(), cache()], stateByteCount: 0),
    SlotLayout(version: 2, wrapsTokens: false, caches: [cache()], stateByteCount: 100),
    SlotLayout(version: 2, wrapsTokens: false, caches: [], stateByteCount: 100),
  ]

  /// A file whose payload bytes are all different from zero.
  static func file(_ layout: SlotLayout, tokenCount: Int = 70, stream: Int = 0) -> (
    SlotImage, [UInt8]
  ) {
    let tokens = (0..<Int32(tokenCount)).map { 100 + $0 }
    let window = Array(Int32(max(0, tokenCount - 20))..<Int32(tokenCount))
    let image = SlotImage(layout: layout, tokens: tokens, window: window, stream: stream)
    var bytes = (0..<image.byteCount).map { UInt8(truncatingIfNeeded: $0 % 251 + 1) }
    bytes.withUnsafeMutableBytes { image.writeHeaders(to: $0) }
    return (image, bytes)
  }

  @Test(arguments: layouts) func whatIsMadeIsRead(_ layout: SlotLayout) throws {
    for stream in 0..<(layout.caches.first?.streamCount ?? 1) {
      let (image, bytes) = Self.file(layout, stream: stream)
      let read = try bytes.withUnsafeBytes {
        try SlotFile($0, stateByteCount: layout.stateByteCount)
      }
      #expect(read.layout == layout)
      #expect(read.tokens == (0..<70).map { 100 + $0 })
      #expect(read.isInOrder)
      #expect(read.caches.map(\.planeOffsets) == image.planeOffsets)
      #expect(read.state.count == layout.stateByteCount)
      #expect(!read.hasMedia)
    }
  }

  /// A file that ends anywhere else, or goes on, is never taken for a whole one; none traps.
  @Test(arguments: layouts) func anyOtherLengthIsRefused(_ layout: SlotLayout) {
    let (_, bytes) = Self.file(layout)
    for count in Array(bytes.indices) + [bytes.count + 1] {
      let other = count > bytes.count ? bytes + [0] : Array(bytes[..<count])
      let read = try? other.withUnsafeBytes {
        try SlotFile($0, stateByteCount: layout.stateByteCount)
      }
      #expect(read?.layout != layout)
    }
  }

  /// Whatever a byte of the structure says, reading ends, and nothing is read outside of the file.
  @Test(arguments: layouts) func anyByteMayBeAnother(_ layout: SlotLayout) {
    let (_, bytes) = Self.file(layout)
    for index in bytes.indices {
      for value in [0, 1, 0x7F, 0x80, 0xFF] as [UInt8] {
        var changed = bytes
        changed[index] = value
        changed.withUnsafeBytes { bytes in
          guard let read = try? SlotFile(bytes) else { return }
          _ = read.isInOrder
          _ = read.reordered(bytes)
          _ = PrefixEnd.encode(read, bytes, blockTokenCount: min(64, read.tokens.count))
        }
      }
    }
  }

  /// A window is taken apart at blocks, and put together from them, from any first position and with any end.
  @Test func windowIsTakenApartAndPutTogether() throws {
    for isTransposed in [false, true] {
      let caches = [Self.cache(), Self.cache(isTransposed: isTransposed)]
      let layout = SlotLayout(version: 2, wrapsTokens: false, caches: caches, stateByteCount: 9)
      for tokenCount in [64, 65, 70, 127, 128, 150] {
        for windowCount in [1, 5, 6, 20, 63, 64, 65] where windowCount < tokenCount - 1 {
          let window = Array(Int32(tokenCount - windowCount)..<Int32(tokenCount))
          let tokens = (0..<Int32(tokenCount)).map { 100 + $0 }
          let image = SlotImage(layout: layout, tokens: tokens, window: window)
          var bytes = (0..<image.byteCount).map { UInt8(truncatingIfNeeded: $0 % 251 + 1) }
          bytes.withUnsafeMutableBytes { image.writeHeaders(to: $0) }
          let end = tokenCount / 64 * 64
          let whole = try bytes.withUnsafeBytes { bytes in
            let file = try SlotFile(bytes, stateByteCount: 9)
            return try #require(PrefixEnd.encode(file, bytes, blockTokenCount: end))
          }
          for size in [16, 64] {
            let parts = try #require(
              PrefixEnd.part(whole, layout, blockTokenCount: end, tokensPerBlock: size)
            )
            let parted = try #require(Self.read(parts.end, layout, end, size))
            // The zero cell of a file that we made is a cell like others.
            #expect(parted.windowPositions == image.windowPositions)
            #expect(Set(parted.blocks) == Set(parts.blocks.map(\.block)))
            let isWhole = parts.blocks.dropFirst().allSatisfy { $0.isWhole }
            #expect(isWhole)
            // A file that is made of the parts is the one that is made of the whole.
            let image = SlotImage(layout: layout, tokens: tokens, window: image.windowPositions)
            var wanted = [UInt8](repeating: 0, count: image.byteCount)
            try wanted.withUnsafeMutableBytes { file in
              try whole.withUnsafeBytes { bytes in
                let read = try #require(PrefixEnd(bytes, layout: layout))
                let count = tokenCount - end
                read.write(bytes, to: file, image, blockTokenCount: end, usedTokenCount: count)
              }
            }
            var made = [UInt8](repeating: 0, count: image.byteCount)
            made.withUnsafeMutableBytes { file in
              parts.end.withUnsafeBytes { parted.write($0, to: file, image) }
              for block in parts.blocks {
                block.rows.withUnsafeBytes {
                  #expect(parted.place($0, ofBlock: block.block, to: file, image))
                }
                block.rows.dropLast().withUnsafeBytes {
                  #expect(!parted.place($0, ofBlock: block.block, to: file, image))
                }
              }
            }
            #expect(made == wanted)
            // Whatever a byte of it says, it ends.
            for index in parts.end.indices.prefix(24) {
              for value in [0, 1, 0x7F, 0x80, 0xFF] as [UInt8] {
                var changed = parts.end
                changed[index] = value
                guard let other = Self.read(changed, layout, end, size) else { continue }
                let tokens = [Int32](repeating: 7, count: end + other.tokens.count)
                let image = SlotImage(layout: layout, tokens: tokens, window: other.windowPositions)
                var made = [UInt8](repeating: 0, count: image.byteCount)
                made.withUnsafeMutableBytes { file in
                  changed.withUnsafeBytes { other.write($0, to: file, image) }
                  for block in parts.blocks where other.blocks.contains(block.block) {
                    block.rows.withUnsafeBytes {
                      _ = other.place($0, ofBlock: block.block, to: file, image)
                    }
                  }
                }
              }
            }
          }
        }
      }
    }
  }

  private static func read(_ bytes: [UInt8], _ layout: SlotLayout, _ end: Int, _ size: Int)
    -> PartedEnd?
  {
    bytes.withUnsafeBytes {
      PartedEnd($0, layout, blockTokenCount: end, tokensPerBlock: size)
    }
  }

  /// The zero cell stands before all that the server could want, also where a window is a chunk that has just begun.
  @Test func zeroCellStandsBeforeAllThatCouldBeWanted() {
    let layout = SlotLayout(
      version: 2,
      wrapsTokens: false,
      caches: [Self.cache(), Self.cache()],
      stateByteCount: 0
    )
    let tokens = (0..<Int32(150)).map { 100 + $0 }
    func first(_ window: Range<Int32>, of count: Int) -> Int32? {
      SlotImage(layout: layout, tokens: tokens, window: Array(window), windowTokenCount: count)
        .windowPositions.first
    }
    #expect(first(86..<150, of: 64) == 85)
    #expect(first(128..<150, of: 64) == 85)
    #expect(first(128..<150, of: 1000) == 0)
    #expect(first(0..<150, of: 1000) == 0)
  }

  /// The zero cell before a restored window is shared with nobody.
  @Test func zeroCellIsNotShared() throws {
    let layout = SlotLayout(
      version: 2,
      wrapsTokens: false,
      caches: [Self.cache(), Self.cache()],
      stateByteCount: 0
    )
    let tokens = (0..<Int32(150)).map { 100 + $0 }
    let image = SlotImage(layout: layout, tokens: tokens, window: Array(100..<150))
    var bytes = [UInt8](repeating: 7, count: image.byteCount)
    for (plane, offset) in zip(layout.caches[1].planes, image.planeOffsets[1]) {
      for index in 0..<plane.rowByteCount { bytes[offset + index] = 0 }
    }
    bytes.withUnsafeMutableBytes { image.writeHeaders(to: $0) }
    let whole = try bytes.withUnsafeBytes { bytes in
      let file = try SlotFile(bytes)
      return try #require(PrefixEnd.encode(file, bytes, blockTokenCount: 128))
    }
    #expect(PrefixEnd.part(whole, layout, blockTokenCount: 128, tokensPerBlock: 64) == nil)
  }

  @Test func endIsWrittenAndRead() throws {
    for layout in Self.layouts {
      let (_, bytes) = Self.file(layout)
      try bytes.withUnsafeBytes { bytes in
        let read = try SlotFile(bytes, stateByteCount: layout.stateByteCount)
        guard let record = PrefixEnd.encode(read, bytes, blockTokenCount: 64) else {
          // The padding cell of a made file is part of its window.
          Issue.record("no end of \(layout)")
          return
        }
        let window = layout.caches.count > 1 ? 21 : 0
        #expect(
          record.count
            <= PrefixEnd.byteCountMax(layout, tokensPerBlock: 64, windowTokenCount: window)
        )
        try record.withUnsafeBytes { raw in
          let end = try #require(PrefixEnd(raw, layout: layout))
          #expect(end.tokens == (64..<70).map { 100 + $0 })
          #expect(end.windowPositions.count == window)
          #expect(end.stateByteCount == layout.stateByteCount)
        }
        for count in record.indices {
          #expect(record[..<count].withUnsafeBytes { PrefixEnd($0, layout: layout) } == nil)
        }
      }
    }
  }

  /// Cells in another order are put back, the bytes of each with it.
  @Test func cellsAreReordered() throws {
    let layout = Self.layouts[0]
    let (image, original) = Self.file(layout, tokenCount: 4)
    var bytes = original
    // Swaps cells 1 and 2: positions and rows.
    let positions = 12 + 4 * 4 + 8
    for offset in 0..<4 { bytes.swapAt(positions + 12 + offset, positions + 24 + offset) }
    for offset in image.planeOffsets[0] {
      for byte in 0..<8 { bytes.swapAt(offset + 8 + byte, offset + 16 + byte) }
    }
    try bytes.withUnsafeBytes { bytes in
      let read = try SlotFile(bytes)
      #expect(!read.isInOrder)
      let (ordered, copy) = try #require(read.reordered(bytes))
      #expect(ordered.isInOrder)
      for offset in image.planeOffsets[0] {
        #expect(copy[offset..<offset + 32].elementsEqual(original[offset..<offset + 32]))
      }
    }
  }

  /// Tokens that later servers wrap, with and without media behind them.
  @Test func wrappedTokensAreRead() throws {
    let layout = Self.layouts[0]
    for (rest, hasMedia) in [([0], false), ([1, 5], true)] as [([Int32], Bool)] {
      let (_, plain) = Self.file(layout, tokenCount: 5)
      let wrapped: [Int32] = [-1, 1, 5, 100, 101, 102, 103, 104] + rest
      var bytes = Array(plain[..<8])
      for value in [Int32(wrapped.count)] + wrapped {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
      }
      bytes += plain[(12 + 5 * 4)...]
      let read = try bytes.withUnsafeBytes { try SlotFile($0) }
      #expect(read.tokens == [100, 101, 102, 103, 104])
      #expect(read.hasMedia == hasMedia)
      #expect(read.layout.wrapsTokens)
    }
  }
}
