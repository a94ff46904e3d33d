import KVCore
import KVStore
import LlamaSlots

extension PrefixStore {
  /// What is stored of a prompt.
  struct Found {
    var tokenCount: Int
    var blockCount: Int
    var tier: String
    var leases: [UInt64]
    var end: StoredEnd?
    var estimateNanoseconds: UInt64
  }

  /// An end as it is stored; its window, where it has one, lies block by block beside it.
  struct StoredEnd {
    var tokens: [Int32]
    var bytes: [UInt8]
    var whole: PrefixEnd?
    var parted: PartedEnd?
    /// Whether the first block of its window is stored for it alone.
    var hasFront = false

    var windowPositions: [Int32] { parted?.windowPositions ?? whole?.windowPositions ?? [] }
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
      try waitForRemote(whole)
      guard layout.needsExactEnds else {
        let match = try namespace.match(whole, options: .leaveOneToken)
        guard match.blockCount > 0 else { return Lookup(usable: nil, storedBlockCount: 0) }
        var found = Found(
          tokenCount: match.tokenCount,
          blockCount: match.blockCount,
          tier: Self.tier(match),
          leases: match.lease == 0 ? [] : [match.lease],
          end: nil,
          estimateNanoseconds: match.restoreNanosecondsEstimated
        )
        if let end = try readEnd(whole, blockCount: match.blockCount) {
          let common = commonPrefix(end.tokens[...], tokens[match.tokenCount...])
          let used = min(common, tokens.count - 1 - match.tokenCount)
          if used > 0 {
            found.end = end
            found.tokenCount += used
          }
        }
        return Lookup(usable: found, storedBlockCount: match.blockCount)
      }
      let stored = try namespace.match(whole, options: [.peek, .leaveOneToken]).blockCount
      var wordCount = words.count
      while wordCount > Self.tokensPerBlock {
        let prompt = unsafe Prompt(words: words.baseAddress, wordCount: wordCount)
        // Of an end in several pieces, how many it has depends on its length: the first is always there.
        let matches = try namespace.match(
          prompt,
          with: Array(pieces.prefix(1)),
          options: .leaveOneToken
        )
        let leases = matches.map(\.lease).filter { $0 != 0 }
        let blockCount = matches[0].blockCount
        guard blockCount > 0 else { break }
        if let end = try readEnd(prompt, blockCount: blockCount) {
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

  static func tier(_ match: MatchResult) -> String {
    if match.archiveBlockCount > 0 { return "archive" }
    return match.diskBlockCount > 0 ? "disk" : "host"
  }

  /// The end that stands behind so many blocks; nil where there is none, or not all of it.
  func readEnd(_ prompt: Prompt, blockCount: Int) throws -> StoredEnd? {
    guard let bytes = try read(pieces, prompt, blockCount: blockCount) else { return nil }
    guard layout.caches.count > 1 else {
      guard let end = bytes.withUnsafeBytes({ PrefixEnd($0, layout: layout) }) else { return nil }
      return StoredEnd(tokens: end.tokens, bytes: bytes, whole: end)
    }
    guard let parted = partedEnd(bytes, blockCount: blockCount) else { return nil }
    var end = StoredEnd(tokens: parted.tokens, bytes: bytes, parted: parted)
    for block in parted.blocks where try !has(windows, prompt, blockCount: block + 1) {
      guard block * Self.tokensPerBlock < parted.first,
        try has(fronts, prompt, blockCount: blockCount)
      else { return nil }
      end.hasFront = true
    }
    return end
  }

  /// The end without its window, which lies beside it.
  func partedEnd(_ prompt: Prompt, blockCount: Int) throws -> PartedEnd? {
    try read(pieces, prompt, blockCount: blockCount).flatMap {
      partedEnd($0, blockCount: blockCount)
    }
  }

  private func partedEnd(_ bytes: [UInt8], blockCount: Int) -> PartedEnd? {
    bytes.withUnsafeBytes {
      PartedEnd(
        $0,
        layout,
        blockTokenCount: blockCount * Self.tokensPerBlock,
        tokensPerBlock: Self.tokensPerBlock
      )
    }
  }

  /// Copies the windows of an end's blocks into a file that is being made; false where one is missing.
  func writeWindows(
    _ parted: PartedEnd,
    of end: StoredEnd,
    _ prompt: Prompt,
    blockCount: Int,
    to file: UnsafeMutableRawBufferPointer,
    _ image: SlotImage
  ) throws -> Bool {
    for block in parted.blocks {
      let isFront = end.hasFront && block == parted.blocks.lowerBound
      let isPlaced = try withSection(
        isFront ? fronts : windows,
        prompt,
        blockCount: isFront ? blockCount : block + 1
      ) { parted.place($0, ofBlock: block, to: file, image) }
      guard isPlaced else { return false }
    }
    return true
  }

  /// Lends what is stored in these pieces behind so many blocks; false where a piece is missing.
  private func withSection(
    _ pieces: [Namespace],
    _ prompt: Prompt,
    blockCount: Int,
    _ body: (UnsafeRawBufferPointer) -> Bool
  ) throws -> Bool {
    guard pieces.count == 1 else {
      return try read(pieces, prompt, blockCount: blockCount)?.withUnsafeBytes(body) ?? false
    }
    let words = Self.words(ofDigest: try pieces[0].sectionDigest(prompt, blockCount: blockCount))
    return try Prompt.with(words) { prompt in
      // A use of it, as of the blocks.
      let match = try pieces[0].match(prompt)
      defer { release(match.lease == 0 ? [] : [match.lease]) }
      guard match.blockCount == 1 else { return false }
      // Where it lies in the store's memory: nothing is copied but into the file.
      let none = UnsafeMutableBufferPointer<TransferSpan>(start: nil, count: 0)
      let view = try pieces[0].view(prompt, unsafe Transfer(spans: none))
      defer { view.release() }
      return view.withBytes(block: 0, region: 0, body) ?? false
    }
  }

  func has(_ pieces: [Namespace], _ prompt: Prompt, blockCount: Int) throws -> Bool {
    guard let piece = pieces.first else { return false }
    let words = Self.words(ofDigest: try piece.sectionDigest(prompt, blockCount: blockCount))
    return try Prompt.with(words) { try piece.match($0, options: .peek).blockCount == 1 }
  }

  /// What is stored in these pieces behind so many blocks; nil where a piece is missing.
  private func read(_ pieces: [Namespace], _ prompt: Prompt, blockCount: Int) throws -> [UInt8]? {
    var bytes: [UInt8] = []
    for piece in pieces {
      let words = Self.words(ofDigest: try piece.sectionDigest(prompt, blockCount: blockCount))
      let capacity = piece.identity.regionByteCounts[0]
      let start = bytes.count
      var length = 0
      var isDone = false
      try Prompt.with(words) { prompt in
        // A use of it, as of the blocks.
        let match = try piece.match(prompt)
        defer { release(match.lease == 0 ? [] : [match.lease]) }
        guard match.blockCount == 1 else { return }
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
    return pieces.isEmpty ? nil : bytes
  }
}
