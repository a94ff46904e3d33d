internal import KVCore
internal import KVIndex

/// Finds blocks of other chains within a prompt, at any offset: the longest stretch of neighbouring blocks counts.
///
/// Rows come from the newest run's end backwards.
struct ElsewhereSearch {
  let windows: TokenWindows
  private(set) var bestCount = 0
  private(set) var bestPosition: BlockPosition?
  /// The stretch that is being followed: where it begins in the prompt so far, and how long it is.
  private var start: (offset: Int, position: BlockPosition)?
  private var count = 0

  init(windows: TokenWindows) { self.windows = windows }

  mutating func look(at words: [UInt32], position: BlockPosition) {
    // Backwards: this block stands right before the stretch in both, or the stretch is over.
    if let start, start.position.run == position.run,
      start.position.position == position.position &+ 1, start.offset >= words.count,
      windows.tokens[(start.offset - words.count)..<start.offset].elementsEqual(words)
    {
      self.start = (start.offset - words.count, position)
      count += words.count
      return
    }
    finish()
    guard let piece = windows.longest(of: words, from: 0, preferred: 0), piece.count == words.count
    else { return }
    start = (piece.offset, position)
    count = piece.count
  }

  /// Ends the stretch that is being followed.
  mutating func finish() {
    if count > bestCount {
      bestCount = count
      bestPosition = start?.position
    }
    start = nil
    count = 0
  }
}
