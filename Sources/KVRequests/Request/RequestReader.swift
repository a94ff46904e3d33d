/// Finds the parts of a body.
struct RequestReader {
  private(set) var format = RequestFormat.other
  private(set) var model: String?
  private(set) var parts: [RequestPart] = []
  private(set) var settings: [RequestSetting] = []
  private(set) var prompt: [UInt8] = []
  private(set) var pieces: [RequestPiece] = []
  private(set) var hasHiddenHistory = false

  let document: JSONDocument
  let body: Int
  private var hasher = ByteHasher()

  init(_ document: JSONDocument, body: Int) {
    self.document = document
    self.body = body
  }

  mutating func read() {
    guard document.kind(body) == .object else { return }
    prompt.reserveCapacity(document.nodes[body].range.count)
    var tools: [Int] = []
    var systems: [Int] = []
    var histories: [Int] = []
    var prompts: [Int] = []
    var hasKnownHistory = false
    let members = document.members(body)
    for (key, value) in members {
      switch RequestFields.meaning(document.text(key)) {
      case .messages, .prompt: if isFilled(value) { hasKnownHistory = true }
      default: break
      }
    }
    for (key, value) in members {
      let name = document.text(key)
      switch RequestFields.meaning(name) {
      case .setting(let kind): addSetting(kind, name, value)
      case .tools: if isFilled(value) { tools.append(value) }
      case .system: if isFilled(value) { systems.append(value) }
      case .messages:
        if isFilled(value) { histories.append(value) }
        if name == "input" {
          format = .openAIResponses
        } else if name == "messages", format == .other {
          format = .openAIChat
        }
      case .prompt:
        if isFilled(value) { prompts.append(value) }
        if format == .other { format = .completion }
      case .hiddenHistory: if isFilled(value) { hasHiddenHistory = true }
      case .ignored: break
      case .unknown:
        switch shape(value, hasKnownHistory) {
        case .history: histories.append(value)
        case .definitions: tools.append(value)
        case .text: systems.append(value)
        case .nothing: break
        }
      }
    }
    if format == .openAIChat, isAnthropic(systems, tools, histories) { format = .anthropicMessages }
    for node in tools { readTools(node) }
    for node in systems { readSystem(node) }
    for node in histories { readHistory(node) }
    for node in prompts { readPrompt(node) }
  }

  // MARK: - Shapes

  private enum Shape { case history, definitions, text, nothing }

  /// What a field of an unknown name is.
  private func shape(_ node: Int, _ hasKnownHistory: Bool) -> Shape {
    switch document.kind(node) {
    case .string:
      // A sentence or more; a short word is a parameter.
      let range = document.nodes[node].range
      return range.count >= 40 && document.bytes[range].contains(UInt8(ascii: " "))
        ? .text : .nothing
    case .array:
      guard let first = document.children(node).first(where: { _ in true }),
        document.kind(first) == .object
      else { return .nothing }
      if !hasKnownHistory, speaks(first) { return .history }
      return document.nodes[node].range.count >= 40 ? .definitions : .nothing
    default: return .nothing
    }
  }

  /// Whether an object has a field that says who speaks, whatever its name.
  private func speaks(_ node: Int) -> Bool {
    document.members(node).contains { _, value in
      document.kind(value) == .string
        && RequestFields.rolesOfUnknown.contains(document.text(value).lowercased())
    }
  }

  private func isFilled(_ node: Int) -> Bool {
    switch document.kind(node) {
    case .null, .bool, .number: false
    case .string: document.nodes[node].range.count > 2
    case .array, .object: document.nodes[node].next > node + 1
    }
  }

  private func isAnthropic(_ systems: [Int], _ tools: [Int], _ histories: [Int]) -> Bool {
    if document.value("system", in: body) != nil
      || document.value("anthropic_version", in: body) != nil
    {
      return true
    }
    return tools.contains { list in
      document.children(list).contains { document.value("input_schema", in: $0) != nil }
    }
  }

  // MARK: - Parts

  private mutating func addSetting(_ kind: RequestSetting.Kind, _ key: String, _ node: Int) {
    guard document.kind(node) != .null else { return }
    var value: [UInt8] = []
    document.appendRendered(node, to: &value)
    if kind == .model, document.kind(node) == .string { model = document.text(node) }
    settings.append(RequestSetting(kind: kind, key: key, node: node, value: value))
  }

  private mutating func readTools(_ list: Int) {
    guard document.kind(list) == .array else {
      return addPart(.tool, list, name: nil) { $0.addPiece(.schema, list) }
    }
    for node in document.children(list) {
      let function = document.value("function", in: node) ?? node
      let name = document.value("name", in: function).map { document.text($0) }
      addPart(.tool, node, name: name ?? firstText(function)) { $0.addPiece(.schema, node) }
    }
  }

  /// The first short text of an object: what it is called, whatever the field's name.
  private func firstText(_ node: Int) -> String? {
    document.members(node).first {
      document.kind($0.value) == .string && document.nodes[$0.value].range.count < 80
        && !document.isString($0.key, "type")
    }.map { document.text($0.value) }
  }

  private mutating func readSystem(_ node: Int) {
    addPart(.system, node, name: nil) { $0.addContent(node, .text) }
  }

  private mutating func readHistory(_ node: Int) {
    switch document.kind(node) {
    case .array:
      for message in document.children(node) { readMessage(message) }
    case .string: addPart(.user, node, name: nil) { $0.addContent(node, .text) }
    default: readMessage(node)
    }
  }

  private mutating func readMessage(_ node: Int) {
    guard document.kind(node) == .object else {
      return addPart(.user, node, name: nil) { $0.addContent(node, .text) }
    }
    var role = RequestPart.Role.other
    var roleText: [UInt8] = []
    if let value = document.value("role", in: node) {
      roleText = document.textBytes(value)
      role = RequestFields.role(document.text(value))
    } else if let type = document.value("type", in: node).map({ document.text($0) }) {
      roleText = Array(type.utf8)
      switch type {
      case "function_call", "reasoning", "custom_tool_call", "local_shell_call": role = .assistant
      case "function_call_output", "custom_tool_call_output": role = .toolResult
      default: break
      }
    } else if let speaker = document.members(node).first(where: { member in
      document.kind(member.value) == .string
        && RequestFields.rolesOfUnknown.contains(document.text(member.value).lowercased())
    }) {
      roleText = document.textBytes(speaker.value)
      role = RequestFields.role(document.text(speaker.value))
    }
    addPart(role, node, name: nil, header: roleText) { $0.addMessage(node, role) }
  }

  /// A prompt that is one text, cut where a turn or a paragraph begins: so it can be compared piece by piece.
  private mutating func readPrompt(_ node: Int) {
    guard document.kind(node) == .string else {
      if document.kind(node) == .array {
        for child in document.children(node) where document.kind(child) != .number {
          readPrompt(child)
        }
        let isTokens = document.children(node).contains { document.kind($0) == .number }
        if isTokens { addPart(.user, node, name: nil) { $0.addPiece(.text, node) } }
      } else if document.kind(node) == .object {
        addPart(.user, node, name: nil) { $0.addContent(node, .text) }
      }
      return
    }
    let text = document.textBytes(node)
    for range in TextParts.ranges(of: text) {
      addPart(TextParts.role(text[range]), node, name: nil, hasMark: false) {
        $0.addText(.text, node, text[range], textOffset: range.lowerBound)
      }
    }
  }

  private mutating func addPart(
    _ role: RequestPart.Role,
    _ node: Int,
    name: String?,
    header: [UInt8] = [],
    hasMark: Bool = true,
    _ body: (inout RequestReader) -> Void
  ) {
    let start = prompt.count
    let firstPiece = pieces.count
    // What a template puts around a part; its bytes count as about four tokens.
    if hasMark { prompt += [2, 2, 2, 2, 2, 2] + header + [3, 3, 3, 3, 3, 3] }
    body(&self)
    var weight = 0
    for piece in pieces[firstPiece...] where piece.kind == .media {
      weight += TokenEstimate.mediaTokenCount * 256
    }
    let range = start..<prompt.count
    weight += TokenEstimate.weight(prompt, range)
    parts.append(
      RequestPart(
        role: role,
        name: name,
        tokenCount: max(1, TokenEstimate.rounded(weight)),
        hash: ByteHasher.hash(prompt, range),
        range: range,
        pieces: firstPiece..<pieces.count,
        node: node
      )
    )
  }

  // MARK: - Pieces

  mutating func addText(
    _ kind: RequestPiece.Kind,
    _ node: Int,
    _ text: ArraySlice<UInt8>,
    textOffset: Int
  ) {
    let start = prompt.count
    prompt.append(contentsOf: text)
    appendPiece(kind, node, start, textOffset)
  }

  mutating func addPiece(_ kind: RequestPiece.Kind, _ node: Int) {
    let start = prompt.count
    if document.kind(node) == .string {
      document.appendText(node, to: &prompt)
    } else {
      document.appendRendered(node, to: &prompt)
    }
    appendPiece(kind, node, start, 0)
  }

  /// An image or a document: its content only by its digest, since its bytes are no text.
  private mutating func addMedia(_ node: Int) {
    let start = prompt.count
    let hash = ByteHasher.hash(document.bytes, document.nodes[node].range)
    prompt += Array("\u{2}media \(hash)".utf8)
    appendPiece(.media, node, start, 0)
  }

  private mutating func appendPiece(
    _ kind: RequestPiece.Kind,
    _ node: Int,
    _ start: Int,
    _ textOffset: Int
  ) {
    let range = start..<prompt.count
    pieces.append(
      RequestPiece(
        kind: kind,
        node: node,
        range: range,
        textOffset: textOffset,
        hash: ByteHasher.hash(prompt, range)
      )
    )
  }

  /// The contents of a message, in the order of a template.
  mutating func addMessage(_ node: Int, _ role: RequestPart.Role) {
    var fields: [(order: Int, key: String, value: Int)] = []
    for (key, value) in document.members(node) {
      let name = document.text(key)
      guard !RequestFields.kinds.contains(name), !RequestFields.ignoredInMessages.contains(name),
        name != "id", isFilled(value) || document.kind(value) == .number
      else { continue }
      fields.append((RequestFields.order(name), name, value))
    }
    fields.sort { ($0.order, $0.key) < ($1.order, $1.key) }
    for field in fields { addField(field.key, field.value, role) }
  }

  private mutating func addField(_ key: String, _ value: Int, _ role: RequestPart.Role) {
    let content: RequestPiece.Kind = role == .toolResult ? .result : .text
    switch key {
    case "content", "parts", "text", "summary": addContent(value, content)
    case "output", "result": addContent(value, .result)
    case "reasoning", "reasoning_content", "thinking", "encrypted_content", "reasoning_details":
      addContent(value, .reasoning)
    case "tool_calls": for call in document.children(value) { addCall(call) }
    case "function_call": addCall(value)
    case "arguments", "input": addPiece(.callArguments, value)
    case "tool_call_id", "call_id", "tool_use_id": addPiece(.callID, value)
    case "name": addPiece(.callName, value)
    default:
      // Short words say who speaks or what something is; anything longer is part of the prompt.
      if document.kind(value) == .string {
        let isSpeaker =
          RequestFields.rolesOfUnknown.contains(document.text(value).lowercased())
        if !isSpeaker { addContent(value, role == .toolResult ? .result : .field) }
      } else {
        addContent(value, .field)
      }
    }
  }

  private mutating func addCall(_ node: Int) {
    guard document.kind(node) == .object else { return addPiece(.field, node) }
    let function = document.value("function", in: node) ?? node
    for (key, value) in document.members(function) {
      switch document.text(key) {
      case "name": addPiece(.callName, value)
      case "arguments", "input", "args": addPiece(.callArguments, value)
      default: break
      }
    }
    if let id = document.value("id", in: node), isFilled(id) { addPiece(.callID, id) }
  }

  /// A content: a text, or a list of texts, images, calls and results.
  mutating func addContent(_ node: Int, _ kind: RequestPiece.Kind) {
    switch document.kind(node) {
    case .string: addPiece(kind, node)
    case .array: for block in document.children(node) { addBlock(block, kind) }
    case .object: addBlock(node, kind)
    case .null: break
    case .bool, .number: addPiece(kind, node)
    }
  }

  private mutating func addBlock(_ node: Int, _ kind: RequestPiece.Kind) {
    guard document.kind(node) == .object else { return addContent(node, kind) }
    let type = document.value("type", in: node).map { document.text($0) } ?? ""
    switch type {
    case "thinking", "reasoning", "redacted_thinking", "reasoning_text", "summary_text":
      addBlockFields(node, .reasoning)
    case "tool_use", "server_tool_use", "function_call":
      addCall(node)
    case "tool_result", "web_search_tool_result", "function_call_output":
      addBlockFields(node, .result)
    case "image", "image_url", "input_image", "document", "file", "input_file", "input_audio",
      "video":
      addMedia(node)
    default: addBlockFields(node, kind)
    }
  }

  private mutating func addBlockFields(_ node: Int, _ kind: RequestPiece.Kind) {
    let members = document.members(node).sorted {
      RequestFields.order(document.text($0.key)) < RequestFields.order(document.text($1.key))
    }
    for (key, value) in members {
      let name = document.text(key)
      guard !RequestFields.kinds.contains(name), !RequestFields.ignoredInMessages.contains(name),
        name != "id", isFilled(value) || document.kind(value) == .number
      else { continue }
      switch name {
      case "tool_use_id", "tool_call_id", "call_id": addPiece(.callID, value)
      case "inlineData", "inline_data", "fileData", "source", "image_url": addMedia(value)
      case "functionCall": addCall(value)
      case "functionResponse": addContent(value, .result)
      default: addContent(value, kind)
      }
    }
  }
}
