extension PromptRequest {
  /// The JSON of the body, as it was sent.
  public var json: [UInt8] { Array(document.rawBytes(body)) }

  /// The request as it should have been after `previous`: what was sent before stays as it was, what is new comes behind it, and
  /// values that change each time stand at the end of the newest user message.
  ///
  /// - Returns: The body, or nil where the two have too little in common to say.
  public func mended(after previous: PromptRequest) -> [UInt8]? {
    let comparison = RequestComparison(from: previous, to: self)
    guard comparison.relation == .changed else { return nil }
    var replacements: [(range: Range<Int>, text: [UInt8])] = []
    var usedKeys: Set<String> = []
    for (key, value) in document.members(body) {
      let name = document.text(key)
      usedKeys.insert(name)
      guard let before = previous.member(name) else { continue }
      switch RequestFields.meaning(name) {
      case .messages:
        let list = messages(after: previous, before, comparison)
        replacements.append((document.nodes[value].range, list))
      case .prompt:
        let text = prompt(after: previous, before, comparison)
        replacements.append((document.nodes[value].range, text))
      case .ignored, .hiddenHistory: break
      case .setting, .tools, .system, .unknown:
        replacements.append(
          (document.nodes[value].range, Array(previous.document.rawBytes(before)))
        )
      }
    }
    var result: [UInt8] = []
    let whole = document.nodes[body].range
    var at = whole.lowerBound
    for (range, text) in replacements.sorted(by: { $0.range.lowerBound < $1.range.lowerBound }) {
      result += document.bytes[at..<range.lowerBound]
      result += text
      at = range.upperBound
    }
    var end = whole.upperBound
    // Tools or a system prompt that are gone.
    let missing = previous.document.members(previous.body).filter { member in
      let name = previous.document.text(member.key)
      switch RequestFields.meaning(name) {
      case .tools, .system, .setting: return !usedKeys.contains(name)
      default: return false
      }
    }
    if !missing.isEmpty {
      end -= 1
      result += document.bytes[at..<end]
      for (key, value) in missing {
        if result.count > 1 { result.append(UInt8(ascii: ",")) }
        result += previous.document.rawBytes(key) + [UInt8(ascii: ":")]
        result += previous.document.rawBytes(value)
      }
      result.append(UInt8(ascii: "}"))
    } else {
      result += document.bytes[at..<end]
    }
    return result
  }

  private func member(_ name: String) -> Int? {
    document.members(body).last { document.text($0.key) == name }?.value
  }

  /// What goes behind the newest user message: values and corrections.
  private func notes(_ comparison: RequestComparison) -> [UInt8] {
    var notes: [UInt8] = []
    for change in comparison.changes {
      guard let bytes = change.bytes, !bytes.isEmpty,
        change.kind == .volatileValue && change.shape != .id || change.kind == .edited
          || change.kind == .dynamicBeforeStatic
      else { continue }
      let text = fieldText(change.node)[bytes]
      notes += change.kind == .edited ? Array("\n\nCorrection: ".utf8) : Array("\n\n".utf8)
      notes += text
    }
    return notes
  }

  private func messages(
    after previous: PromptRequest,
    _ before: Int,
    _ comparison: RequestComparison
  ) -> [UInt8] {
    guard previous.document.kind(before) == .array else {
      return Array(previous.document.rawBytes(before))
    }
    var elements = previous.document.children(before).map {
      Array(previous.document.rawBytes($0))
    }
    let fresh = parts[comparison.appended]
    let notes = self.notes(comparison)
    let last = fresh.lastIndex { $0.role == .user }
    for index in fresh.indices {
      let part = fresh[index]
      elements.append(
        index == last && !notes.isEmpty
          ? adding(notes, to: part) : Array(document.rawBytes(part.node))
      )
    }
    if last == nil, !notes.isEmpty {
      let text = JSONEscapes.quoted(notes.drop { $0 == 0x0A })
      elements.append(Array("{\"role\":\"user\",\"content\":".utf8) + text + [UInt8(ascii: "}")])
    }
    return [UInt8(ascii: "[")] + elements.joined(separator: [UInt8(ascii: ",")])
      + [UInt8(ascii: "]")]
  }

  /// A message with a text behind its last one.
  private func adding(_ notes: [UInt8], to part: RequestPart) -> [UInt8] {
    let range = document.nodes[part.node].range
    let texts = pieces[part.pieces].filter {
      $0.kind == .text && document.kind($0.node) == .string
    }
    guard let text = texts.last else { return Array(document.bytes[range]) }
    let inner = document.nodes[text.node].range
    return Array(document.bytes[range.lowerBound..<inner.lowerBound])
      + JSONEscapes.quoted(document.textBytes(text.node) + notes)
      + Array(document.bytes[inner.upperBound..<range.upperBound])
  }

  private func prompt(
    after previous: PromptRequest,
    _ before: Int,
    _ comparison: RequestComparison
  ) -> [UInt8] {
    var text = previous.document.textBytes(before)
    for part in parts[comparison.appended] { text += prompt[part.range] }
    return JSONEscapes.quoted(text + notes(comparison))
  }
}
