/// A mark with which a template begins or ends a turn, told by its form: `<|im_start|>`, `<｜User｜>`, `[INST]`, `<end_of_turn>`.
struct TurnMark {
  enum Kind { case begin, end, other }

  let kind: Kind
  /// Who speaks behind it, as far as it says itself.
  let role: RequestPart.Role
  /// Behind its last byte.
  let end: Int

  private static let byteCountMax = 48
  /// U+FF5C, the bar of DeepSeek's marks.
  private static let wideBar: [UInt8] = [0xEF, 0xBD, 0x9C]

  /// The mark that begins at a place; nil where none does.
  init?(_ text: ArraySlice<UInt8>, at start: Int) {
    guard start < text.endIndex else { return nil }
    let window = text[start...].prefix(Self.byteCountMax)
    switch window.first {
    case UInt8(ascii: "<"):
      if window.dropFirst().first == UInt8(ascii: "<") {
        self.init(double: window)
      } else {
        self.init(angle: window, of: text)
      }
    case UInt8(ascii: "["): self.init(square: window)
    default: return nil
    }
  }

  private init?(angle window: ArraySlice<UInt8>, of text: ArraySlice<UInt8>) {
    let inner = window.dropFirst().prefix { $0 > 0x20 && $0 != 0x3C && $0 != 0x3E }
    let close = inner.endIndex
    guard close < window.endIndex, window[close] == UInt8(ascii: ">") else { return nil }
    let isBarred = inner.first == UInt8(ascii: "|") || inner.starts(with: Self.wideBar)
    // A tag of any other form is the prompt's own.
    guard
      isBarred || inner.elementsEqual("/s".utf8) || inner.suffix(7).elementsEqual("of_turn".utf8)
    else { return nil }
    let name = Self.name(inner)
    end = close + 1
    role = Self.role(name)
    if ["end", "eot", "eos", "eom", "return", "/s"].contains(where: name.contains) {
      kind = .end
    } else if name.contains("call") || name.contains("text") || name.contains("sentence") {
      // Calls stand within a turn; the text begins but once.
      kind = .other
    } else if role != .other {
      kind = .begin
    } else {
      // Who speaks stands behind it, up to the end of the line or another mark.
      let word = Self.word(text, at: end)
      let isName =
        !word.isEmpty && word.endIndex < text.endIndex
        && ([0x0A, 0x0D, 0x3C].contains(text[word.endIndex])
          || Self.role(Self.name(word)) != .other)
      kind = isName && (name.contains("start") || name.contains("turn")) ? .begin : .other
    }
  }

  /// `<<SYS>>` and `<</SYS>>`.
  private init?(double window: ArraySlice<UInt8>) {
    let inner = window.dropFirst(2).prefix { $0 > 0x20 && $0 != 0x3C && $0 != 0x3E }
    let name = Self.name(inner)
    guard (3...12).contains(inner.count), window[inner.endIndex...].starts(with: [0x3E, 0x3E]),
      Self.role(name) != .other
    else { return nil }
    end = inner.endIndex + 2
    role = Self.role(name)
    kind = name.hasPrefix("/") ? .other : .begin
  }

  private init?(square window: ArraySlice<UInt8>) {
    let inner = window.dropFirst().prefix {
      (0x41...0x5A).contains($0) || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: "/")
    }
    guard inner.count >= 4, inner.endIndex < window.endIndex, window[inner.endIndex] == 0x5D else {
      return nil
    }
    let name = Self.name(inner)
    let said = Self.role(name)
    guard said != .other, !name.contains("call") else { return nil }
    end = inner.endIndex + 1
    // Behind what someone else said the assistant answers.
    kind = .begin
    role = name.hasPrefix("/") ? .assistant : said
  }

  private static func word(_ text: ArraySlice<UInt8>, at start: Int) -> ArraySlice<UInt8> {
    text[start...].prefix(64).prefix { $0 > 0x20 && $0 != 0x3C && $0 != 0x5B }
  }

  private static func name(_ inner: ArraySlice<UInt8>) -> String {
    String(decoding: inner, as: UTF8.self).lowercased()
  }

  /// Who speaks, by a word or a name that has one in it.
  static func role(_ name: String) -> RequestPart.Role {
    func has(_ words: String...) -> Bool { words.contains(where: name.contains) }
    if has("available", "sys", "developer") { return .system }
    if has("tool", "function", "ipython", "observation") { return .toolResult }
    if has("assistant", "model") { return .assistant }
    return has("user", "human", "inst") ? .user : .other
  }

  // MARK: - At both ends of a turn

  /// What a part of a prompt begins with that is a turn's mark: who speaks, and where that ends.
  static func front(_ text: ArraySlice<UInt8>) -> (role: RequestPart.Role, end: Int)? {
    let start = text.firstIndex { $0 != 0x0A && $0 != 0x0D } ?? text.endIndex
    if let end = nameAndColon(text, at: start), start >= text.startIndex + 2 {
      let name = name(text[start..<end - 1])
      return (RequestFields.role(name), end)
    }
    // `<bos>` and its like come before the first one.
    let first = text[start...].prefix(33).indices.first { TurnMark(text, at: $0)?.kind == .begin }
    guard let first, let mark = TurnMark(text, at: first),
      first == start || isOpening(text[start..<first])
    else { return nil }
    var (role, at) = (mark.role, mark.end)
    if role == .other {
      // <|im_start|>user, <|start_header_id|>user<|end_header_id|>
      let word = word(text, at: at)
      role = self.role(name(word))
      at = word.endIndex
      if let close = TurnMark(text, at: at), close.kind == .end { at = close.end }
    }
    // <|channel|>analysis<|message|>
    while let next = TurnMark(text, at: at), next.kind == .other {
      let name = word(text, at: next.end)
      let following = TurnMark(text, at: name.endIndex)
      at = following?.kind == .other ? following?.end ?? next.end : next.end
    }
    // `[INST] <<SYS>>`
    let next = text[at...].firstIndex { $0 > 0x20 } ?? at
    if TurnMark(text, at: next)?.kind == .begin, let inner = self.front(text[next...]) {
      return inner
    }
    while at < text.endIndex, text[at] == 0x0A || text[at] == 0x0D { at += 1 }
    return (role, at)
  }

  /// Bytes at the end of a part that end a turn, or the paragraph.
  static func backCount(_ text: ArraySlice<UInt8>) -> Int {
    let last = text.lastIndex { $0 > 0x20 }
    guard let last else { return 0 }
    for at in text[...last].suffix(byteCountMax).indices.reversed()
    where text[at] == UInt8(ascii: "<") || text[at] == UInt8(ascii: "[") {
      guard let mark = TurnMark(text, at: at), mark.kind == .end, mark.end == last + 1 else {
        break
      }
      return text.endIndex - at
    }
    return text.endIndex - last - 1
  }

  /// `Human:` at the beginning of a line: where it ends.
  static func nameAndColon(_ text: ArraySlice<UInt8>, at start: Int) -> Int? {
    let word = text[start...].prefix(20).prefix(while: TextTokens.isWord)
    guard !word.isEmpty, word.endIndex < text.endIndex, text[word.endIndex] == UInt8(ascii: ":"),
      RequestFields.role(name(word)) != .other
    else { return nil }
    return word.endIndex + 1
  }

  /// `<bos>` and its like.
  static func isOpening(_ text: ArraySlice<UInt8>) -> Bool {
    text.count <= 40 && text.first == UInt8(ascii: "<") && text.last == UInt8(ascii: ">")
      && !text.contains { $0 <= 0x20 } && text.count(where: { $0 == UInt8(ascii: "<") }) == 1
      && TurnMark(text, at: text.startIndex)?.kind != .begin
  }
}
