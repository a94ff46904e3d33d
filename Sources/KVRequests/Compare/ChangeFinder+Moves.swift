extension ChangeFinder {
  /// Shorter stretches turn up twice by chance.
  private static let movedByteCountMin = 12
  /// A text of this many tokens, sent again, is an attachment.
  private static let attachedTokenCountMin = 64

  /// What left one place and came to another was moved; what is left over left, or came.
  mutating func resolveMoves() {
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

  private mutating func addMove(_ from: Loose, _ to: Loose) {
    kept.append(to.range)
    // Where the requests first part: at the place it left, or the one it came to.
    var change = from.position <= to.position ? from.change : to.change
    change.kind = moveKind(from, to)
    found.append(change)
  }

  private func moveKind(_ from: Loose, _ to: Loose) -> RequestChange.Kind {
    let tokenCount = TokenEstimate.count(old.prompt, from.range)
    if from.kind == .media { return .attachedAgain }
    if from.level == .text, to.level == .text, from.change.node == to.change.node {
      return .reordered
    }
    if isTagged(old, from.range) {
      return isAttachment(from, from.range) ? .attachedAgain : .reminderMoved
    }
    if from.level == .part {
      if from.role == .system { return .reminderMoved }
      // A paragraph of a prompt that is one text, which came to the turns that were appended.
      if new.format == .completion, to.isSilent {
        return isAttachment(from, from.range) ? .attachedAgain : .reminderMoved
      }
      return from.role == .user && tokenCount >= 2 * Self.attachedTokenCountMin
        ? .attachedAgain : .reordered
    }
    return tokenCount >= 2 * Self.attachedTokenCountMin ? .attachedAgain : .reminderMoved
  }

  /// A file, an image, or another long text; a note says its tag, unless the tag says the file.
  private func isAttachment(_ loose: Loose, _ range: Range<Int>) -> Bool {
    if loose.kind == .media { return true }
    let tokenCount = TokenEstimate.count(old.prompt, range)
    if isTagged(old, range) {
      return tokenCount >= Self.attachedTokenCountMin && isFileTag(old, range)
    }
    return tokenCount >= 2 * Self.attachedTokenCountMin
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
      for piece in new.pieces[new.parts[index].pieces] {
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

  /// The whole message is the user's message before it once more: what a framework answers to each wrong call.
  private func repeatsLast(_ index: Int) -> Bool {
    new.parts[..<index].last { $0.role == .user }?.hash == new.parts[index].hash
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
