/// The words of a text, as far as a change in it should never be cut finer: words, numbers, dates, ids, paths, blanks, signs.
struct TextTokens {
  /// Where each begins; the end of one is the beginning of the next.
  private(set) var starts: [Int] = []
  private(set) var hashes: [UInt64] = []
  let end: Int

  init(_ text: [UInt8], _ range: Range<Int>) {
    end = range.upperBound
    var at = range.lowerBound
    while at < range.upperBound {
      let start = at
      if Self.isBlank(text[at]) {
        while at < range.upperBound, Self.isBlank(text[at]) { at += 1 }
      } else if Self.isIdeograph(text[at]) {
        // Written without blanks: each stands for itself.
        at = min(at + 3, range.upperBound)
      } else if Self.isWord(text[at]) {
        at += 1
        while at < range.upperBound {
          if Self.isIdeograph(text[at]) {
            // 2026年11月30日, 21時48分
            guard JSONNumber.isDigit(text[at - 1]), at + 3 <= range.upperBound,
              Moment.isUnit(text[at..<at + 3])
            else { break }
            at += 3
            if at == range.upperBound || !JSONNumber.isDigit(text[at]) { break }
          } else if Self.isWord(text[at]) {
            at += 1
          } else if Self.isThousands(text, at, range.upperBound) {
            // 187,402
            at += 4
          } else if at + 1 < range.upperBound, Self.isJoint(text[at]), Self.isWord(text[at + 1]) {
            // 2026-11-30T21:48:03.5, db-7.example.internal:8080, /home/a/b
            at += 2
          } else {
            break
          }
        }
      } else {
        at += 1
      }
      starts.append(start)
      hashes.append(ByteHasher.hash(text, start..<at))
    }
  }

  var count: Int { starts.count }

  func range(_ index: Int) -> Range<Int> {
    starts[index]..<(index + 1 < starts.count ? starts[index + 1] : end)
  }

  /// From one token up to another, in bytes.
  func bytes(_ tokens: Range<Int>) -> Range<Int> {
    start(tokens.lowerBound)..<start(tokens.upperBound)
  }

  private func start(_ index: Int) -> Int { index < starts.count ? starts[index] : end }

  static func isBlank(_ byte: UInt8) -> Bool { byte <= 0x20 }

  /// Letters, digits, the underscore, and whatever is beyond ASCII.
  static func isWord(_ byte: UInt8) -> Bool {
    byte &- 0x30 < 10 || (byte | 0x20) &- 0x61 < 26 || byte == UInt8(ascii: "_") || byte >= 0x80
  }

  /// Begins a character of Chinese or Japanese, or of their punctuation.
  static func isIdeograph(_ byte: UInt8) -> Bool { byte >= 0xE3 && byte <= 0xE9 }

  /// A comma between digits, three of them behind it.
  private static func isThousands(_ text: [UInt8], _ at: Int, _ end: Int) -> Bool {
    text[at] == UInt8(ascii: ",") && at + 4 <= end && JSONNumber.isDigit(text[at - 1])
      && text[at + 1..<at + 4].allSatisfy(JSONNumber.isDigit)
      && (at + 4 == end || !JSONNumber.isDigit(text[at + 4]))
  }

  private static func isJoint(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "-"), UInt8(ascii: ":"), UInt8(ascii: "."), UInt8(ascii: "/"),
      UInt8(ascii: "@"), UInt8(ascii: "+"):
      true
    default: false
    }
  }
}

/// How alike two texts are.
enum TextSimilarity {
  /// Bytes of each that are looked at.
  private static let byteCountMax = 16 << 10

  /// 0 for nothing in common, 1 for the same: the share of the longer one's words that the other one has as well.
  static func value(
    _ a: [UInt8],
    _ rangeA: Range<Int>,
    _ b: [UInt8],
    _ rangeB: Range<Int>
  ) -> Double {
    let longer = max(rangeA.count, rangeB.count)
    guard longer > 0 else { return 1 }
    let front = commonPrefix(a, rangeA, b, rangeB)
    let back = commonSuffix(a, rangeA.dropFirst(front), b, rangeB.dropFirst(front))
    if (front + back) * 2 >= longer { return Double(front + back) / Double(longer) }
    var words: [UInt64: Int] = [:]
    let (tokensA, tokensB) = (
      TextTokens(a, rangeA.prefix(byteCountMax)), TextTokens(b, rangeB.prefix(byteCountMax))
    )
    for index in tokensA.hashes.indices where !isBlank(a, tokensA, index) {
      words[word(a, tokensA, index), default: 0] += tokensA.range(index).count
    }
    var common = 0
    for index in tokensB.hashes.indices where !isBlank(b, tokensB, index) {
      let hash = word(b, tokensB, index)
      let count = tokensB.range(index).count
      if let left = words[hash], left >= count {
        words[hash] = left - count
        common += count
      }
    }
    return Double(common) / Double(min(longer, byteCountMax))
  }

  /// The hash of a word; ideographs agree by chance, two side by side do not.
  private static func word(_ text: [UInt8], _ tokens: TextTokens, _ index: Int) -> UInt64 {
    guard index + 1 < tokens.count, TextTokens.isIdeograph(text[tokens.range(index).lowerBound])
    else { return tokens.hashes[index] }
    return ByteHasher.combined(tokens.hashes[index], tokens.hashes[index + 1])
  }

  private static func isBlank(_ text: [UInt8], _ tokens: TextTokens, _ index: Int) -> Bool {
    TextTokens.isBlank(text[tokens.range(index).lowerBound])
  }

  /// Leading bytes that are the same.
  static func commonPrefix(
    _ a: [UInt8],
    _ rangeA: Range<Int>,
    _ b: [UInt8],
    _ rangeB: Range<Int>
  ) -> Int {
    let (spanA, spanB) = (a.span.extracting(rangeA), b.span.extracting(rangeB))
    let count = min(spanA.count, spanB.count)
    var at = 0
    while at < count, spanA[at] == spanB[at] { at += 1 }
    return at
  }

  /// Trailing bytes that are the same.
  static func commonSuffix(
    _ a: [UInt8],
    _ rangeA: Range<Int>,
    _ b: [UInt8],
    _ rangeB: Range<Int>
  ) -> Int {
    let (spanA, spanB) = (a.span.extracting(rangeA), b.span.extracting(rangeB))
    let count = min(spanA.count, spanB.count)
    var at = 0
    while at < count, spanA[spanA.count - 1 - at] == spanB[spanB.count - 1 - at] { at += 1 }
    return at
  }
}
