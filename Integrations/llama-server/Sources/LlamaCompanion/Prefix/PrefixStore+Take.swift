import Glibc
import KVCore
import KVStore
import LlamaSlots

extension PrefixStore {
  struct Taken: Sendable {
    var newBlockCount = 0
    var storedBlockCount = 0
    var endIsStored = false
    var problem: String?
  }

  /// What becomes of an end that is stored behind the last block already, where it is no beginning of the new one.
  enum StoredEndRule {
    case stays
    /// It gives way if it goes on from the new one: the end of a prompt is worth more than that of its answer.
    case yieldsToItsBeginning
    case yields
  }

  /// Stores what a saved slot file has that is new.
  ///
  /// - Parameters:
  ///   - file: as read from `bytes`.
  ///   - bytes: of the file.
  ///   - rule: for an end that is stored behind the last block.
  /// - Returns: what was taken.
  func take(_ file: SlotFile, _ bytes: UnsafeRawBufferPointer, _ rule: StoredEndRule, lives: Lives)
    throws -> Taken
  {
    var taken = Taken()
    guard !file.hasMedia else { return Taken(problem: "media") }
    if layout.blockCache != nil, !file.isInOrder {
      guard let (ordered, copy) = file.reordered(bytes) else {
        return Taken(problem: "shifted context")
      }
      return try copy.withUnsafeBytes {
        try take(ordered, $0, rule, lives: lives)
      }
    }
    let blockCount = file.tokens.count / Self.tokensPerBlock
    guard blockCount > 0 else { return taken }
    try Self.withWords(file.tokens) { words in
      let prompt = unsafe Prompt(
        words: words.baseAddress,
        wordCount: blockCount * Self.tokensPerBlock
      )
      let first = try namespace.match(prompt, options: .peek).blockCount
      taken.storedBlockCount = first
      if first < blockCount {
        let done = try offload(file, bytes, prompt, first..<blockCount, lives)
        taken.newBlockCount = done
        taken.storedBlockCount += done
        guard first + done == blockCount else {
          taken.problem = "the store took \(done) of \(blockCount - first) new blocks"
          return
        }
      }
      let blockTokenCount = blockCount * Self.tokensPerBlock
      let end = file.tokens.count
      if !layout.needsExactEnds, end == blockTokenCount { return }
      if let stored = try readEnd(prompt, blockCount: blockCount)?.tokens {
        let tail = file.tokens[blockTokenCount...]
        // Where ends are exact, what an earlier step of the same conversation left stays: a client that drops the answer's reasoning
        // needs it. Elsewhere any part of it will do, and the longest is best.
        let keeps =
          layout.needsExactEnds
          ? tail.starts(with: stored) || rule == .stays
            || rule == .yieldsToItsBeginning && !stored.starts(with: tail)
          : stored.starts(with: tail)
        if keeps {
          taken.endIsStored = true
          return
        }
        for piece in pieces + fronts {
          let words = Self.words(ofDigest: try piece.sectionDigest(prompt, blockCount: blockCount))
          _ = try Prompt.with(words) { prompt in try piece.forget(prompt) }
        }
      }
      guard let record = PrefixEnd.encode(file, bytes, blockTokenCount: blockTokenCount) else {
        taken.problem = "shorter than the window, or the window has gaps"
        return
      }
      if layout.caches.count > 1 {
        taken.endIsStored = try storeParts(record, prompt, blockCount, lives)
      } else {
        taken.endIsStored = try store(record, in: pieces, prompt, blockCount, lives)
      }
    }
    return taken
  }

  /// An end whose window is shared with others, block by block; the end itself last.
  private func storeParts(
    _ record: [UInt8],
    _ prompt: Prompt,
    _ blockCount: Int,
    _ lives: Lives
  ) throws -> Bool {
    let parts = PrefixEnd.part(
      record,
      layout,
      blockTokenCount: blockCount * Self.tokensPerBlock,
      tokensPerBlock: Self.tokensPerBlock
    )
    guard let parts else { return false }
    for part in parts.blocks where try !has(windows, prompt, blockCount: part.block + 1) {
      let isStored =
        part.isWhole
        ? try store(part.rows, in: windows, prompt, part.block + 1, lives)
        : try store(part.rows, in: fronts, prompt, blockCount, lives)
      guard isStored else { return false }
    }
    return try store(parts.end, in: pieces, prompt, blockCount, lives)
  }

  private func store(
    _ record: [UInt8],
    in pieces: [Namespace],
    _ prompt: Prompt,
    _ blockCount: Int,
    _ lives: Lives
  ) throws -> Bool {
    // Larger than the model says, with a window of another length: not stored.
    guard record.count <= pieces.reduce(0, { $0 + $1.identity.regionByteCounts[0] }) else {
      return false
    }
    var start = 0
    for piece in pieces {
      let words = Self.words(ofDigest: try piece.sectionDigest(prompt, blockCount: blockCount))
      let count = min(piece.identity.regionByteCounts[0], record.count - start)
      let outcome = try Prompt.with(words) { prompt in
        try record.withUnsafeBytes { buffer in
          var span = unsafe TransferSpan(
            data: UnsafeMutableRawPointer(mutating: buffer.baseAddress! + start),
            capacity: count,
            length: count
          )
          return try withUnsafeMutablePointer(to: &span) { pointer in
            var transfer = unsafe Transfer(
              spans: UnsafeMutableBufferPointer(start: pointer, count: 1)
            )
            transfer.timeToLive = lives.timeToLive
            transfer.priority = lives.priority
            return try piece.offload(prompt, transfer).doneBlockCount
          }
        }
      }
      guard outcome == 1 else { return false }
      start += count
      if count < Self.pieceByteCount { break }
    }
    return true
  }

  func offload(
    _ file: SlotFile,
    _ bytes: UnsafeRawBufferPointer,
    _ prompt: Prompt,
    _ blocks: Range<Int>,
    _ lives: Lives
  ) throws -> Int {
    let planes = layout.blockCache?.planes ?? []
    let besides = max(
      planes.filter { $0.elementByteCount > 0 }.reduce(0) { $0 + $1.rowByteCount }
        * Self.tokensPerBlock * blocks.count,
      planes.isEmpty ? Self.tokensPerBlock : 1
    )
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: besides, alignment: 4096)
    defer { scratch.deallocate() }
    if planes.isEmpty { scratch.initializeMemory(as: UInt8.self, repeating: 0) }
    var spans: [TransferSpan] = []
    spans.reserveCapacity(blocks.count * max(1, planes.count))
    var next = 0
    for block in blocks {
      if planes.isEmpty {
        let size = Self.tokensPerBlock
        spans.append(unsafe TransferSpan(data: scratch.baseAddress, capacity: size, length: size))
      }
      for (plane, offset) in zip(planes, file.caches.first?.planeOffsets ?? []) {
        let size = plane.rowByteCount * Self.tokensPerBlock
        let place: UnsafeRawPointer
        if plane.elementByteCount > 0 {
          place = UnsafeRawPointer(scratch.baseAddress! + next)
          let element = plane.elementByteCount
          let run = element * Self.tokensPerBlock
          for row in 0..<plane.rowByteCount / element {
            let from = offset + row * file.tokens.count * element + block * run
            memcpy(scratch.baseAddress! + next, bytes.baseAddress! + from, run)
            next += run
          }
        } else {
          place = bytes.baseAddress! + offset + block * size
        }
        spans.append(
          unsafe TransferSpan(
            data: UnsafeMutableRawPointer(mutating: place),
            capacity: size,
            length: size
          )
        )
      }
    }
    return try spans.withUnsafeMutableBufferPointer { spans in
      var transfer = unsafe Transfer(
        firstBlock: blocks.lowerBound,
        blockCount: blocks.count,
        spans: spans
      )
      transfer.timeToLive = lives.timeToLive
      transfer.priority = lives.priority
      return try namespace.offload(prompt, transfer).doneBlockCount
    }
  }
}
