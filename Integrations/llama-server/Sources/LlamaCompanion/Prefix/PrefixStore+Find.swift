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
        // Of an end in several pieces, how many it has depends on its length: the first is always there.
        let matches = try namespace.match(
          prompt,
          with: Array(pieces.prefix(1)),
          options: .leaveOneToken
        )
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

  static func tier(_ match: MatchResult) -> String {
    if match.archiveBlockCount > 0 { return "archive" }
    return match.diskBlockCount > 0 ? "disk" : "host"
  }

  /// The end that stands behind so many blocks; nil where there is none, or not all of it.
  func readEnd(_ prompt: Prompt, blockCount: Int) throws -> (PrefixEnd, [UInt8])? {
    guard var bytes = try read(pieces, prompt, blockCount: blockCount) else { return nil }
    if layout.caches.count > 1 {
      let whole = try PrefixEnd.join(
        bytes,
        layout,
        blockTokenCount: blockCount * Self.tokensPerBlock,
        tokensPerBlock: Self.tokensPerBlock
      ) { block, isWhole in
        isWhole
          ? try read(windows, prompt, blockCount: block + 1)
          : try read(fronts, prompt, blockCount: blockCount)
      }
      guard let whole else { return nil }
      bytes = whole
    }
    guard let end = bytes.withUnsafeBytes({ PrefixEnd($0, layout: layout) }) else { return nil }
    return (end, bytes)
  }

  /// The tokens of the end behind so many blocks; nil where there is none that could be used.
  func endTokens(_ prompt: Prompt, blockCount: Int) throws -> [Int32]? {
    guard layout.caches.count > 1 else {
      return try readEnd(prompt, blockCount: blockCount)?.0.tokens
    }
    guard let bytes = try read(pieces, prompt, blockCount: blockCount),
      let (tokens, first, blocks) = bytes.withUnsafeBytes({
        PrefixEnd.needs(
          $0,
          layout,
          blockTokenCount: blockCount * Self.tokensPerBlock,
          tokensPerBlock: Self.tokensPerBlock
        )
      })
    else { return nil }
    for block in blocks where try !has(windows, prompt, blockCount: block + 1) {
      guard block * Self.tokensPerBlock < first, try has(fronts, prompt, blockCount: blockCount)
      else { return nil }
    }
    return tokens
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
