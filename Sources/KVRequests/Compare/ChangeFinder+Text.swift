extension ChangeFinder {
  /// Two pieces that stand for each other.
  mutating func comparePiece(_ before: RequestPiece, _ now: RequestPiece, _ role: RequestPart.Role)
  {
    switch now.kind {
    case .media:
      found.append(
        change(.edited, node: now.node, previousNode: before.node, position: now.range.lowerBound)
      )
    case .callID, .callName:
      let isID = now.kind == .callID
      found.append(
        change(
          isID ? .volatileValue : .edited,
          shape: isID ? .id : nil,
          node: now.node,
          bytes: 0..<now.range.count,
          previousNode: before.node,
          previousBytes: 0..<before.range.count,
          position: now.range.lowerBound
        )
      )
    default:
      let isText =
        new.document.kind(now.node) == .string && old.document.kind(before.node) == .string
      guard isText else {
        let start = TextSimilarity.commonPrefix(old.prompt, before.range, new.prompt, now.range)
        keepText(before.range, now.range)
        return compareTrees(before.node, now.node, now.range.lowerBound + start, .edited)
      }
      if wasCut(before, now, role) { return }
      compareText(before, before.range, now, now.range, role)
    }
  }

  /// A result that became a placeholder, or a text whose end was cut off.
  private mutating func wasCut(
    _ before: RequestPiece,
    _ now: RequestPiece,
    _ role: RequestPart.Role
  ) -> Bool {
    let front = TextSimilarity.commonPrefix(old.prompt, before.range, new.prompt, now.range)
    let rest = now.range.count - front
    let lost = before.range.count - front
    let isResult = now.kind == .result || role == .toolResult
    if front >= 8, lost > 0, rest <= 48, isElided(now.range.dropFirst(front)) {
      let cut = before.range.lowerBound + front..<before.range.upperBound
      let mark = now.range.lowerBound + front..<now.range.upperBound
      kept.append(now.range.lowerBound..<now.range.lowerBound + front)
      found.append(textChange(.truncated, TextChanges.Hunk(old: cut, new: mark), before, now))
      return true
    }
    let back = TextSimilarity.commonSuffix(
      old.prompt,
      before.range.dropFirst(front),
      new.prompt,
      now.range.dropFirst(front)
    )
    let isHeadCut =
      front < 8 && back >= 16 && back * 3 >= now.range.count && lost - back >= 64
      && rest - back <= 64 && (rest > back || isResult)
    if isHeadCut {
      // The end stays, and a short mark at most stands for what was before it.
      let hunk = TextChanges.Hunk(
        old: before.range.lowerBound..<before.range.upperBound - back,
        new: now.range.lowerBound..<now.range.upperBound - back
      )
      kept.append(hunk.new.upperBound..<now.range.upperBound)
      found.append(textChange(.truncated, hunk, before, now))
      return true
    }
    // At most a mark such as "… [truncated]" is new.
    let isShort = rest == 0 ? lost >= 8 && front >= 8 : lost >= 24 || lost >= 12 && rest <= 16
    if rest <= 48, isShort, lost > 2 * rest, front >= 16 || !isResult, front * 5 >= now.range.count
    {
      let cut = before.range.lowerBound + front
      let tail = cut..<before.range.upperBound
      let made = textChange(
        Self.isReasoning(old.prompt[tail]) ? .reasoningDropped : .truncated,
        TextChanges.Hunk(old: tail, new: now.range.lowerBound + front..<now.range.upperBound),
        before,
        now
      )
      kept.append(now.range.lowerBound..<now.range.lowerBound + front)
      // In the middle of a word, or with a mark, it was cut, whatever else says the same further on.
      let isInWord =
        TextTokens.isWord(old.prompt[cut - 1]) && TextTokens.isWord(old.prompt[cut])
        && !TextTokens.isIdeograph(old.prompt[cut])
      if isInWord && rest == 0 || hasMark(now.range.dropFirst(front)) {
        found.append(made)
        return true
      }
      removed.append(
        Loose(
          level: .text,
          role: role,
          kind: now.kind,
          range: tail,
          position: now.range.lowerBound + front,
          change: made
        )
      )
      return true
    }
    guard isResult, now.range.count * 2 <= before.range.count,
      likenessOfPieces(before, now) < 0.5
    else { return false }
    found.append(
      change(
        .toolResultRemoved,
        node: now.node,
        bytes: now.textOffset..<now.textOffset + now.range.count,
        previousNode: before.node,
        previousBytes: before.textOffset..<before.textOffset + before.range.count,
        position: now.range.lowerBound
      )
    )
    return true
  }

  /// `…`, `... [truncated]`, `(cut)`: what is put where something was cut off.
  private func hasMark(_ range: Range<Int>) -> Bool {
    let mark = new.prompt[LineChanges.trimmed(new.prompt, range)]
    return ["…", "...", "[", "(", "（"].contains { mark.starts(with: Array($0.utf8)) }
  }

  /// Begins with an ellipsis that the text before does not have: whatever the length, it was cut there.
  private func isElided(_ range: Range<Int>) -> Bool {
    let mark = new.prompt[range].drop(while: TextTokens.isBlank)
    return mark.starts(with: Array("…".utf8)) || mark.starts(with: Array("...".utf8))
  }

  private func likenessOfPieces(_ a: RequestPiece, _ b: RequestPiece) -> Double {
    TextSimilarity.value(old.prompt, a.range, new.prompt, b.range)
  }

  /// `<think>…` and its like.
  static func isReasoning(_ text: ArraySlice<UInt8>) -> Bool {
    let head = String(decoding: text.drop(while: TextTokens.isBlank).prefix(24), as: UTF8.self)
      .lowercased()
    return ["<think", "<reason", "<reflect", "<analysis", "<scratchpad", "<|channel|>analysis"]
      .contains { head.hasPrefix($0) }
  }

  /// Two texts, line by line, then word by word.
  mutating func compareText(
    _ before: RequestPiece,
    _ oldRange: Range<Int>,
    _ now: RequestPiece,
    _ newRange: Range<Int>,
    _ role: RequestPart.Role
  ) {
    var (oldRange, newRange) = (oldRange, newRange)
    var formCount = 0
    while formCount < 256, let form = JSONForm(old.prompt, oldRange, new.prompt, newRange) {
      formCount += 1
      kept.append(newRange.lowerBound..<form.new.lowerBound)
      kept.append(form.new)
      found.append(
        textChange(form.kind, TextChanges.Hunk(old: form.old, new: form.new), before, now)
      )
      oldRange = form.old.upperBound..<oldRange.upperBound
      newRange = form.new.upperBound..<newRange.upperBound
    }
    let lines = LineChanges(old.prompt, oldRange, new.prompt, newRange)
    for range in lines.kept { kept.append(range) }
    if let moved = lines.moved {
      found.append(textChange(.reordered, moved, before, now))
    }
    for gap in lines.gaps { compareWords(gap, before, now, role) }
  }

  private mutating func compareWords(
    _ gap: TextChanges.Hunk,
    _ before: RequestPiece,
    _ now: RequestPiece,
    _ role: RequestPart.Role
  ) {
    var from = gap.new.lowerBound
    for hunk in TextChanges(old.prompt, gap.old, new.prompt, gap.new).hunks {
      if hunk.new.lowerBound > from { kept.append(from..<hunk.new.lowerBound) }
      from = max(from, hunk.new.upperBound)
      if hunk.new.isEmpty || hunk.old.isEmpty,
        !HunkKind.isSameButForBlanks(old.prompt[hunk.old], new.prompt[hunk.new])
      {
        addLooseText(hunk, before, now, role)
        continue
      }
      let made = HunkKind.classify(hunk, old.prompt, before.range, new.prompt, now.range)
      if [.whiteSpace, .unicodeForm, .numberFormat, .reordered].contains(made.kind) {
        // The text is there again.
        kept.append(made.hunk.new)
      }
      var change = textChange(made.kind, made.hunk, before, now)
      change.shape = made.shape
      found.append(change)
    }
    if from < gap.new.upperBound { kept.append(from..<gap.new.upperBound) }
  }

  /// Text that only one of the two has.
  private mutating func addLooseText(
    _ hunk: TextChanges.Hunk,
    _ before: RequestPiece,
    _ now: RequestPiece,
    _ role: RequestPart.Role
  ) {
    let isRemoval = hunk.new.isEmpty
    let kind: RequestChange.Kind =
      isRemoval && Self.isReasoning(old.prompt[hunk.old]) ? .reasoningDropped : .edited
    let loose = Loose(
      level: .text,
      role: role,
      kind: now.kind,
      range: isRemoval ? hunk.old : hunk.new,
      position: hunk.new.lowerBound,
      change: textChange(kind, hunk, before, now)
    )
    if isRemoval { removed.append(loose) } else { added.append(loose) }
  }

  /// A change in a text; the hunk counts bytes of the prompts.
  private func textChange(
    _ kind: RequestChange.Kind,
    _ hunk: TextChanges.Hunk,
    _ before: RequestPiece,
    _ now: RequestPiece
  ) -> RequestChange {
    func moved(_ range: Range<Int>, _ piece: RequestPiece) -> Range<Int> {
      let shift = piece.textOffset - piece.range.lowerBound
      return range.lowerBound + shift..<range.upperBound + shift
    }
    return change(
      kind,
      node: now.node,
      bytes: moved(hunk.new, now),
      previousNode: before.node,
      previousBytes: moved(hunk.old, before),
      position: hunk.new.lowerBound
    )
  }
}

/// Lines that stayed, moved, came and left.
struct LineChanges {
  private(set) var kept: [Range<Int>] = []
  /// From the first to the last line that stands elsewhere.
  private(set) var moved: TextChanges.Hunk?
  /// What is left to be compared by words.
  private(set) var gaps: [TextChanges.Hunk] = []

  init(_ old: [UInt8], _ oldRange: Range<Int>, _ new: [UInt8], _ newRange: Range<Int>) {
    let (a, b) = (Self.lines(old, oldRange), Self.lines(new, newRange))
    guard a.count > 1, b.count > 1 else {
      gaps = [TextChanges.Hunk(old: oldRange, new: newRange)]
      return
    }
    let hashesA = a.map { ByteHasher.hash(old, $0) }
    let hashesB = b.map { ByteHasher.hash(new, $0) }
    let runs = SequenceDiff.runs(hashesA, hashesB)
    // Lines that have no partner in order, and one out of order.
    var isUsedA = [Bool](repeating: false, count: a.count)
    var isUsedB = [Bool](repeating: false, count: b.count)
    for run in runs {
      for offset in 0..<run.count {
        isUsedA[run.a + offset] = true
        isUsedB[run.b + offset] = true
        kept.append(b[run.b + offset])
      }
    }
    // Lines in their place with other blanks around them, or with another number in front.
    let (sameA, sameB) = Self.respaced(old, a, new, b, runs)
    var places: [UInt64: [Int]] = [:]
    for index in a.indices where !isUsedA[index] && !sameA.contains(index) {
      let text = Self.body(old, a[index])
      if text.count >= 4 { places[ByteHasher.hash(old, text), default: []].append(index) }
    }
    var movedA = isUsedA.map { _ in false }
    var movedB = isUsedB.map { _ in false }
    var isAnyMoved = false
    for index in b.indices where !isUsedB[index] && !sameB.contains(index) {
      let text = Self.body(new, b[index])
      guard text.count >= 4, let place = places[ByteHasher.hash(new, text)]?.popLast() else {
        continue
      }
      movedA[place] = true
      movedB[index] = true
      isAnyMoved = true
      kept.append(b[index])
    }
    var (fromA, fromB) = (0, 0)
    var movedOld = TextChanges.Hunk?.none
    for run in runs + [.init(a: a.count, b: b.count, count: 0)] {
      let (gapA, gapB) = (fromA..<run.a, fromB..<run.b)
      let isMoved = gapA.contains { movedA[$0] } || gapB.contains { movedB[$0] }
      // Where lines moved, came or left, the numbers of the others follow.
      let isMore = gapA.contains { !sameA.contains($0) } || gapB.contains { !sameB.contains($0) }
      let isRenumbered = isMore && Self.onlyNumbersDiffer(old, a, gapA, sameA, new, b, gapB, sameB)
      if isMoved {
        let hunk = TextChanges.Hunk(
          old: Self.bytes(a, gapA, oldRange),
          new: Self.bytes(b, gapB, newRange)
        )
        movedOld = TextChanges.Hunk(
          old: (movedOld?.old.lowerBound ?? hunk.old.lowerBound)..<hunk.old.upperBound,
          new: (movedOld?.new.lowerBound ?? hunk.new.lowerBound)..<hunk.new.upperBound
        )
      }
      let restA = gapA.filter {
        !movedA[$0] && !(isMoved && Self.trimmed(old, a[$0]).isEmpty)
          && !(isRenumbered && sameA.contains($0))
      }
      let restB = gapB.filter {
        !movedB[$0] && !(isMoved && Self.trimmed(new, b[$0]).isEmpty)
          && !(isRenumbered && sameB.contains($0))
      }
      if isRenumbered { for index in gapB where sameB.contains(index) { kept.append(b[index]) } }
      if !restA.isEmpty || !restB.isEmpty {
        gaps.append(
          TextChanges.Hunk(
            old: Self.hull(a, restA, Self.bytes(a, gapA, oldRange).lowerBound),
            new: Self.hull(b, restB, Self.bytes(b, gapB, newRange).lowerBound)
          )
        )
      }
      (fromA, fromB) = (run.a + run.count, run.b + run.count)
    }
    if isAnyMoved { moved = movedOld }
  }

  /// Lines of a gap between two runs that both texts have in order, but for blanks and numbers in front.
  private static func respaced(
    _ old: [UInt8],
    _ a: [Range<Int>],
    _ new: [UInt8],
    _ b: [Range<Int>],
    _ runs: [SequenceDiff.Run]
  ) -> (old: Set<Int>, new: Set<Int>) {
    var (sameA, sameB) = (Set<Int>(), Set<Int>())
    var (fromA, fromB) = (0, 0)
    for run in runs + [.init(a: a.count, b: b.count, count: 0)] {
      if run.a > fromA, run.b > fromB {
        // Lines with nothing in them agree with none.
        func hashes(_ text: [UInt8], _ lines: ArraySlice<Range<Int>>, _ side: UInt64) -> [UInt64] {
          lines.enumerated().map { offset, line in
            let body = body(text, line)
            return body.count < 4
              ? ByteHasher.combined(side, UInt64(offset)) : ByteHasher.hash(text, body)
          }
        }
        for same in SequenceDiff.runs(
          hashes(old, a[fromA..<run.a], 1),
          hashes(new, b[fromB..<run.b], 2)
        ) {
          for offset in 0..<same.count {
            sameA.insert(fromA + same.a + offset)
            sameB.insert(fromB + same.b + offset)
          }
        }
      }
      (fromA, fromB) = (run.a + run.count, run.b + run.count)
    }
    return (sameA, sameB)
  }

  /// The lines that both have in their place differ in the numbers in front of them and in nothing else.
  private static func onlyNumbersDiffer(
    _ old: [UInt8],
    _ a: [Range<Int>],
    _ gapA: Range<Int>,
    _ sameA: Set<Int>,
    _ new: [UInt8],
    _ b: [Range<Int>],
    _ gapB: Range<Int>,
    _ sameB: Set<Int>
  ) -> Bool {
    let pairs = zip(gapA.filter(sameA.contains), gapB.filter(sameB.contains))
    return pairs.allSatisfy { one, other in
      let (before, now) = (trimmed(old, a[one]), trimmed(new, b[other]))
      return body(old, a[one]).count < before.count || body(new, b[other]).count < now.count
    }
  }

  /// A line without the blanks around it, and without the mark or number of a list in front.
  private static func body(_ text: [UInt8], _ range: Range<Int>) -> Range<Int> {
    let line = trimmed(text, range)
    var at = line.lowerBound
    while at < line.upperBound, at - line.lowerBound < 5, JSONNumber.isDigit(text[at]) { at += 1 }
    let hasNumber = at > line.lowerBound
    guard at + 1 < line.upperBound, text[at + 1] == 0x20 else { return line }
    let mark = text[at]
    let isMark =
      hasNumber
      ? [UInt8(ascii: "."), UInt8(ascii: ")"), UInt8(ascii: ":")].contains(mark)
      : [UInt8(ascii: "-"), UInt8(ascii: "*"), UInt8(ascii: "+")].contains(mark)
    return isMark ? at + 2..<line.upperBound : line
  }

  /// Lines, each with its line break.
  static func lines(_ text: [UInt8], _ range: Range<Int>) -> [Range<Int>] {
    var result: [Range<Int>] = []
    var start = range.lowerBound
    for at in range where text[at] == 0x0A {
      result.append(start..<at + 1)
      start = at + 1
    }
    if start < range.upperBound { result.append(start..<range.upperBound) }
    return result
  }

  private static func bytes(
    _ lines: [Range<Int>],
    _ indices: Range<Int>,
    _ all: Range<Int>
  ) -> Range<Int> {
    let start =
      indices.lowerBound < lines.count ? lines[indices.lowerBound].lowerBound : all.upperBound
    return indices.isEmpty ? start..<start : start..<lines[indices.upperBound - 1].upperBound
  }

  private static func hull(_ lines: [Range<Int>], _ indices: [Int], _ place: Int) -> Range<Int> {
    guard let first = indices.first, let last = indices.last else { return place..<place }
    return lines[first].lowerBound..<lines[last].upperBound
  }

  /// A line without the blanks around it.
  static func trimmed(_ text: [UInt8], _ range: Range<Int>) -> Range<Int> {
    var (low, high) = (range.lowerBound, range.upperBound)
    while low < high, TextTokens.isBlank(text[low]) { low += 1 }
    while high > low, TextTokens.isBlank(text[high - 1]) { high -= 1 }
    return low..<high
  }
}

/// JSON inside a text that says the same in another form.
struct JSONForm {
  let kind: RequestChange.Kind
  let old: Range<Int>
  let new: Range<Int>

  private static let bracketCountMax = 12
  private static let searchByteCountMax = 64 << 10

  /// Looks at the values around the first difference, the innermost first.
  init?(_ old: [UInt8], _ oldRange: Range<Int>, _ new: [UInt8], _ newRange: Range<Int>) {
    let front = TextSimilarity.commonPrefix(old, oldRange, new, newRange)
    guard front < oldRange.count, front < newRange.count else { return nil }
    var depth = 0
    var tried = 0
    var at = newRange.lowerBound + front
    let lowest = max(newRange.lowerBound, at - Self.searchByteCountMax)
    while at >= lowest, tried < Self.bracketCountMax {
      defer { at -= 1 }
      switch new[at] {
      case UInt8(ascii: "}"), UInt8(ascii: "]"):
        if at < newRange.lowerBound + front { depth += 1 }
      case UInt8(ascii: "{"), UInt8(ascii: "["):
        if depth > 0 {
          depth -= 1
          continue
        }
        tried += 1
        let oldStart = oldRange.lowerBound + at - newRange.lowerBound
        guard oldStart < oldRange.upperBound, old[oldStart] == new[at],
          let oldEnd = Self.end(old, oldStart..<oldRange.upperBound),
          let newEnd = Self.end(new, at..<newRange.upperBound),
          let kind = Self.kind(Array(old[oldStart..<oldEnd]), Array(new[at..<newEnd]))
        else { continue }
        self.kind = kind
        self.old = oldStart..<oldEnd
        self.new = at..<newEnd
        return
      default: break
      }
    }
    return nil
  }

  /// How two texts differ that are the same value; nil when they are not.
  private static func kind(_ old: [UInt8], _ new: [UInt8]) -> RequestChange.Kind? {
    guard let a = try? JSONDocument(old), let b = try? JSONDocument(new), old != new else {
      return nil
    }
    let difference = b.difference(b.root, from: a, a.root)
    guard difference.isOnlyForm else { return nil }
    if !difference.keyOrders.isEmpty { return .keyOrder }
    if !difference.numbers.isEmpty { return .numberFormat }
    let isBlank: (UInt8) -> Bool = TextTokens.isBlank
    if old.filter({ !isBlank($0) }) == new.filter({ !isBlank($0) }) { return .whiteSpace }
    return a.nodes.contains { $0.kind == .number } && !sameNumbers(a, b)
      ? .numberFormat : .unicodeForm
  }

  private static func sameNumbers(_ a: JSONDocument, _ b: JSONDocument) -> Bool {
    func numbers(_ document: JSONDocument) -> [[UInt8]] {
      document.nodes.indices.filter { document.kind($0) == .number }
        .map { Array(document.rawBytes($0)) }
    }
    return numbers(a) == numbers(b)
  }

  /// Where the value that begins with a bracket ends.
  private static func end(_ text: [UInt8], _ range: Range<Int>) -> Int? {
    var depth = 0
    var isInString = false
    var at = range.lowerBound
    while at < range.upperBound {
      let byte = text[at]
      if isInString {
        if byte == UInt8(ascii: "\\") {
          at += 1
        } else if byte == UInt8(ascii: "\"") {
          isInString = false
        }
      } else {
        switch byte {
        case UInt8(ascii: "\""): isInString = true
        case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
        case UInt8(ascii: "}"), UInt8(ascii: "]"):
          depth -= 1
          if depth == 0 { return at + 1 }
        default: break
        }
      }
      at += 1
    }
    return nil
  }
}
