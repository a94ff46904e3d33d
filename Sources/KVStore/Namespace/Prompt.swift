package import KVCore

/// How a namespace's prompts are written.
package struct PromptForm: Sendable {
  package let identityMode: IdentityMode
  /// Bytes of a digest; 0 for tokens.
  package let digestByteCount: Int
}

/// The blocks that a call is about, from the first token on.
///
/// Borrows the caller's memory for the call.
@safe public struct Prompt {
  /// Token ids, or the digests' bytes as words; `wordCount` of them.
  package let words: UnsafePointer<UInt32>?
  package let wordCount: Int
  /// Extra bytes of the first blocks; the rest have none.
  package let extra: [UnsafeRawBufferPointer]

  /// A prompt over memory that outlives it.
  @unsafe public init(
    words: UnsafePointer<UInt32>?,
    wordCount: Int,
    extra: [UnsafeRawBufferPointer] = unsafe []
  ) {
    unsafe self.words = words
    self.wordCount = unsafe words == nil ? 0 : wordCount
    unsafe self.extra = extra
  }

  /// Extra bytes of a block, mostly none.
  package func extraBytes(ofBlock block: Int) -> UnsafeRawBufferPointer {
    unsafe block < extra.count ? extra[block] : UnsafeRawBufferPointer(start: nil, count: 0)
  }

  /// A full block of so many words; nil when the prompt has none there.
  package func block(_ index: Int, wordCount count: Int) -> PromptBlock? {
    guard let words = unsafe words, index >= 0, index < wordCount / count else { return nil }
    return unsafe PromptBlock(
      words: UnsafeBufferPointer(start: words + index * count, count: count),
      extra: extraBytes(ofBlock: index)
    )
  }

  /// Lends `words` as a prompt.
  public static func with<Result, Failure>(
    _ words: [UInt32],
    _ body: (Prompt) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let span = words.span
    return try unsafe span.withUnsafeBufferPointer { (buffer) throws(Failure) -> Result in
      try body(unsafe Prompt(words: buffer.baseAddress, wordCount: buffer.count))
    }
  }
}
