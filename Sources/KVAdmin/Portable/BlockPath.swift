internal import KVCore
internal import KVStore

/// The blocks from the first one of a chain down to where a portable file is written or read.
struct BlockPath {
  private let wordsPerBlock: Int
  private var words: [UInt32] = []
  private var extra: [[UInt8]] = []
  private var keys: [BlockKey] = []

  init(wordsPerBlock: Int) { self.wordsPerBlock = wordsPerBlock }

  var blockCount: Int { keys.count }

  /// Key of its last block; nil when it is empty.
  var lastKey: BlockKey? { keys.last }

  func key(ofBlock block: Int) -> BlockKey { keys[block] }
  func extra(ofBlock block: Int) -> [UInt8] { extra[block] }
  func words(ofBlock block: Int) -> [UInt32] {
    Array(words[block * wordsPerBlock..<(block + 1) * wordsPerBlock])
  }

  mutating func append(_ words: [UInt32], _ extra: [UInt8], _ key: BlockKey) {
    self.words += words
    self.extra.append(extra)
    keys.append(key)
  }

  /// Leaves its first blocks only.
  mutating func truncate(to blockCount: Int) {
    guard blockCount < keys.count else { return }
    words.removeLast(words.count - blockCount * wordsPerBlock)
    extra.removeLast(extra.count - blockCount)
    keys.removeLast(keys.count - blockCount)
  }

  /// Whether the block of a file has its parent here.
  func canTake(_ entry: BlockFileEntry) -> Bool { entry.depth <= blockCount }

  /// Takes the next block of a file behind its parent; false when that is not here, or its key is not that of its tokens.
  mutating func add(_ entry: BlockFileEntry, _ chain: KeyChain) -> Bool {
    guard canTake(entry) else { return false }
    truncate(to: entry.depth)
    let parentKey = lastKey ?? chain.rootKey
    let words = entry.words.span
    let extra = entry.extra.span
    let key = unsafe words.withUnsafeBufferPointer { words -> BlockKey? in
      guard let base = words.baseAddress else { return nil }
      return unsafe extra.withUnsafeBytes { extra in
        unsafe chain.key(after: parentKey, words: base, extra: extra)
      }
    }
    guard key == entry.blockKey else { return false }
    append(entry.words, entry.extra, entry.blockKey)
    return true
  }

  /// Lends it as a prompt.
  func withPrompt<Result>(
    _ body: (Prompt) throws(StoreError) -> Result
  ) throws(StoreError) -> Result {
    guard extra.contains(where: { !$0.isEmpty }) else { return try Prompt.with(words, body) }
    let flat = extra.flatMap { $0 }
    let counts = extra.map(\.count)
    let span = words.span
    let flatSpan = flat.span
    return try unsafe span.withUnsafeBufferPointer { (words) throws(StoreError) -> Result in
      try unsafe flatSpan.withUnsafeBytes { (flat) throws(StoreError) -> Result in
        var pieces: [UnsafeRawBufferPointer] = unsafe []
        var offset = 0
        for count in counts {
          unsafe pieces.append(UnsafeRawBufferPointer(rebasing: flat[offset..<offset + count]))
          offset += count
        }
        return try body(
          unsafe Prompt(words: words.baseAddress, wordCount: words.count, extra: pieces)
        )
      }
    }
  }
}
