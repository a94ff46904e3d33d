/// What a replaced stretch of text is.
struct HunkKind {
  var kind: RequestChange.Kind
  var shape: ValueShape?
  /// The stretch, wider where a date goes on unchanged.
  var hunk: TextChanges.Hunk

  static func classify(
    _ hunk: TextChanges.Hunk,
    _ old: [UInt8],
    _ oldRange: Range<Int>,
    _ new: [UInt8],
    _ newRange: Range<Int>
  ) -> HunkKind {
    let (before, now) = (old[hunk.old], new[hunk.new])
    if isSameButForBlanks(before, now) { return HunkKind(kind: .whiteSpace, hunk: hunk) }
    guard !before.isEmpty, !now.isEmpty else { return HunkKind(kind: .edited, hunk: hunk) }
    if isSameText(before, now) { return HunkKind(kind: .unicodeForm, hunk: hunk) }
    if let wider = moment(hunk, old, oldRange, new, newRange) { return wider }
    if let a = JSONNumber.value(ValueShape.trimmed(before)),
      a == JSONNumber.value(ValueShape.trimmed(now))
    {
      return HunkKind(kind: .numberFormat, hunk: hunk)
    }
    if let shape = ValueShape.common(old: before, new: now) {
      return HunkKind(kind: .volatileValue, shape: shape, hunk: hunk)
    }
    if isReordered(before, now) { return HunkKind(kind: .reordered, hunk: hunk) }
    return HunkKind(kind: .edited, hunk: hunk)
  }

  /// Nothing that is seen differs: blanks, line breaks, those of Unicode as well, marks without a width.
  static func isSameButForBlanks(_ a: ArraySlice<UInt8>, _ b: ArraySlice<UInt8>) -> Bool {
    func seen(_ text: ArraySlice<UInt8>) -> [UInt8] {
      guard text.contains(where: { $0 >= 0xC2 }) else {
        return text.filter { !TextTokens.isBlank($0) }
      }
      var result: [UInt8] = []
      for scalar in String(decoding: text, as: UTF8.self).unicodeScalars {
        let isSeen =
          scalar.value > 0x20 && !scalar.properties.isWhitespace
          && !scalar.properties.isDefaultIgnorableCodePoint
        if isSeen { result += Array(String(scalar).utf8) }
      }
      return result
    }
    guard a.count <= 1 << 20, b.count <= 1 << 20 else { return false }
    return seen(a) == seen(b)
  }

  /// The same characters, composed or escaped differently.
  private static func isSameText(_ a: ArraySlice<UInt8>, _ b: ArraySlice<UInt8>) -> Bool {
    guard a.count <= 1 << 20, b.count <= 1 << 20 else { return false }
    func plain(_ text: ArraySlice<UInt8>) -> String {
      guard text.contains(UInt8(ascii: "\\")) else { return String(decoding: text, as: UTF8.self) }
      var target: [UInt8] = []
      let bytes = Array(text)
      JSONEscapes.decode(bytes, 0..<bytes.count, into: &target)
      return String(decoding: target, as: UTF8.self)
    }
    // Swift's strings are equal where they are canonically equivalent.
    return plain(a) == plain(b)
  }

  /// The same words in another order.
  private static func isReordered(_ a: ArraySlice<UInt8>, _ b: ArraySlice<UInt8>) -> Bool {
    func words(_ text: ArraySlice<UInt8>) -> [[UInt8]] {
      text.split { !TextTokens.isWord($0) }.map { Array($0) }
    }
    let (first, second) = (words(a), words(b))
    guard first.count == second.count, first.count >= 2, first.count <= 4_096, first != second
    else { return false }
    return first.sorted { $0.lexicographicallyPrecedes($1) }
      == second.sorted { $0.lexicographicallyPrecedes($1) }
  }

  /// The hunk together with the unchanged rest of the date or time of which it is a part.
  private static func moment(
    _ hunk: TextChanges.Hunk,
    _ old: [UInt8],
    _ oldRange: Range<Int>,
    _ new: [UInt8],
    _ newRange: Range<Int>
  ) -> HunkKind? {
    guard hunk.old.count <= 64, hunk.new.count <= 64 else { return nil }
    var left = 0
    for _ in 0..<8 {
      guard let word = wordBefore(new, newRange.lowerBound..<hunk.new.lowerBound - left),
        isMoment(new[word])
      else { break }
      left = hunk.new.lowerBound - word.lowerBound
    }
    var right = 0
    for _ in 0..<8 {
      guard let word = wordBehind(new, hunk.new.upperBound + right..<newRange.upperBound),
        isMoment(new[word])
      else { break }
      right = word.upperBound - hunk.new.upperBound
    }
    let wider = TextChanges.Hunk(
      old: max(
        oldRange.lowerBound,
        hunk.old.lowerBound - left
      )..<min(
        oldRange.upperBound,
        hunk.old.upperBound + right
      ),
      new: hunk.new.lowerBound - left..<hunk.new.upperBound + right
    )
    func shape(_ text: ArraySlice<UInt8>) -> ValueShape? {
      Moment.shape(text.split(whereSeparator: TextTokens.isBlank))
    }
    guard let before = shape(old[wider.old]), let now = shape(new[wider.new]) else { return nil }
    return HunkKind(
      kind: .volatileValue,
      shape: before == .time || now == .time ? .time : .date,
      hunk: wider
    )
  }

  /// A word that may belong to a date; words that only join are not taken by themselves.
  private static func isMoment(_ word: ArraySlice<UInt8>) -> Bool {
    switch Moment.part(word) {
    case .time, .date, .name, .number: true
    case .filler:
      // "pm", "UTC"; not "the".
      word.allSatisfy { $0 & 0x20 == 0 || !TextTokens.isWord($0) } && word.count >= 2
        || ["am", "pm"].contains(
          String(decoding: ValueShape.trimmed(word), as: UTF8.self).lowercased()
        )
    case .none: false
    }
  }

  private static func wordBefore(_ text: [UInt8], _ range: Range<Int>) -> Range<Int>? {
    var end = range.upperBound
    while end > range.lowerBound, text[end - 1] == 0x20 || text[end - 1] == UInt8(ascii: ",") {
      end -= 1
    }
    guard range.upperBound - end <= 2, end < range.upperBound || end == range.upperBound else {
      return nil
    }
    var start = end
    while start > range.lowerBound, text[start - 1] > 0x20 { start -= 1 }
    return start < end && range.upperBound > end ? start..<end : nil
  }

  private static func wordBehind(_ text: [UInt8], _ range: Range<Int>) -> Range<Int>? {
    var start = range.lowerBound
    while start < range.upperBound, text[start] == 0x20 || text[start] == UInt8(ascii: ",") {
      start += 1
    }
    guard start > range.lowerBound, start - range.lowerBound <= 2 else { return nil }
    var end = start
    while end < range.upperBound, text[end] > 0x20 { end += 1 }
    while end > start, !TextTokens.isWord(text[end - 1]) { end -= 1 }
    return start < end ? start..<end : nil
  }
}
