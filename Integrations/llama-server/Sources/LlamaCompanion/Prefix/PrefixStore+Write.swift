import Glibc
import KVStore
import LlamaSlots

extension PrefixStore {
  /// Fills a slot file with what was found; false when a block turned out to be missing.
  func write(_ found: Found, _ image: SlotImage, to file: MappedFile, tokens: [Int32]) throws
    -> Bool
  {
    image.writeHeaders(to: file.bytes)
    guard let cache = layout.blockCache else { return try writeEnd(found, image, file, tokens) }
    // Transposed planes have no place where a block lies together: it is read beside, and spread.
    let transposed = cache.planes.indices.filter { cache.planes[$0].elementByteCount > 0 }
    let besides = transposed.reduce(0) { $0 + cache.planes[$1].rowByteCount * Self.tokensPerBlock }
    let scratch = UnsafeMutableRawBufferPointer.allocate(
      byteCount: max(1, besides * found.blockCount),
      alignment: 4096
    )
    defer { scratch.deallocate() }
    let spans = UnsafeMutableBufferPointer<TransferSpan>.allocate(
      capacity: found.blockCount * cache.planes.count
    )
    defer { spans.deallocate() }
    var next = 0
    var index = 0
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
        spans.initializeElement(
          at: index,
          to: unsafe TransferSpan(data: place, capacity: size, length: 0)
        )
        index += 1
      }
    }
    let done = try Self.withWords(tokens) { words in
      let prompt = unsafe Prompt(words: words.baseAddress, wordCount: words.count)
      let transfer = unsafe Transfer(blockCount: found.blockCount, spans: spans)
      guard found.end?.parted != nil else {
        return try namespace.restore(prompt, transfer).doneBlockCount
      }
      // The windows are read while the blocks are; the spans are the store's until those are done.
      let operation = try unsafe namespace.startRestore(prompt, transfer)
      let hasEnd = Result { try writeEnd(found, image, file, tokens) }
      let done = try operation.wait()?.doneBlockCount
      return try hasEnd.get() ? done ?? 0 : 0
    }
    guard done == found.blockCount else { return false }
    if found.end?.parted == nil, try !writeEnd(found, image, file, tokens) { return false }
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

  /// Fills in what stands behind the blocks; false when a part of it turned out to be missing.
  private func writeEnd(
    _ found: Found,
    _ image: SlotImage,
    _ file: MappedFile,
    _ tokens: [Int32]
  ) throws -> Bool {
    guard let end = found.end else { return true }
    let blockTokenCount = found.blockCount * Self.tokensPerBlock
    if let whole = end.whole {
      end.bytes.withUnsafeBytes {
        whole.write(
          $0,
          to: file.bytes,
          image,
          blockTokenCount: blockTokenCount,
          usedTokenCount: found.tokenCount - blockTokenCount
        )
      }
    }
    guard let parted = end.parted else { return true }
    end.bytes.withUnsafeBytes { parted.write($0, to: file.bytes, image) }
    return try Self.withWords(tokens) { words in
      let prompt = unsafe Prompt(words: words.baseAddress, wordCount: words.count)
      return try writeWindows(
        parted,
        of: end,
        prompt,
        blockCount: found.blockCount,
        to: file.bytes,
        image
      )
    }
  }
}
