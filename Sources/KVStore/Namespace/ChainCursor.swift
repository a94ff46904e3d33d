internal import KVCatalog
internal import KVCodec
package import KVCore

/// One block of a prompt: what makes it this block and no other.
///
/// Borrows the prompt's memory.
@safe package struct PromptBlock {
  /// Token ids, or the digest's bytes as words.
  package let words: UnsafeBufferPointer<UInt32>
  /// Mostly none.
  package let extra: UnsafeRawBufferPointer

  package var wordBytes: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(words) }

  /// Whether a row of the catalog, of the same namespace, is this block's.
  func matches(_ row: RowView) -> Bool {
    guard let start = unsafe words.baseAddress else { return false }
    return unsafe row.wordsEqual(start) && row.extra.elementsEqual(extra)
  }

  /// Whether a slot's header is this block's.
  func matches(_ header: SlotHeaderView) -> Bool {
    unsafe header.words.elementsEqual(wordBytes) && header.extra.elementsEqual(extra)
  }
}

/// A block's key, and its parent's.
struct ChainLink: Sendable {
  /// Of the prompt.
  let block: Int
  let parentKey: BlockKey
  let key: BlockKey
}

/// Goes along a prompt's full blocks and chains their keys.
///
/// Borrows the prompt's memory.
@safe package struct ChainCursor {
  private let chain: KeyChain
  private let prompt: Prompt
  /// The block that it stands before.
  package private(set) var block: Int
  /// The key of the one before that.
  package private(set) var parentKey: BlockKey

  /// Stands before a prompt's first block, or before the one after `parentKey`.
  package init(
    _ chain: KeyChain,
    _ prompt: Prompt,
    at block: Int = 0,
    after parentKey: BlockKey? = nil
  ) {
    self.chain = chain
    self.prompt = prompt
    self.block = block
    self.parentKey = parentKey ?? chain.rootKey
  }

  /// The block that it stands before; nil behind the last full one.
  package var here: PromptBlock? { prompt.block(block, wordCount: chain.wordsPerBlock) }

  /// The key of that block.
  package var key: BlockKey? {
    guard let here, let words = unsafe here.words.baseAddress else { return nil }
    return unsafe chain.key(after: parentKey, words: words, extra: here.extra)
  }

  /// Passes a block whose key is known.
  package mutating func pass(_ key: BlockKey) {
    parentKey = key
    block += 1
  }

  /// Passes a block, with its key.
  mutating func next() -> ChainLink? {
    guard let key else { return nil }
    defer { pass(key) }
    return ChainLink(block: block, parentKey: parentKey, key: key)
  }
}
