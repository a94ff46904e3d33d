import Glibc
import KVCore
import KVStore
import LlamaSlots

/// The store's side of one llama-server: finds prefixes, makes slot files from them, and takes slot files in.
///
/// Blocks of 64 tokens hold the KV that belongs to tokens for good; an end behind a block boundary holds the rest of the way to what was
/// saved there (`PrefixEnd`). All calls block on the store and are made on threads for that.
final class PrefixStore: Sendable {
  static let tokensPerBlock = 64
  /// Ends are cut into pieces of this size: the store's memory must hold a few blocks of any of its namespaces.
  static let pieceByteCount = 8 << 20

  let layout: SlotLayout
  private let store: Store
  private let namespace: Namespace
  private let pieces: [Namespace]
  private let endByteCountMax: Int

  init(
    _ store: Store,
    _ identity: NamespaceIdentity,
    _ limits: NamespaceLimits,
    layout: SlotLayout,
    windowTokenCount: Int
  ) throws {
    self.store = store
    self.layout = layout
    let namespace = try store.openNamespace(identity, limits: limits)
    let endByteCountMax = PrefixEnd.byteCountMax(
      layout,
      tokensPerBlock: Self.tokensPerBlock,
      windowTokenCount: windowTokenCount
    )
    let count = (endByteCountMax + Self.pieceByteCount - 1) / Self.pieceByteCount
    self.namespace = namespace
    self.endByteCountMax = endByteCountMax
    pieces = try (0..<count).map { index in
      try namespace.openSection(
        "end \(index)",
        byteCountMax: min(Self.pieceByteCount, endByteCountMax),
        quotaBytes: limits.quotaBytes
      )
    }
  }

  /// Bytes of each plane's part of a block; a model without attention has blocks that only say which tokens they are.
  static func regionByteCounts(_ layout: SlotLayout) -> [Int] {
    guard let cache = layout.blockCache else { return [tokensPerBlock] }
    return cache.planes.map { $0.rowByteCount * tokensPerBlock }
  }

  // ---------------------------------------------------------------- finding

  /// What is stored of a prompt.
  struct Found {
    var tokenCount: Int
    var blockCount: Int
    var tier: String
    var leases: [UInt64]
    var end: PrefixEnd?
    var endBytes: [UInt8]
    var estimateNanoseconds: UInt64
  }

  /// What is stored of the prompt's blocks, and what of that can be gone on from.
  struct Lookup {
    var usable: Found?
    /// Blocks that are stored, whether or not the server could go on from there.
    var storedBlockCount: Int
  }

  /// The longest prefix that the server could go on from, at least one token left to compute, and leases on it.
  func find(_ tokens: [Int32]) throws -> Lookup {
    try Self.withWords(tokens) { words in
      let whole = unsafe Prompt(words: words.baseAddress, wordCount: words.count)
      guard layout.needsExactEnds else {
        let match = try namespace.match(whole, options: .leaveOneToken)
        guard match.blockCount > 0 else { return Lookup(usable: nil, storedBlockCount: 0) }
        var found = Found(
          tokenCount: match.tokenCount,
          blockCount: match.blockCount,
          tier: Self.tier(match),
          leases: match.lease == 0 ? [] : [match.lease],
          end: nil,
          endBytes: [],
          estimateNanoseconds: match.restoreNanosecondsEstimated
        )
        if let (end, bytes) = try readEnd(whole, blockCount: match.blockCount) {
          let common = commonPrefix(end.tokens[...], tokens[match.tokenCount...])
          let used = min(common, tokens.count - 1 - match.tokenCount)
          if used > 0 {
            found.end = end
            found.endBytes = bytes
            found.tokenCount += used
          }
        }
        return Lookup(usable: found, storedBlockCount: match.blockCount)
      }
      let stored = try namespace.match(whole, options: [.peek, .leaveOneToken]).blockCount
      var wordCount = words.count
      while wordCount > Self.tokensPerBlock {
        let prompt = unsafe Prompt(words: words.baseAddress, wordCount: wordCount)
        let matches = try namespace.match(prompt, with: pieces, options: .leaveOneToken)
        let leases = matches.map(\.lease).filter { $0 != 0 }
        let blockCount = matches[0].blockCount
        guard blockCount > 0 else { break }
        if let (end, bytes) = try readEnd(prompt, blockCount: blockCount) {
          let tokenCount = blockCount * Self.tokensPerBlock + end.tokens.count
          if tokenCount < tokens.count,
            commonPrefix(end.tokens[...], tokens[(blockCount * Self.tokensPerBlock)...])
              == end.tokens.count
          {
            let found = Found(
              tokenCount: tokenCount,
              blockCount: blockCount,
              tier: Self.tier(matches[0]),
              leases: leases,
              end: end,
              endBytes: bytes,
              estimateNanoseconds: matches[0].restoreNanosecondsEstimated
            )
            return Lookup(usable: found, storedBlockCount: stored)
          }
        }
        release(leases)
        // One block less, since a token is left.
        wordCount = blockCount * Self.tokensPerBlock
      }
      return Lookup(usable: nil, storedBlockCount: stored)
    }
  }

  /// Leading blocks that are stored; leaves no trace.
  func storedBlockCount(_ tokens: [Int32]) throws -> Int {
    try Self.withWords(tokens) { words in
      try namespace.match(
        unsafe Prompt(words: words.baseAddress, wordCount: words.count),
        options: .peek
      )
      .blockCount
    }
  }

  func release(_ leases: [UInt64]) {
    for lease in leases { _ = try? store.releaseLease(lease) }
  }

  private static func tier(_ match: MatchResult) -> String {
    if match.archiveBlockCount > 0 { return "archive" }
    return match.diskBlockCount > 0 ? "disk" : "host"
  }

  /// The end that stands behind so many blocks; nil where there is none, or not all of it.
  private func readEnd(_ prompt: Prompt, blockCount: Int) throws -> (PrefixEnd, [UInt8])? {
    var bytes: [UInt8] = []
    for piece in pieces {
      let words = Self.words(ofDigest: try piece.sectionDigest(prompt, blockCount: blockCount))
      let capacity = piece.identity.regionByteCounts[0]
      let start = bytes.count
      var length = 0
      var isDone = false
      try Prompt.with(words) { prompt in
        guard try piece.match(prompt, options: .peek).blockCount == 1 else { return }
        bytes.append(contentsOf: repeatElement(0, count: capacity))
        try bytes.withUnsafeMutableBytes { buffer in
          var span = unsafe TransferSpan(
            data: buffer.baseAddress! + start,
            capacity: capacity,
            length: 0
          )
          try withUnsafeMutablePointer(to: &span) { pointer in
            let spans = unsafe UnsafeMutableBufferPointer(start: pointer, count: 1)
            isDone = try piece.restore(prompt, unsafe Transfer(spans: spans)).doneBlockCount == 1
          }
          length = span.length
        }
      }
      guard isDone else { return nil }
      bytes.removeLast(capacity - length)
      // The last piece is the one that is not full.
      if length < Self.pieceByteCount { break }
    }
    guard let end = bytes.withUnsafeBytes({ PrefixEnd($0, layout: layout) }) else { return nil }
    return (end, bytes)
  }

  // ---------------------------------------------------------------- to the server

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

  // ---------------------------------------------------------------- from the server

  struct Taken: Sendable {
    var newBlockCount = 0
    var storedBlockCount = 0
    var endIsStored = false
    var problem: String?
  }

  /// Stores what a saved slot file has that is new.
  ///
  /// - Parameters:
  ///   - file: as read from `bytes`.
  ///   - bytes: of the file.
  ///   - replacesEnd: whether an end that is stored behind the last block gives way to this one.
  /// - Returns: what was taken.
  func take(_ file: SlotFile, _ bytes: UnsafeRawBufferPointer, replacesEnd: Bool, lives: Lives)
    throws -> Taken
  {
    var taken = Taken()
    guard !file.hasMedia else { return Taken(problem: "media") }
    if layout.blockCache != nil, !file.isInOrder {
      guard let (ordered, copy) = file.reordered(bytes) else {
        return Taken(problem: "shifted context")
      }
      return try copy.withUnsafeBytes {
        try take(ordered, $0, replacesEnd: replacesEnd, lives: lives)
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
      if let (stored, _) = try readEnd(prompt, blockCount: blockCount) {
        let tail = file.tokens[blockTokenCount...]
        // Where ends are exact, what an earlier step of the same conversation left stays: a client that drops the answer's reasoning
        // needs it. Elsewhere any part of it will do, and the longest is best.
        let keeps =
          layout.needsExactEnds
          ? tail.starts(with: stored.tokens) || !replacesEnd : stored.tokens.starts(with: tail)
        if keeps {
          taken.endIsStored = true
          return
        }
        for piece in pieces {
          let words = Self.words(ofDigest: try piece.sectionDigest(prompt, blockCount: blockCount))
          _ = try Prompt.with(words) { prompt in try piece.forget(prompt) }
        }
      }
      guard let record = PrefixEnd.encode(file, bytes, blockTokenCount: blockTokenCount) else {
        taken.problem = "shorter than the window, or the window has gaps"
        return
      }
      guard record.count <= endByteCountMax else {
        taken.problem = "the window is larger than the model says"
        return
      }
      taken.endIsStored = try store(record, prompt, blockCount, lives)
    }
    return taken
  }

  private func store(_ record: [UInt8], _ prompt: Prompt, _ blockCount: Int, _ lives: Lives) throws
    -> Bool
  {
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

  private func offload(
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

  // ---------------------------------------------------------------- keeping

  /// How long what is stored for a request lives, and how dear it is.
  struct Lives: Sendable {
    var timeToLive: TimeToLive?
    var priority: UInt8?
  }

  /// Pins the stored prefix of these tokens; its blocks, and what `unpin` takes.
  func pin(_ tokens: [Int32], nanoseconds: UInt64) throws -> (id: UInt64, blockCount: Int)? {
    try Self.withWords(tokens) { words in
      try namespace.pin(
        unsafe Prompt(words: words.baseAddress, wordCount: words.count),
        nanoseconds: nanoseconds
      )
    }
  }

  func explain(_ tokens: [Int32]) throws -> Explanation {
    try Self.withWords(tokens) { words in
      try namespace.explain(unsafe Prompt(words: words.baseAddress, wordCount: words.count))
    }
  }

  // ---------------------------------------------------------------- words

  private static func withWords<Result>(
    _ tokens: [Int32],
    _ body: (UnsafeBufferPointer<UInt32>) throws -> Result
  ) rethrows -> Result {
    try tokens.withUnsafeBytes { try body($0.bindMemory(to: UInt32.self)) }
  }

  private static func words(ofDigest digest: [UInt8]) -> [UInt32] {
    digest.withUnsafeBytes { bytes in
      (0..<bytes.count / 4).map { bytes.loadUnaligned(fromByteOffset: $0 * 4, as: UInt32.self) }
    }
  }
}

/// How many leading elements two token lists share.
func commonPrefix(_ a: ArraySlice<Int32>, _ b: ArraySlice<Int32>) -> Int {
  let count = min(a.count, b.count)
  return a.withUnsafeBufferPointer { a in
    b.withUnsafeBufferPointer { b in
      var index = 0
      while index < count, a[index] == b[index] { index += 1 }
      return index
    }
  }
}
