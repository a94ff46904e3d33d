internal import KVCatalog
internal import KVCore

/// The blocks from a root down to one, as the catalog's rows have them: what a chunk of them is made from.
struct StoredPath {
  struct Block {
    var blockKey: BlockKey
    var extra: [UInt8]
    var expiry: UInt64
    var isIdle: Bool
  }

  let namespace: NamespaceID
  private(set) var end: BlockPosition
  /// Of all blocks, one behind the other.
  private(set) var words: [UInt32] = []
  private(set) var blocks: [Block] = []
  private let wordsPerBlock: Int

  /// Rows that are read in one transaction.
  private static let rowCountMax: UInt32 = 1000

  init(_ namespace: NamespaceCore) {
    self.namespace = namespace.id
    wordsPerBlock = namespace.wordsPerBlock
    end = .root
  }

  /// Reads down to a block; false when the path has changed meanwhile or is damaged.
  ///
  /// What is known of the same run already is not read again.
  mutating func read(_ core: StoreCore, to position: BlockPosition) throws(StoreError) -> Bool {
    if end.run == position.run, end != .root {
      if position.position <= end.position {
        truncate(to: blocks.count - Int(end.position - position.position))
        end = position
        return true
      }
      let first = end.position + 1
      end = position
      return try append(core, position.run, from: first, through: position.position)
    }
    words = []
    blocks = []
    end = position
    // The runs of the path, the last one first.
    var runs: [BlockPosition] = []
    var at = position
    while at != .root {
      runs.append(at)
      // A path has no more runs than blocks.
      guard runs.count <= 1 << 20 else { return false }
      let first = BlockPosition(run: at.run, position: 0)
      let parent = try core.catalogRead { [namespace] (transaction) throws(CatalogError) in
        try transaction.parent(namespace, first)
      }
      guard let parent else { return false }
      at = parent
    }
    for last in runs.reversed() {
      guard try append(core, last.run, from: 0, through: last.position) else { return false }
    }
    return true
  }

  private mutating func append(
    _ core: StoreCore,
    _ run: RunID,
    from first: UInt32,
    through last: UInt32
  ) throws(StoreError) -> Bool {
    var next = first
    while next <= last {
      let past = min(last - next, Self.rowCountMax - 1) + next
      var rows: [Block] = []
      var rowWords: [UInt32] = []
      try core.catalogRead { [namespace] (transaction) throws(CatalogError) in
        try transaction.forEachRow(namespace, run, from: next, through: past) { _, row in
          guard let row else { return false }
          unsafe rows.append(
            Block(
              blockKey: row.blockKey,
              extra: Array(row.extra),
              expiry: row.expiry,
              isIdle: row.flags.contains(.idleExpiry)
            )
          )
          rowWords += row.wordArray
          return true
        }
      }
      guard rows.count == Int(past - next) + 1, rowWords.count == rows.count * wordsPerBlock else {
        return false
      }
      blocks += rows
      words += rowWords
      guard past < .max else { return true }
      next = past + 1
    }
    return true
  }

  private mutating func truncate(to blockCount: Int) {
    blocks.removeLast(blocks.count - blockCount)
    words.removeLast(words.count - blockCount * wordsPerBlock)
  }

  /// Lends it as a prompt.
  func withPrompt<Result>(
    _ body: (Prompt) throws(StoreError) -> Result
  ) throws(StoreError) -> Result {
    let joined = blocks.flatMap(\.extra)
    return try unsafe joined.span.withUnsafeBytes { (bytes) throws(StoreError) in
      var extra: [UnsafeRawBufferPointer] = unsafe []
      if unsafe !bytes.isEmpty {
        var offset = 0
        for block in blocks {
          unsafe extra.append(
            UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + block.extra.count])
          )
          offset += block.extra.count
        }
      }
      return try unsafe words.span.withUnsafeBufferPointer { (words) throws(StoreError) in
        try body(
          unsafe Prompt(words: words.baseAddress, wordCount: words.count, extra: extra)
        )
      }
    }
  }
}
