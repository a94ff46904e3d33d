import Glibc
import KVStore
import LlamaSlots

extension PrefixStore {
  /// Fills a slot file with what was found; false when a block turned out to be missing.
  func write(_ found: Found, _ image: SlotImage, to file: MappedFile, tokens: [Int32]) throws
    -> Bool
  {
    image.writeHeaders(to: file.bytes)
    if let end = found.end {
      let blockTokenCount = found.blockCount * Self.tokensPerBlock
      found.endBytes.withUnsafeBytes {
        end.write(
          $0,
          to: file.bytes,
          image,
          blockTokenCount: blockTokenCount,
          usedTokenCount: found.tokenCount - blockTokenCount
        )
      }
    }
    guard let cache = layout.blockCache else { return true }
    // Transposed planes have no place where a block lies together: it is read beside, and spread.
    let transposed = cache.planes.indices.filter { cache.planes[$0].elementByteCount > 0 }
    let besides = transposed.reduce(0) { $0 + cache.planes[$1].rowByteCount * Self.tokensPerBlock }
    let scratch = UnsafeMutableRawBufferPointer.allocate(
      byteCount: max(1, besides * found.blockCount),
      alignment: 4096
    )
    defer { scratch.deallocate() }
    var spans: [TransferSpan] = []
    spans.reserveCapacity(found.blockCount * cache.planes.count)
    var next = 0
    for block in 0..<found.blockCount {
      for (plane, offset) in zip(cache.planes, image.planeOffsets[0]) {
        let size = plane.rowByteCount * Self.tokensPerBlock
        let place: UnsafeMutableRawPointer
        if plane.elementByteCount > 0 {
          place = scratch.baseAddress! + next
          next += size
        } else {
          place = file.bytes.baseAddress! + offset + block * size
        }
        spans.append(unsafe TransferSpan(data: place, capacity: size, length: 0))
      }
    }
    let done = try Self.withWords(tokens) { words in
      try spans.withUnsafeMutableBufferPointer { spans in
        try namespace.restore(
          unsafe Prompt(words: words.baseAddress, wordCount: words.count),
          unsafe Transfer(blockCount: found.blockCount, spans: spans)
        ).doneBlockCount
      }
    }
    guard done == found.blockCount else { return false }
    next = 0
    for block in 0..<found.blockCount {
      for index in transposed {
        let plane = cache.planes[index]
        let size = plane.elementByteCount
        let run = size * Self.tokensPerBlock
        for row in 0..<plane.rowByteCount / size {
          let to = image.planeOffsets[0][index] + row * image.tokenCount * size + block * run
          memcpy(file.bytes.baseAddress! + to, scratch.baseAddress! + next, run)
          next += run
        }
      }
    }
    return true
  }
}
