/// A prompt that is one text, cut into turns and paragraphs.
enum TextParts {
  /// A stretch of the text, and who speaks in it.
  struct Part {
    var range: Range<Int>
    var role: RequestPart.Role
  }

  /// The pieces, side by side, none of them empty; without the mark at the end with which a template asks for the answer.
  ///
  /// The answer comes behind that mark in the next prompt, and is what was appended.
  static func parts(of bytes: [UInt8]) -> [Part] {
    let text = bytes[...]
    var starts: [(at: Int, isTurn: Bool)] = [(0, true)]
    var at = 0
    while at < text.count {
      switch text[at] {
      case UInt8(ascii: "<"), UInt8(ascii: "["):
        // What begins the whole prompt belongs to its first turn.
        let isFirst = at == 0 || starts.count == 1 && TurnMark.isOpening(text[..<at])
        if !isFirst, TurnMark(text, at: at)?.kind == .begin,
          !isMark(text[starts[starts.count - 1].at..<at])
        {
          starts.append((at, true))
        }
      case 0x0A:
        // Blanks in an empty line change nothing.
        if let next = emptyLineEnd(text, at) {
          // A paragraph: behind an empty line, unless that ends the mark of a turn.
          let (start, line) = (at, starts[starts.count - 1].at..<at)
          at = next
          while let next = emptyLineEnd(text, at) { at = next }
          if TurnMark.nameAndColon(text, at: at + 1) != nil {
            // "\n\nHuman:": a turn, whose mark begins with the empty line.
            if start > 0 { starts.append((start, true)) }
          } else if at + 1 < text.count, !isMark(text[line]) {
            starts.append((at + 1, false))
          }
        }
      default: break
      }
      at += 1
    }
    var parts: [Part] = []
    // What stands before the first turn are its rules.
    var role = starts.contains { $0.isTurn && $0.at > 0 } ? RequestPart.Role.system : .other
    for (index, start) in starts.enumerated() {
      let end = index + 1 < starts.count ? starts[index + 1].at : text.count
      guard end > start.at else { continue }
      if start.isTurn { role = TurnMark.front(text[start.at..<end])?.role ?? role }
      parts.append(Part(range: start.at..<end, role: role))
    }
    if parts.count > 1, let last = parts.last, isMark(text[last.range]) { parts.removeLast() }
    return parts
  }

  /// Bytes of a part in front that are a turn's mark, and of those behind what it says that end the turn or the paragraph.
  static func frame(_ text: ArraySlice<UInt8>) -> (front: Int, back: Int) {
    let front = TurnMark.front(text).map { $0.end - text.startIndex } ?? 0
    return (front, TurnMark.backCount(text.dropFirst(front)))
  }

  /// The line break that ends an empty line which begins behind the line break at a place.
  private static func emptyLineEnd(_ text: ArraySlice<UInt8>, _ at: Int) -> Int? {
    var next = at + 1
    while next < text.count, text[next] == 0x0D || text[next] == 0x20 || text[next] == 0x09 {
      next += 1
    }
    return next < text.count && text[next] == 0x0A ? next : nil
  }

  /// Nothing but the mark of a turn, and blanks.
  private static func isMark(_ text: ArraySlice<UInt8>) -> Bool {
    guard text.count <= 112, let front = TurnMark.front(text) else { return false }
    return text[front.end...].allSatisfy { $0 <= 0x20 }
  }
}
