extension ChangeFinder {
  /// Shorter stretches turn up twice by chance.
  private static let movedByteCountMin = 12
  /// A text of this many tokens, sent again, is an attachment.
  private static let attachedTokenCountMin = 64

  /// What left one place and came to another was moved; what is left over left, or came.
  mutating func resolveMoves() {
    joinParagraphs()
    var places: [UInt64: [Int]] = [:]
    for (index, loose) in added.enumerated() {
      places[trimmedHash(new, loose.range), default: []].append(index)
    }
    var isTaken = [Bool](repeating: false, count: added.count)
    var moved: [(removed: Int, added: Int)] = []
    for (index, loose) in removed.enumerated() {
      let range = LineChanges.trimmed(old.prompt, loose.range)
      guard range.count >= Self.movedByteCountMin,
        let place = places[ByteHasher.hash(old.prompt, range)]?.first(where: { !isTaken[$0] })
      else { continue }
      isTaken[place] = true
      moved.append((index, place))
    }
    let movedRemovals = Set(moved.map(\.removed))
    for (from, to) in moved { addMove(removed[from], added[to]) }
    for (index, loose) in removed.enumerated() where !movedRemovals.contains(index) {
      resolveRemoval(loose)
    }
    for (index, loose) in added.enumerated() where !isTaken[index] && !loose.isSilent {
      found.append(loose.change)
    }
  }

  /// Paragraphs of one turn of a prompt that is one text, side by side, that stand so in what was appended: they moved as one.
  private mutating func joinParagraphs() {
    guard old.format == .completion, new.format == .completion, removed.count > 1 else { return }
    var result: [Loose] = []
    var index = 0
    while index < removed.count {
      var end = index + 1
      while end < removed.count, removed[end].level == .part,
        removed[index].level == .part, !isMarked(old, removed[end].range),
        isBehind(removed[end - 1].range, removed[end].range)
      {
        end += 1
      }
      var loose = removed[index]
      loose.range = loose.range.lowerBound..<removed[end - 1].range.upperBound
      if end > index + 1, placeInAppended(LineChanges.trimmed(old.prompt, loose.range)) != nil {
        loose.level = .text
        loose.isSilent = removed[index..<end].allSatisfy(\.isSilent)
        result.append(loose)
      } else {
        result += removed[index..<end]
      }
      index = end
    }
    removed = result
  }

  /// Nothing but blanks stands between two stretches of the old prompt.
  private func isBehind(_ first: Range<Int>, _ second: Range<Int>) -> Bool {
    first.upperBound <= second.lowerBound
      && old.prompt[first.upperBound..<second.lowerBound].allSatisfy(TextTokens.isBlank)
  }

  private mutating func addMove(_ from: Loose, _ to: Loose) {
    kept.append(to.range)
    movedTo.append(to.position)
    // Where the requests first part: at the place it left, or the one it came to.
    var change = from.position <= to.position ? from.change : to.change
    change.kind = moveKind(from, to)
    found.append(change)
  }

  private func moveKind(_ from: Loose, _ to: Loose) -> RequestChange.Kind {
    let tokenCount = TokenEstimate.count(old.prompt, from.range)
    if from.kind == .media { return .attachedAgain }
    // A prompt that is one text has all in one field: there the turn says whether it is one place.
    let isOneText = old.format == .completion && new.format == .completion
    if from.level != .piece, from.level == to.level, isOneText {
      if turn(old, from.range) == turn(new, to.range) { return .reordered }
      if !isMarked(old, from.range) || to.isSilent {
        return isAttachment(from, from.range) ? .attachedAgain : .reminderMoved
      }
    } else if from.level == .text, to.level == .text, from.change.node == to.change.node {
      return .reordered
    }
    if isTagged(old, from.range) {
      return isAttachment(from, from.range) ? .attachedAgain : .reminderMoved
    }
    if from.level == .part {
      if from.role == .system { return .reminderMoved }
      // Taken back, and sent again with what was appended.
      if to.isSilent {
        return tokenCount >= 2 * Self.attachedTokenCountMin ? .attachedAgain : .reminderMoved
      }
      return .reordered
    }
    return isAttachment(from, from.range) ? .attachedAgain : .reminderMoved
  }

  /// In which turn of a prompt that is one text a place is, from 0 on.
  private func turn(_ request: PromptRequest, _ range: Range<Int>) -> Int {
    let before = request.parts.prefix { $0.range.lowerBound <= range.lowerBound }
    return before.count { part in
      let first = request.pieces[part.pieces].first
      return first?.kind == .field && first?.range.lowerBound == part.range.lowerBound
    }
  }

  /// A mark stands before it: it is what a turn begins with.
  private func isMarked(_ request: PromptRequest, _ range: Range<Int>) -> Bool {
    let part = request.parts.last { $0.range.lowerBound <= range.lowerBound }
    return part.map { $0.range.lowerBound < range.lowerBound } ?? false
  }

  /// A file, an image, or another long text; a note says its tag, unless the tag says the file.
  private func isAttachment(_ loose: Loose, _ range: Range<Int>) -> Bool {
    if loose.kind == .media { return true }
    let tokenCount = TokenEstimate.count(old.prompt, range)
    if isTagged(old, range) {
      return tokenCount >= Self.attachedTokenCountMin && isFileTag(old, range)
    }
    return tokenCount >= (isFenced(range) ? 1 : 2) * Self.attachedTokenCountMin
  }

  /// Code between fences.
  private func isFenced(_ range: Range<Int>) -> Bool {
    let text = old.prompt[LineChanges.trimmed(old.prompt, range)]
    let fence = text.prefix { $0 == UInt8(ascii: "`") || $0 == UInt8(ascii: "~") }
    return fence.count >= 3 && text.count > 2 * fence.count && text.suffix(fence.count) == fence
  }

  /// `<document path="…">`: a tag that says which one, or one of these names.
  private func isFileTag(_ request: PromptRequest, _ range: Range<Int>) -> Bool {
    let range = LineChanges.trimmed(request.prompt, range)
    let tag = request.prompt[range].dropFirst().prefix(256).prefix { $0 != UInt8(ascii: ">") }
    let name = String(decoding: tag.prefix { $0 > 0x20 }, as: UTF8.self).lowercased()
    let isNamed = ["file", "document", "doc", "attachment", "source", "page"].contains {
      name.contains($0)
    }
    return isNamed || tag.contains(UInt8(ascii: "="))
  }

  /// `<system-reminder>…</system-reminder>`, whatever the tag.
  private func isTagged(_ request: PromptRequest, _ range: Range<Int>) -> Bool {
    let range = LineChanges.trimmed(request.prompt, range)
    guard range.count >= 7, request.prompt[range.lowerBound] == UInt8(ascii: "<"),
      request.prompt[range.upperBound - 1] == UInt8(ascii: ">")
    else { return false }
    let name = request.prompt[range].dropFirst().prefix { $0 != UInt8(ascii: ">") && $0 > 0x20 }
    let close = Array("</".utf8) + name + [UInt8(ascii: ">")]
    return !name.isEmpty && range.count > close.count
      && request.prompt[range].suffix(close.count).elementsEqual(close)
  }

  /// Text that is gone from its place: it may stand inside of something that was appended.
  private mutating func resolveRemoval(_ loose: Loose) {
    let range = LineChanges.trimmed(old.prompt, loose.range)
    let isAppended = loose.level != .part && range.count >= 2 * Self.movedByteCountMin
    if isAppended, let place = placeInAppended(range) {
      kept.append(place)
      movedTo.append(place.lowerBound)
      var change = loose.change
      change.kind = isAttachment(loose, range) ? .attachedAgain : .reminderMoved
      return found.append(change)
    }
    guard !loose.isSilent else { return }
    var change = loose.change
    // A note that is taken back where a later message brings the next one.
    if loose.level != .part, loose.kind != .result, isTagged(old, range),
      change.kind != .reasoningDropped
    {
      change.kind = .reminderMoved
    }
    found.append(change)
  }

  /// Where a text stands in the parts that were appended.
  private func placeInAppended(_ range: Range<Int>) -> Range<Int>? {
    guard let first = appended.first, let last = appended.last else { return nil }
    let window = new.parts[first].range.lowerBound..<new.parts[last].range.upperBound
    return find(old.prompt[range], window)
  }

  /// The first place of a text, in as many steps as there are bytes (Knuth, Morris and Pratt).
  private func find(_ text: ArraySlice<UInt8>, _ window: Range<Int>) -> Range<Int>? {
    let pattern = Array(text)
    guard !pattern.isEmpty, pattern.count <= window.count else { return nil }
    var borders = [0]
    borders.reserveCapacity(pattern.count)
    var length = 0
    for index in pattern.indices.dropFirst() {
      while length > 0, pattern[index] != pattern[length] { length = borders[length - 1] }
      if pattern[index] == pattern[length] { length += 1 }
      borders.append(length)
    }
    length = 0
    let span = new.prompt.span
    for at in window {
      while length > 0, span[at] != pattern[length] { length = borders[length - 1] }
      if span[at] == pattern[length] { length += 1 }
      if length == pattern.count { return at + 1 - length..<at + 1 }
    }
    return nil
  }

  private func trimmedHash(_ request: PromptRequest, _ range: Range<Int>) -> UInt64 {
    ByteHasher.hash(request.prompt, LineChanges.trimmed(request.prompt, range))
  }

  // MARK: - Sent once more

  /// Long texts in what was appended from a part on that stand further in front already.
  static func attachedAgain(_ request: PromptRequest, from index: Int) -> [RequestChange] {
    var finder = ChangeFinder(old: request, new: request)
    finder.appended = index..<request.parts.count
    finder.findAttachedAgain()
    return finder.changes(from: 0)
  }

  /// A long text in a user's new message that stands further in front already.
  mutating func findAttachedAgain() {
    var lines: Set<UInt64>?
    var media: Set<UInt64>?
    for index in appended where new.parts[index].role == .user {
      for piece in said(index) {
        switch piece.kind {
        case .media:
          if media == nil { media = earlierMedia(index) }
          if media?.contains(piece.hash) == true { addAttached(piece, piece.range) }
        case .text where piece.range.count >= 128:
          if lines == nil { lines = earlierLines(index) }
          guard let lines, let block = repeated(piece, lines), !repeatsLast(index) else { break }
          addAttached(piece, block)
        default: break
        }
      }
    }
  }

  /// What a new message says; of a prompt that is one text, all paragraphs of a turn with the first.
  private func said(_ index: Int) -> [RequestPiece] {
    let pieces = Array(new.pieces[new.parts[index].pieces])
    guard new.format == .completion, var whole = pieces.first(where: { $0.kind != .field }) else {
      return pieces
    }
    if index > appended.lowerBound, new.parts[index - 1].role == .user,
      !isMarked(new.parts[index])
    {
      return []
    }
    for part in new.parts[index..<appended.upperBound].dropFirst() {
      guard part.role == .user, part.node == new.parts[index].node, !isMarked(part),
        let last = new.pieces[part.pieces].last(where: { $0.kind != .field })
      else { break }
      whole.range = whole.range.lowerBound..<last.range.upperBound
    }
    return [whole]
  }

  /// Begins with the mark of a turn.
  private func isMarked(_ part: RequestPart) -> Bool {
    let first = new.pieces[part.pieces].first
    return first?.kind == .field && first?.range.lowerBound == part.range.lowerBound
  }

  private mutating func addAttached(_ piece: RequestPiece, _ range: Range<Int>) {
    kept.append(range)
    if piece.kind == .media {
      found.append(
        change(.attachedAgain, node: piece.node, previousNode: nil, position: range.lowerBound)
      )
    } else {
      let shift = piece.textOffset - piece.range.lowerBound
      found.append(
        change(
          .attachedAgain,
          node: piece.node,
          bytes: range.lowerBound + shift..<range.upperBound + shift,
          previousNode: nil,
          previousBytes: nil,
          position: range.lowerBound
        )
      )
    }
  }

  /// The message begins with the whole of the user's message before it: what a framework answers to each wrong call.
  private func repeatsLast(_ index: Int) -> Bool {
    guard let last = new.parts[..<index].last(where: { $0.role == .user }) else { return false }
    let (before, now) = (content(new, last), content(new, new.parts[index]))
    let text = LineChanges.trimmed(new.prompt, before)
    return new.prompt[LineChanges.trimmed(new.prompt, now)].starts(with: new.prompt[text])
  }

  private func earlierMedia(_ index: Int) -> Set<UInt64> {
    Set(new.pieces[..<new.parts[index].pieces.lowerBound].filter { $0.kind == .media }.map(\.hash))
  }

  /// Lines of the user's earlier messages and of the system prompt; results of tools come twice for good reasons.
  private func earlierLines(_ index: Int) -> Set<UInt64> {
    var result: Set<UInt64> = []
    for part in new.parts[..<index] where part.role == .user || part.role == .system {
      for piece in new.pieces[part.pieces] where piece.kind == .text {
        for line in LineChanges.lines(new.prompt, piece.range) {
          let text = LineChanges.trimmed(new.prompt, line)
          if text.count >= 4 { result.insert(ByteHasher.hash(new.prompt, text)) }
        }
      }
    }
    return result
  }

  /// The longest stretch of lines that were sent before, if it is long.
  private func repeated(_ piece: RequestPiece, _ lines: Set<UInt64>) -> Range<Int>? {
    var best = piece.range.lowerBound..<piece.range.lowerBound
    var start: Int?
    var end = piece.range.lowerBound
    for line in LineChanges.lines(new.prompt, piece.range) {
      let text = LineChanges.trimmed(new.prompt, line)
      if text.count < 4 { continue }
      if lines.contains(ByteHasher.hash(new.prompt, text)) {
        if start == nil { start = text.lowerBound }
        end = text.upperBound
        if let start, end - start > best.count { best = start..<end }
      } else {
        start = nil
      }
    }
    return TokenEstimate.count(new.prompt, best) >= Self.attachedTokenCountMin ? best : nil
  }
}
