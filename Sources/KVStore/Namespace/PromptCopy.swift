internal import Glibc
internal import KVCore

/// A prompt of the store's own, for work that goes on after the call that brought it.
///
/// Unchecked: filled once, then only read.
@safe final class PromptCopy: @unchecked Sendable {
  private let words: UnsafeMutablePointer<UInt32>
  private let wordCount: Int
  private let extraBytes: UnsafeMutableRawPointer
  private let extraByteCounts: [Int]

  init(_ prompt: Prompt) {
    wordCount = prompt.wordCount
    unsafe words = .allocate(capacity: max(wordCount, 1))
    if let source = unsafe prompt.words { unsafe words.update(from: source, count: wordCount) }
    extraByteCounts = unsafe prompt.extra.map { $0.count }
    unsafe extraBytes = .allocate(
      byteCount: max(extraByteCounts.reduce(0, +), 1),
      alignment: 8
    )
    var offset = 0
    for index in extraByteCounts.indices {
      if let base = unsafe prompt.extra[index].baseAddress {
        unsafe (extraBytes + offset).copyMemory(from: base, byteCount: extraByteCounts[index])
      }
      offset += extraByteCounts[index]
    }
  }

  deinit {
    unsafe words.deallocate()
    unsafe extraBytes.deallocate()
  }

  /// Whether it is a copy of this prompt.
  func isEqual(to prompt: Prompt) -> Bool {
    guard wordCount == prompt.wordCount,
      unsafe extraByteCounts.count == prompt.extra.count
    else { return false }
    if let other = unsafe prompt.words {
      guard unsafe memcmp(words, other, 4 * wordCount) == 0 else { return false }
    }
    var offset = 0
    for (index, count) in extraByteCounts.enumerated() {
      let other = unsafe prompt.extra[index]
      guard other.count == count else { return false }
      if let base = other.baseAddress {
        guard unsafe memcmp(extraBytes + offset, base, count) == 0 else { return false }
      }
      offset += count
    }
    return true
  }

  /// Lends it.
  func withPrompt<Result>(
    _ body: (Prompt) throws(StoreError) -> Result
  ) throws(StoreError) -> Result {
    var extra: [UnsafeRawBufferPointer] = unsafe []
    var offset = 0
    for count in extraByteCounts {
      unsafe extra.append(UnsafeRawBufferPointer(start: extraBytes + offset, count: count))
      offset += count
    }
    defer { withExtendedLifetime(self) {} }
    return try body(unsafe Prompt(words: words, wordCount: wordCount, extra: extra))
  }
}
