/// A prompt that is one text, cut into turns and paragraphs.
enum TextParts {
  /// Marks with which templates begin a turn.
  private static let marks: [[UInt8]] = [
    "<|im_start|>", "<start_of_turn>", "<|start_header_id|>", "<|start|>", "<|turn>", "[INST]",
    "<|user|>", "<|assistant|>", "<|system|>", "\n\nHuman:", "\n\nAssistant:",
  ].map { Array($0.utf8) }

  /// A stretch of the text, and who speaks in it.
  struct Part {
    var range: Range<Int>
    var role: RequestPart.Role
  }

  /// The pieces, side by side, none of them empty; without the mark at the end with which a template asks for the answer.
  ///
  /// The answer comes behind that mark in the next prompt, and is what was appended.
  static func parts(of text: [UInt8]) -> [Part] {
    var starts: [(at: Int, isTurn: Bool)] = [(0, true)]
    var at = 0
    while at < text.count {
      switch text[at] {
      case UInt8(ascii: "<"), UInt8(ascii: "["):
        // What begins the whole prompt belongs to its first turn.
        let isFirst = at == 0 || starts.count == 1 && isOpening(text[..<at])
        if !isFirst, marks.contains(where: { begins(text, at, $0) }) { starts.append((at, true)) }
      case 0x0A:
        // A carriage return before a line break changes nothing.
        let isBreak = at + 2 < text.count && text[at + 1] == 0x0D && text[at + 2] == 0x0A
        if isBreak || at + 1 < text.count && text[at + 1] == 0x0A {
          if marks.contains(where: { begins(text, at, $0) }) {
            // "\n\nHuman:": a turn, whose mark begins with the empty line.
            if at > 0 { starts.append((at, true)) }
            at += 1
          } else {
            // A paragraph: behind an empty line, unless that ends the mark of a turn.
            let line = starts[starts.count - 1].at..<at
            while at + 1 < text.count, text[at + 1] == 0x0A || text[at + 1] == 0x0D { at += 1 }
            if at + 1 < text.count, !isMark(text[line]) { starts.append((at + 1, false)) }
          }
        }
      default: break
      }
      at += 1
    }
    var parts: [Part] = []
    var role = RequestPart.Role.other
    for (index, start) in starts.enumerated() {
      let end = index + 1 < starts.count ? starts[index + 1].at : text.count
      guard end > start.at else { continue }
      if start.isTurn { role = self.role(text[start.at..<end]) }
      parts.append(Part(range: start.at..<end, role: role))
    }
    if parts.count > 1, let last = parts.last, isMark(text[last.range]) { parts.removeLast() }
    return parts
  }

  /// Bytes of a part in front that are a turn's mark, and of those behind what it says that end the turn.
  static func frame(_ text: ArraySlice<UInt8>) -> (front: Int, back: Int) {
    let line = text.drop { $0 == 0x0A }.prefix { $0 != 0x0A }
    var front = 0
    if let end = markEnd(text) { front = end }
    // <|im_end|>, <|eot_id|>, <end_of_turn>, </s>: behind the last text, up to the end.
    var back = 0
    let tail = text.dropFirst(front)
    let last = tail.lastIndex { $0 > 0x20 }
    if let last, text[last] == UInt8(ascii: ">"), line.count > 0 || front > 0,
      let open = tail[...last].suffix(32).lastIndex(of: UInt8(ascii: "<")),
      !text[open...last].contains(0x20),
      ["end", "eot", "eos", "/s", "call"].contains(where: {
        String(decoding: text[open...last], as: UTF8.self).contains($0)
      }), !text[open...last].starts(with: Array("</".utf8)) || text[open...last].count <= 4
    {
      back = text.endIndex - open
    }
    return (front, back)
  }

  /// Where the mark of a turn ends, in bytes from the start of a part; nil where there is none.
  private static func markEnd(_ text: ArraySlice<UInt8>) -> Int? {
    guard
      text.indices.prefix(33).contains(where: { at in
        marks.contains { text[at...].starts(with: $0) }
      })
    else { return nil }
    var at = text.startIndex
    while at < text.endIndex, text[at] == 0x0A { at += 1 }
    let word = text[at...].prefix(64).prefix { $0 > 0x20 }
    // Up to the line break behind "<|im_start|>user", else behind the last bracket of the first word, or its colon.
    if word.endIndex < text.endIndex, text[word.endIndex] == 0x0A || text[word.endIndex] == 0x0D {
      at = word.endIndex
      while at < text.endIndex, text[at] == 0x0A || text[at] == 0x0D { at += 1 }
      return at - text.startIndex
    }
    let last = word.lastIndex { $0 == UInt8(ascii: ">") || $0 == 0x5D || $0 == 0x3A }
    return last.map { $0 + 1 - text.startIndex }
  }

  /// `<bos>` and its like.
  private static func isOpening(_ text: ArraySlice<UInt8>) -> Bool {
    text.count <= 32 && text.first == UInt8(ascii: "<") && text.last == UInt8(ascii: ">")
      && !text.contains { $0 <= 0x20 } && text.count(where: { $0 == UInt8(ascii: "<") }) == 1
      && !marks.contains { text.elementsEqual($0) }
  }

  /// Nothing but the mark of a turn: a word or two between brackets, and blanks.
  private static func isMark(_ text: ArraySlice<UInt8>) -> Bool {
    guard text.count <= 112 else { return false }
    let line = text.drop { $0 == 0x0A }
    let body = line.prefix { $0 != 0x0A }
    guard line.dropFirst(body.count).allSatisfy({ $0 <= 0x20 }),
      body.split(separator: 0x20).count <= 2
    else { return false }
    return text.indices.prefix(33).contains { at in
      marks.contains { text[at...].starts(with: $0) }
    }
  }

  private static func begins(_ text: [UInt8], _ at: Int, _ mark: [UInt8]) -> Bool {
    at + mark.count <= text.count && text[at..<at + mark.count].elementsEqual(mark)
  }

  /// Who speaks, as far as the mark says.
  static func role(_ text: ArraySlice<UInt8>) -> RequestPart.Role {
    let line = text.drop { $0 == 0x0A }.prefix(96)
    let mark = line.prefix { $0 > 0x20 }
    guard mark.first == UInt8(ascii: "<") || mark.first == UInt8(ascii: "[") || mark.last == 0x3A
    else { return .other }
    let head = String(decoding: mark, as: UTF8.self).lowercased()
    if ["tool", "function", "ipython"].contains(where: head.contains) { return .toolResult }
    if ["system", "developer"].contains(where: head.contains) { return .system }
    if ["assistant", "model"].contains(where: head.contains) { return .assistant }
    return ["user", "human", "[inst]"].contains(where: head.contains) ? .user : .other
  }
}
