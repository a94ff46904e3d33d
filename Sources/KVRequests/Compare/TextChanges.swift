/// What differs between two texts: the stretches that were replaced, in words and not in letters.
struct TextChanges {
  /// Bytes of the old text, and what stands in their place in the new one; either may be empty.
  struct Hunk: Equatable {
    var old: Range<Int>
    var new: Range<Int>
  }

  private(set) var hunks: [Hunk] = []

  /// No word is longer; a blob without blanks is cut somewhere.
  private static let wordByteCountMax = 256

  init(_ old: [UInt8], _ oldRange: Range<Int>, _ new: [UInt8], _ newRange: Range<Int>) {
    var front = TextSimilarity.commonPrefix(old, oldRange, new, newRange)
    var back = TextSimilarity.commonSuffix(
      old,
      oldRange.dropFirst(front),
      new,
      newRange.dropFirst(front)
    )
    if front == oldRange.count, front == newRange.count { return }
    // Back to where a word begins, and on to where one ends: a word counts as a whole.
    func isInner(_ text: [UInt8], _ range: Range<Int>, _ offset: Int) -> Bool {
      range.indices.contains(range.lowerBound + offset)
        && Self.isInner(text, range.lowerBound + offset, range)
    }
    // No character is cut.
    while front > 0, Self.isRest(new, newRange, front) || Self.isRest(old, oldRange, front) {
      front -= 1
    }
    while back > 0, Self.isRest(new, newRange, newRange.count - back) { back -= 1 }
    if isInner(old, oldRange, front) || isInner(new, newRange, front) {
      let limit = max(0, front - Self.wordByteCountMax)
      let atChange = front
      while front > limit, isInner(new, newRange, front - 1) { front -= 1 }
      while front < atChange, !TextTokens.isWord(new[newRange.lowerBound + front]) { front += 1 }
    }
    back = min(back, oldRange.count - front, newRange.count - front)
    if isInner(old, oldRange, oldRange.count - back - 1)
      || isInner(new, newRange, newRange.count - back - 1)
    {
      let limit = max(0, back - Self.wordByteCountMax)
      let atChange = back
      while back > limit, isInner(new, newRange, newRange.count - back) { back -= 1 }
      while back < atChange, !TextTokens.isWord(new[newRange.upperBound - back - 1]) { back += 1 }
    }
    let oldMiddle = oldRange.lowerBound + front..<oldRange.upperBound - back
    let newMiddle = newRange.lowerBound + front..<newRange.upperBound - back
    if oldMiddle.isEmpty || newMiddle.isEmpty {
      hunks = [Hunk(old: oldMiddle, new: newMiddle)]
      return
    }
    hunks = Self.wordwise(old, oldMiddle, new, newMiddle)
  }

  private static func wordwise(
    _ old: [UInt8],
    _ oldRange: Range<Int>,
    _ new: [UInt8],
    _ newRange: Range<Int>
  ) -> [Hunk] {
    let (a, b) = (TextTokens(old, oldRange), TextTokens(new, newRange))
    var hunks: [Hunk] = []
    var (fromA, fromB) = (0, 0)
    for run in SequenceDiff.runs(a.hashes, b.hashes) + [.init(a: a.count, b: b.count, count: 0)] {
      if run.a > fromA || run.b > fromB {
        let hunk = Hunk(old: a.bytes(fromA..<run.a), new: b.bytes(fromB..<run.b))
        if let last = hunks.last, isThin(new, last.new.upperBound..<hunk.new.lowerBound) {
          hunks[hunks.count - 1] = Hunk(
            old: last.old.lowerBound..<hunk.old.upperBound,
            new: last.new.lowerBound..<hunk.new.upperBound
          )
        } else {
          hunks.append(hunk)
        }
      }
      (fromA, fromB) = (run.a + run.count, run.b + run.count)
    }
    return hunks
  }

  /// Between two changes there is nothing that stayed: blanks and a sign, which agree by chance.
  private static func isThin(_ text: [UInt8], _ range: Range<Int>) -> Bool {
    guard range.count <= 24 else { return false }
    return text[range].allSatisfy { !TextTokens.isWord($0) } && range.count <= 3
      || text[range].allSatisfy(TextTokens.isBlank)
  }

  /// Behind the first byte of a character.
  private static func isRest(_ text: [UInt8], _ range: Range<Int>, _ offset: Int) -> Bool {
    offset < range.count && text[range.lowerBound + offset] & 0xC0 == 0x80
  }

  /// Inside words, and what joins them.
  private static func isInner(_ text: [UInt8], _ at: Int, _ range: Range<Int>) -> Bool {
    let byte = text[at]
    if byte >= 0x80 {
      var lead = at
      while lead > range.lowerBound, at - lead < 3, text[lead] & 0xC0 == 0x80 { lead -= 1 }
      // An ideograph is a word of its own, unless it belongs to a date.
      if TextTokens.isIdeograph(text[lead]) {
        return lead + 3 <= range.upperBound && Moment.isUnit(text[lead..<lead + 3])
          && lead > range.lowerBound && JSONNumber.isDigit(text[lead - 1])
      }
    }
    return TextTokens.isWord(byte) || byte == UInt8(ascii: "-") || byte == UInt8(ascii: ":")
      || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "/") || byte == UInt8(ascii: "@")
      || byte == UInt8(ascii: "+")
  }
}
