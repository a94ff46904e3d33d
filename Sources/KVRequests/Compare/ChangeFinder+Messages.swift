extension ChangeFinder {
  /// System prompt and messages: which are the same, which were changed, which came, which left.
  mutating func compareMessages(_ oldRange: Range<Int>, _ newRange: Range<Int>) {
    let oldHashes = oldRange.map { old.parts[$0].hash }
    let newHashes = newRange.map { new.parts[$0].hash }
    // An agent that is told "go on" each time has equal messages at the end: what is new is what comes last.
    let runs = SequenceDiff.runs(oldHashes, newHashes, matchesEnd: false)
    var (strayOld, strayNew) = (oldHashes[...], newHashes[...])
    for run in runs {
      strayHashes.old.formUnion(strayOld[..<run.a])
      strayHashes.new.formUnion(strayNew[..<run.b])
      strayOld = strayOld[(run.a + run.count)...]
      strayNew = strayNew[(run.b + run.count)...]
    }
    strayHashes.old.formUnion(strayOld)
    strayHashes.new.formUnion(strayNew)
    var (fromOld, fromNew) = (oldRange.lowerBound, newRange.lowerBound)
    for run in runs {
      let (toOld, toNew) = (oldRange.lowerBound + run.a, newRange.lowerBound + run.b)
      compareGap(fromOld..<toOld, fromNew..<toNew, isLast: false)
      for index in toNew..<toNew + run.count { kept.append(new.parts[index].range) }
      (fromOld, fromNew) = (toOld + run.count, toNew + run.count)
    }
    compareGap(fromOld..<oldRange.upperBound, fromNew..<newRange.upperBound, isLast: true)
  }

  /// Parts between two that are the same.
  ///
  /// The last gap ends the requests: what is new there was appended.
  private mutating func compareGap(_ oldGap: Range<Int>, _ newGap: Range<Int>, isLast: Bool) {
    if oldGap.isEmpty, newGap.isEmpty { return }
    if !isLast, isOnlyRespaced(oldGap, newGap) { return }
    var pairs = inPlace(pair(oldGap, newGap), oldGap, newGap, isLast: isLast)
    if isLast, let last = pairs.last,
      last.new == newGap.upperBound - 1 || last.old == oldGap.upperBound - 1,
      isOtherQuestion(last)
    {
      pairs.removeLast()
    }
    // Nor is what was answered before it the same answer, where it is hardly alike.
    while isLast, let last = pairs.last, new.parts[last.new].role == .assistant,
      likeness(last.old, last.new) < Self.sameTextLikeness
    {
      pairs.removeLast()
    }
    var (fromOld, fromNew) = (oldGap.lowerBound, newGap.lowerBound)
    for pair in pairs {
      replaced(fromOld..<pair.old, fromNew..<pair.new)
      comparePieces(old.parts[pair.old], new.parts[pair.new])
      (fromOld, fromNew) = (pair.old + 1, pair.new + 1)
    }
    let (restOld, restNew) = (fromOld..<oldGap.upperBound, fromNew..<newGap.upperBound)
    guard isLast else { return replaced(restOld, restNew) }
    appended = restNew
    for index in restOld {
      // The end of the earlier request is gone: a fork, unless it turns up again further on.
      let part = old.parts[index]
      let position =
        restNew.isEmpty ? new.prompt.count : new.parts[restNew.lowerBound].range.lowerBound
      var loose = looseRemoval(part, at: restNew.lowerBound, position: position)
      loose.isSilent = true
      removed.append(loose)
    }
    for index in restNew {
      var loose = looseAddition(new.parts[index])
      loose.isSilent = true
      added.append(loose)
    }
  }

  /// Paragraphs of a prompt that is one text, cut elsewhere since their blanks differ, and alike but for these.
  private mutating func isOnlyRespaced(_ oldGap: Range<Int>, _ newGap: Range<Int>) -> Bool {
    guard !oldGap.isEmpty, !newGap.isEmpty, oldGap.count != newGap.count,
      isText(old, old.parts[oldGap.lowerBound]), isText(new, new.parts[newGap.lowerBound])
    else { return false }
    func bytes(_ request: PromptRequest, _ gap: Range<Int>) -> Range<Int> {
      let (first, last) = (request.parts[gap.lowerBound], request.parts[gap.upperBound - 1])
      return first.range.lowerBound..<last.range.upperBound
    }
    let (before, now) = (bytes(old, oldGap), bytes(new, newGap))
    guard HunkKind.isSameButForBlanks(old.prompt[before], new.prompt[now]),
      let piece = new.pieces[new.parts[newGap.lowerBound].pieces].first,
      let other = old.pieces[old.parts[oldGap.lowerBound].pieces].first
    else { return false }
    let front = TextSimilarity.commonPrefix(old.prompt, before, new.prompt, now)
    let back = min(
      TextSimilarity.commonSuffix(old.prompt, before, new.prompt, now),
      min(before.count, now.count) - front
    )
    kept.append(now)
    found.append(
      change(
        .whiteSpace,
        node: piece.node,
        bytes: piece.textOffset + front..<piece.textOffset + now.count - back,
        previousNode: other.node,
        previousBytes: other.textOffset + front..<other.textOffset + before.count - back,
        position: now.lowerBound + front
      )
    )
    return true
  }

  private static let sameTextLikeness = 0.6

  /// The newest messages of two requests are two questions, unless most of a long text is the same in both.
  private func isOtherQuestion(_ pair: (old: Int, new: Int)) -> Bool {
    guard pair.new == new.parts.count - 1, new.parts[pair.new].role != .system else { return false }
    let part = new.parts[pair.new]
    let likeness = self.likeness(pair.old, pair.new)
    return likeness < Self.sameTextLikeness || Double(part.tokenCount) * likeness < 64
  }

  /// The pairs, and between them those parts that stand in each other's place: as many, of the same speakers, whatever they say now.
  private func inPlace(
    _ pairs: [(old: Int, new: Int)],
    _ oldGap: Range<Int>,
    _ newGap: Range<Int>,
    isLast: Bool
  ) -> [(old: Int, new: Int)] {
    var result: [(old: Int, new: Int)] = []
    var (fromOld, fromNew) = (oldGap.lowerBound, newGap.lowerBound)
    for pair in pairs {
      result += between(fromOld..<pair.old, fromNew..<pair.new) + [pair]
      (fromOld, fromNew) = (pair.old + 1, pair.new + 1)
    }
    guard !isLast else { return result }
    return result + between(fromOld..<oldGap.upperBound, fromNew..<newGap.upperBound)
  }

  private func between(
    _ oldRange: Range<Int>,
    _ newRange: Range<Int>
  ) -> [(old: Int, new: Int)] {
    guard oldRange.count == newRange.count else { return [] }
    let pairs = zip(oldRange, newRange).map { (old: $0, new: $1) }
    for pair in pairs {
      let (before, now) = (old.parts[pair.old], new.parts[pair.new])
      // What came elsewhere, or left there, was moved.
      guard before.role == now.role, !strayHashes.new.contains(before.hash),
        !strayHashes.old.contains(now.hash)
      else { return [] }
    }
    return pairs
  }

  /// Which of a gap's parts are each other, changed.
  private func pair(_ oldGap: Range<Int>, _ newGap: Range<Int>) -> [(old: Int, new: Int)] {
    guard !oldGap.isEmpty, !newGap.isEmpty else { return [] }
    let least = 0.5
    guard oldGap.count * newGap.count <= Self.pairCountMax else {
      return pairInOrder(oldGap, newGap, least)
    }
    // The pairs in order whose likeness adds up to most.
    let width = newGap.count + 1
    var likeness = [Double](repeating: 0, count: (oldGap.count + 1) * width)
    var best = likeness
    for row in stride(from: oldGap.count - 1, through: 0, by: -1) {
      for column in stride(from: newGap.count - 1, through: 0, by: -1) {
        let value = self.likeness(oldGap.lowerBound + row, newGap.lowerBound + column)
        likeness[row * width + column] = value
        var most = max(best[(row + 1) * width + column], best[row * width + column + 1])
        if value >= least { most = max(most, best[(row + 1) * width + column + 1] + value) }
        best[row * width + column] = most
      }
    }
    var pairs: [(Int, Int)] = []
    var (row, column) = (0, 0)
    while row < oldGap.count, column < newGap.count {
      let here = row * width + column
      let value = likeness[here]
      if value >= least, best[here] == best[here + width + 1] + value {
        pairs.append((oldGap.lowerBound + row, newGap.lowerBound + column))
        row += 1
        column += 1
      } else if best[here] == best[here + width] {
        row += 1
      } else {
        column += 1
      }
    }
    return pairs
  }

  private func pairInOrder(
    _ oldGap: Range<Int>,
    _ newGap: Range<Int>,
    _ least: Double
  ) -> [(old: Int, new: Int)] {
    var pairs: [(Int, Int)] = []
    for (oldIndex, newIndex) in zip(oldGap, newGap)
    where likeness(oldIndex, newIndex) >= least { pairs.append((oldIndex, newIndex)) }
    return pairs
  }

  /// How alike two parts are; another role is another part.
  private func likeness(_ oldIndex: Int, _ newIndex: Int) -> Double {
    let (before, now) = (old.parts[oldIndex], new.parts[newIndex])
    guard before.role == now.role else { return 0 }
    let (a, b) = (content(old, before), content(new, now))
    let front = TextSimilarity.commonPrefix(old.prompt, a, new.prompt, b)
    // Something was put behind it, or taken away from there.
    if front == min(a.count, b.count), front >= 4 { return 0.9 }
    let value = TextSimilarity.value(old.prompt, a, new.prompt, b)
    // A tool's result that became a placeholder is known by its call.
    if value < 0.5, sharesCallID(before, now) { return 0.6 }
    return value
  }

  private func sharesCallID(_ before: RequestPart, _ now: RequestPart) -> Bool {
    let ids = Set(old.pieces[before.pieces].filter { $0.kind == .callID }.map(\.hash))
    return new.pieces[now.pieces].contains { $0.kind == .callID && ids.contains($0.hash) }
  }

  /// A part without what a template puts around it.
  func content(_ request: PromptRequest, _ part: RequestPart) -> Range<Int> {
    let pieces = request.pieces[part.pieces]
    guard let first = pieces.first else { return part.range }
    // Of a turn in a prompt that is one text, what lies between its marks.
    if isText(request, part) {
      let said = pieces.first { $0.kind != .field }
      return said?.range ?? part.range
    }
    return first.range.lowerBound..<part.range.upperBound
  }

  // MARK: - Parts that came and left

  private mutating func replaced(_ oldRange: Range<Int>, _ newRange: Range<Int>) {
    if oldRange.isEmpty, newRange.isEmpty { return }
    if oldRange.count >= 2, (1..<oldRange.count).contains(newRange.count),
      tokenCount(new, newRange) < tokenCount(old, oldRange)
    {
      return addPartChange(.compacted, oldRange, newRange)
    }
    for index in oldRange {
      let position =
        newRange.lowerBound < new.parts.count
        ? new.parts[newRange.lowerBound].range.lowerBound : new.prompt.count
      removed.append(looseRemoval(old.parts[index], at: newRange.lowerBound, position: position))
    }
    for index in newRange { added.append(looseAddition(new.parts[index])) }
  }

  private func tokenCount(_ request: PromptRequest, _ range: Range<Int>) -> Int {
    range.reduce(0) { $0 + request.parts[$1].tokenCount }
  }

  private mutating func addPartChange(
    _ kind: RequestChange.Kind,
    _ oldRange: Range<Int>,
    _ newRange: Range<Int>
  ) {
    let (before, now) = (old.parts[oldRange.lowerBound], new.parts[newRange.lowerBound])
    found.append(partChange(kind, old, before, now))
  }

  private func partChange(
    _ kind: RequestChange.Kind,
    _ request: PromptRequest,
    _ before: RequestPart?,
    _ now: RequestPart
  ) -> RequestChange {
    let span = textSpan(new, now)
    guard let span else {
      return change(
        kind,
        node: now.node,
        previousNode: before?.node,
        position: now.range.lowerBound
      )
    }
    return change(
      kind,
      node: now.node,
      bytes: span,
      previousNode: before?.node,
      previousBytes: before.flatMap { textSpan(old, $0) },
      position: now.range.lowerBound
    )
  }

  /// Of a part that is a stretch of a longer text: where it stands there.
  private func textSpan(_ request: PromptRequest, _ part: RequestPart) -> Range<Int>? {
    guard let piece = request.pieces[part.pieces].first, piece.node == part.node,
      request.document.kind(part.node) == .string
    else { return nil }
    return piece.textOffset..<piece.textOffset + part.range.upperBound - piece.range.lowerBound
  }

  /// A stretch of a prompt that is one text.
  private func isText(_ request: PromptRequest, _ part: RequestPart) -> Bool {
    textSpan(request, part) != nil && request.format == .completion
  }

  private func looseAddition(_ part: RequestPart) -> Loose {
    Loose(
      level: .part,
      role: part.role,
      kind: .text,
      range: content(new, part),
      position: part.range.lowerBound,
      change: partChange(.inserted, old, nil, part)
    )
  }

  /// `index` is the part that stands in its place now.
  private func looseRemoval(_ part: RequestPart, at index: Int, position: Int) -> Loose {
    let pieces = old.pieces[part.pieces]
    let isReasoning =
      !pieces.isEmpty && pieces.allSatisfy { $0.kind == .reasoning }
      || Self.isReasoning(old.prompt[content(old, part)])
    let isResult =
      part.role == .toolResult
      || pieces.contains { $0.kind == .result }
        && pieces.allSatisfy { $0.kind == .result || $0.kind == .callID || $0.kind == .callName }
    let kind: RequestChange.Kind =
      isReasoning ? .reasoningDropped : isResult ? .toolResultRemoved : .deleted
    var change: RequestChange
    var position = position
    if index < new.parts.count {
      let now = new.parts[index]
      var start = textSpan(new, now)?.lowerBound ?? 0
      if isText(new, now), position == now.range.lowerBound {
        // Behind the mark that both have in front.
        position = content(new, now).lowerBound
        start += position - now.range.lowerBound
      }
      change = self.change(
        kind,
        node: now.node,
        bytes: start..<start,
        previousNode: part.node,
        previousBytes: textSpan(old, part),
        position: position
      )
    } else {
      change = self.change(
        kind,
        node: new.body,
        bytes: 0..<0,
        previousNode: part.node,
        previousBytes: nil,
        position: position
      )
    }
    change.was = String(decoding: old.prompt[content(old, part)].prefix(256), as: UTF8.self)
    return Loose(
      level: .part,
      role: part.role,
      kind: .text,
      range: content(old, part),
      position: position,
      change: change
    )
  }

  // MARK: - Pieces of a part

  mutating func comparePieces(_ before: RequestPart, _ now: RequestPart) {
    let (a, b) = (Array(old.pieces[before.pieces]), Array(new.pieces[now.pieces]))
    let runs = SequenceDiff.runs(a.map(\.hash), b.map(\.hash))
    var (fromA, fromB) = (0, 0)
    for run in runs + [.init(a: a.count, b: b.count, count: 0)] {
      comparePieceGap(a[fromA..<run.a], b[fromB..<run.b], before, now)
      for index in run.b..<run.b + run.count { kept.append(b[index].range) }
      (fromA, fromB) = (run.a + run.count, run.b + run.count)
    }
  }

  private mutating func comparePieceGap(
    _ before: ArraySlice<RequestPiece>,
    _ now: ArraySlice<RequestPiece>,
    _ oldPart: RequestPart,
    _ newPart: RequestPart
  ) {
    var left = Array(before)
    var come: [RequestPiece] = []
    if isText(old, oldPart), isText(new, newPart) {
      compareMarks(left.filter { $0.kind == .field }, now.filter { $0.kind == .field }, newPart)
      left.removeAll { $0.kind == .field }
    }
    let now = isText(new, newPart) ? now.filter { $0.kind != .field }[...] : now
    let isLarge = before.count * now.count > Self.pairCountMax
    for piece in now {
      let same =
        isLarge
        ? Array(left.indices.lazy.filter { left[$0].kind == piece.kind }.prefix(1))
        : left.indices.filter { left[$0].kind == piece.kind }
      let most = same.max { likeness(left[$0], piece) < likeness(left[$1], piece) }
      let isAlone = same.count == 1 && now.count { $0.kind == piece.kind } == 1
      if let most, isAlone || likeness(left[most], piece) >= 0.5 {
        let partner = left.remove(at: most)
        comparePiece(partner, piece, newPart.role)
      } else {
        come.append(piece)
      }
    }
    for piece in left { addRemovedPiece(piece, oldPart, newPart, now.first) }
    for piece in come {
      var made = change(
        .inserted,
        node: piece.node,
        previousNode: nil,
        position: piece.range.lowerBound
      )
      if textSpan(new, newPart) != nil {
        made.bytes = piece.textOffset..<piece.textOffset + piece.range.count
      }
      added.append(
        Loose(
          level: .piece,
          role: newPart.role,
          kind: piece.kind,
          range: piece.range,
          position: piece.range.lowerBound,
          change: made
        )
      )
    }
  }

  /// Marks of a template around what is said, and the blanks between two paragraphs.
  private mutating func compareMarks(
    _ before: [RequestPiece],
    _ now: [RequestPiece],
    _ part: RequestPart
  ) {
    guard !now.isEmpty || !before.isEmpty else { return }
    func text(_ request: PromptRequest, _ pieces: [RequestPiece]) -> [UInt8] {
      pieces.flatMap { request.prompt[$0.range] }.filter { !TextTokens.isBlank($0) }
    }
    let kind: RequestChange.Kind = text(old, before) == text(new, now) ? .whiteSpace : .edited
    let position = now.first?.range.lowerBound ?? part.range.upperBound
    let start = (textSpan(new, part)?.lowerBound ?? 0) + position - part.range.lowerBound
    marks.append(
      change(
        kind,
        node: part.node,
        bytes: start..<start + (now.first?.range.count ?? 0),
        previousNode: before.first?.node,
        previousBytes: before.first.map { $0.textOffset..<$0.textOffset + $0.range.count },
        position: position
      )
    )
  }

  private func likeness(_ a: RequestPiece, _ b: RequestPiece) -> Double {
    TextSimilarity.value(old.prompt, a.range, new.prompt, b.range)
  }

  private mutating func addRemovedPiece(
    _ piece: RequestPiece,
    _ oldPart: RequestPart,
    _ newPart: RequestPart,
    _ behind: RequestPiece?
  ) {
    let kind: RequestChange.Kind =
      switch piece.kind {
      case .reasoning: .reasoningDropped
      case .result: .toolResultRemoved
      // A text beside the answer that is sent once and not again, under whatever name.
      case .field where newPart.role == .assistant: .reasoningDropped
      default: .deleted
      }
    // What stood behind it in the old part says where it is missing.
    let following = old.pieces[oldPart.pieces].first {
      $0.range.lowerBound > piece.range.lowerBound
    }
    let next =
      following.flatMap { next in new.pieces[newPart.pieces].first { $0.hash == next.hash } }
      ?? behind
    let position = next?.range.lowerBound ?? newPart.range.upperBound
    // In a prompt that is one text the place counts from its beginning.
    let start =
      textSpan(new, newPart).map { $0.lowerBound + position - newPart.range.lowerBound } ?? 0
    var change = self.change(
      kind,
      node: newPart.node,
      bytes: start..<start,
      previousNode: piece.node,
      previousBytes: nil,
      position: position
    )
    change.was = String(decoding: old.prompt[piece.range].prefix(256), as: UTF8.self)
    removed.append(
      Loose(
        level: .piece,
        role: newPart.role,
        kind: piece.kind,
        range: piece.range,
        position: position,
        change: change
      )
    )
  }
}
