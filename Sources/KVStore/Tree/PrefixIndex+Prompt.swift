internal import KVCore
internal import KVIndex

extension PrefixIndex {
  /// Adds a block of a prompt behind `parent`, as `append` does.
  func append(
    _ namespace: NamespaceID,
    after parent: IndexLocation,
    _ block: PromptBlock,
    entry: IndexEntry,
    at place: BlockPosition? = nil
  ) -> IndexAppendResult? {
    guard let words = unsafe block.words.baseAddress else { return nil }
    return unsafe append(
      namespace,
      after: parent,
      words: words,
      extra: block.extra,
      entry: entry,
      at: place
    )
  }
}
