/// Finds the parts of a body.
struct RequestReader {
  private(set) var format = RequestFormat.other
  private(set) var model: String?
  private(set) var parts: [RequestPart] = []
  private(set) var settings: [RequestSetting] = []
  private(set) var prompt: [UInt8] = []
  private(set) var pieces: [RequestPiece] = []
  private(set) var hasHiddenHistory = false
  private(set) var timeToLiveSeconds: Double?

  let document: JSONDocument
  let body: Int
  /// Ids of the calls so far: what names one of them is a result.
  private var callIDs: Set<UInt64> = []
  /// Who speaks in the part that is being read.
  private var speaker = RequestPart.Role.other

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
        // What is embedded: texts and tokens by themselves.
        if name == "input", document.kind(value) == .array,
          !document.children(value).contains(where: { document.kind($0) == .object })
        {
          break
        }
        if isFilled(value) { histories.append(value) }
        if name == "input" {
          format = .openAIResponses
        } else if name == "messages", format == .other {
          format = .openAIChat
        }
      case .prompt:
        let isHistory =
          document.kind(value) == .array && document.children(value).contains(where: speaks)
        if isHistory {
          histories.append(value)
        } else if isFilled(value) {
          prompts.append(value)
        }
        if format == .other, !isHistory { format = .completion }
      case .hiddenHistory: if isFilled(value) { hasHiddenHistory = true }
      case .ignored: noteBreakPoint(name, value)
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

  /// How long a break point (`{"type": "ephemeral", "ttl": "1h"}`) or a field (`"24h"`) wants the prompt kept.
  private mutating func noteBreakPoint(_ name: String, _ node: Int) {
    let value: Int?
    switch name {
    case "cache_control": value = document.value("ttl", in: node)
    case "prompt_cache_retention": value = node
    default: value = nil
    }
    guard let value, document.kind(value) == .string else { return }
    let text = document.textBytes(value)
    let unit: Double? =
      switch text.last {
      case UInt8(ascii: "m"): 60
      case UInt8(ascii: "h"): 3_600
      case UInt8(ascii: "d"): 86_400
      default: nil
      }
    guard let unit, let count = JSONNumber.value(text.dropLast()), count > 0, count < 1e6 else {
      return
    }
    timeToLiveSeconds = max(timeToLiveSeconds ?? 0, count * unit)
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
    case .object:
      if definitions(node).contains(where: isDefinition) { return .definitions }
      // `{"text": "…"}`: a text with a wrapping.
      let members = document.members(node)
      return members.count == 1 && shape(members[0].value, true) == .text ? .text : .nothing
    default: return .nothing
    }
  }

  /// A tool, whatever its fields are called: it has a name, and a schema beside it.
  private func isDefinition(_ node: Int) -> Bool {
    let inner = unwrapped(node)
    return firstText(inner) != nil
      && document.members(inner).contains { document.kind($0.value) == .object }
  }

  /// The object in an object that holds nothing else: `{"toolSpec": {…}}`.
  private func unwrapped(_ node: Int) -> Int {
    let members = document.members(node)
    guard members.count == 1, document.kind(members[0].value) == .object else { return node }
    return members[0].value
  }

  /// The tools of a list, also where lists of them lie in its elements, or in an object.
  private func definitions(_ node: Int, depth: Int = 0) -> [Int] {
    switch document.kind(node) {
    case .array:
      return document.children(node).flatMap { child in
        let inner = depth < 3 && firstText(child) == nil ? definitions(child, depth: depth + 1) : []
        return inner.isEmpty && !isEmptyList(child) ? [child] : inner
      }
    case .object:
      let lists = document.members(node).map(\.value).filter { list in
        document.kind(list) == .array
          && document.children(list).contains { document.kind($0) == .object }
      }
      return depth < 3 ? lists.flatMap { definitions($0, depth: depth + 1) } : []
    default: return []
    }
  }

  /// `[]`, or an object of such lists.
  private func isEmptyList(_ node: Int) -> Bool {
    switch document.kind(node) {
    case .array: document.children(node).allSatisfy(isEmptyList)
    case .object: document.members(node).allSatisfy { isEmptyList($0.value) }
    default: false
    }
  }

  /// Whether an object has a field that says who speaks, whatever its name.
  private func speaks(_ node: Int) -> Bool { RequestReader.speaks(document, node) }

  /// Whether an object has a field that says who speaks, and another one with what is said.
  static func speaks(_ document: JSONDocument, _ node: Int) -> Bool {
    let members = document.members(node)
    return members.count >= 2
      && members.contains { _, value in
        document.kind(value) == .string && document.nodes[value].range.count <= 34
          && RequestFields.isRole(document.text(value))
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
    let nodes = definitions(list)
    guard !nodes.isEmpty else {
      if isEmptyList(list) { return }
      return addPart(.tool, list, name: nil) { $0.addPiece(.schema, list) }
    }
    for node in nodes {
      let function = document.value("function", in: node) ?? unwrapped(node)
      if let point = document.value("cache_control", in: node) {
        noteBreakPoint("cache_control", point)
      }
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
    // An object of a class, written out: what speaks lies in it.
    if !speaks(node), document.value("role", in: node) == nil,
      let inner = document.members(node).map(\.value).first(where: { value in
        document.kind(value) == .object && speaks(value)
      })
    {
      return readMessage(inner, of: node)
    }
    readMessage(node, of: node)
  }

  /// A message, and the element of the history that it is.
  private mutating func readMessage(_ node: Int, of element: Int) {
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
      default: role = RequestFields.role(type)
      }
    } else if let speaker = document.members(node).first(where: { member in
      document.kind(member.value) == .string && document.nodes[member.value].range.count <= 34
        && RequestFields.isRole(document.text(member.value))
    }) {
      roleText = document.textBytes(speaker.value)
      role = RequestFields.role(document.text(speaker.value))
    }
    if role == .other || role == .user, namesCall(node) { role = .toolResult }
    addPart(role, element, name: nil, header: roleText) { $0.addMessage(node, role) }
  }

  /// Where a field comes in the prompt: what names a call comes before what that answered.
  private func order(_ key: String, _ value: Int) -> Int {
    if !callIDs.isEmpty, document.kind(value) == .string, callIDs.contains(idHash(value)) {
      return 1
    }
    return RequestFields.order(key)
  }

  /// Whether an object names an earlier call: it is what that call answered.
  private func namesCall(_ node: Int) -> Bool {
    !callIDs.isEmpty
      && document.members(node).contains { member in
        document.kind(member.value) == .string && callIDs.contains(idHash(member.value))
      }
  }

  private func idHash(_ node: Int) -> UInt64 {
    ByteHasher.hash(document.bytes, document.nodes[node].range)
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
    for part in TextParts.parts(of: text) {
      let kind: RequestPiece.Kind = part.role == .toolResult ? .result : .text
      let (front, back) = TextParts.frame(text[part.range])
      let (start, end) = (part.range.lowerBound, part.range.upperBound)
      addPart(part.role, node, name: nil, hasMark: false) { reader in
        for (kind, range) in [
          (RequestPiece.Kind.field, start..<start + front), (kind, start + front..<end - back),
          (.field, end - back..<end),
        ] where !range.isEmpty {
          reader.addText(kind, node, text[range], textOffset: range.lowerBound)
        }
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
    speaker = role
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
      fields.append((order(name, value), name, value))
    }
    fields.sort { ($0.order, $0.key) < ($1.order, $1.key) }
    // Beside a known content other texts are fields; else they are what is said.
    let isNamed = fields.contains { RequestFields.contents.contains($0.key) }
    for field in fields { addField(field.key, field.value, role, isNamed) }
  }

  private mutating func addField(
    _ key: String,
    _ value: Int,
    _ role: RequestPart.Role,
    _ isNamed: Bool
  ) {
    let content: RequestPiece.Kind = role == .toolResult ? .result : .text
    // A second text of an assistant, under whatever name, is sent once and not again.
    let other: RequestPiece.Kind =
      role == .toolResult ? .result : isNamed || role == .assistant ? .field : .text
    switch key {
    case "content", "parts", "text", "summary": addContent(value, content)
    case "output", "result": addContent(value, .result)
    case _ where RequestFields.reasoning.contains(key): addContent(value, .reasoning)
    case "tool_calls": for call in document.children(value) { addCall(call) }
    case "function_call": addCall(value)
    case "arguments", "input": addPiece(.callArguments, value)
    case "tool_call_id", "call_id", "tool_use_id": addPiece(.callID, value)
    case "name": addPiece(.callName, value)
    default:
      // Short words say who speaks or what something is; anything longer is part of the prompt.
      if document.kind(value) == .string {
        if callIDs.contains(idHash(value)) { return addPiece(.callID, value) }
        let isSpeaker =
          document.nodes[value].range.count <= 34 && RequestFields.isRole(document.text(value))
        if !isSpeaker { addContent(value, other) }
      } else {
        addContent(value, other)
      }
    }
  }

  /// What an assistant's object has that calls a tool: short names, and arguments beside them, whatever the fields are called.
  private func isCall(_ node: Int) -> Bool {
    var hasName = false
    var hasArguments = false
    for (key, value) in document.members(node) {
      let name = document.text(key)
      if RequestFields.contents.contains(name) { return false }
      if name == "type" || RequestFields.ignoredInMessages.contains(name) { continue }
      switch document.kind(value) {
      case .string:
        let range = document.nodes[value].range
        if isArguments(value) {
          hasArguments = true
        } else if (3...130).contains(range.count), !document.bytes[range].contains(0x20) {
          hasName = true
        } else {
          return false
        }
      case .object: hasArguments = true
      case .array: return false
      case .null, .bool, .number: break
      }
    }
    return hasName && hasArguments
  }

  /// JSON in a string.
  private func isArguments(_ node: Int) -> Bool {
    let range = document.nodes[node].range
    return range.count > 3 && document.bytes[range.lowerBound + 1] == UInt8(ascii: "{")
  }

  private mutating func addCall(_ node: Int) {
    guard document.kind(node) == .object else { return addPiece(.field, node) }
    let function = document.value("function", in: node) ?? node
    var ids: [Int] = []
    for (key, value) in document.members(function) {
      switch document.text(key) {
      case "name": addPiece(.callName, value)
      case "arguments", "input", "args": addPiece(.callArguments, value)
      case "id", "call_id", "toolUseId", "tool_call_id":
        if isFilled(value) { ids.append(value) }
      case "type", "index", "status", "cache_control": break
      default:
        guard isFilled(value) else { break }
        switch document.kind(value) {
        case .object: addPiece(.callArguments, value)
        case .string where isArguments(value): addPiece(.callArguments, value)
        case .string where hasDigit(value): ids.append(value)
        case .string: addPiece(.callName, value)
        default: addPiece(.field, value)
        }
      }
    }
    if function != node, let id = document.value("id", in: node), isFilled(id) { ids.append(id) }
    for id in ids {
      addPiece(.callID, id)
      if document.nodes[id].range.count >= 6 { callIDs.insert(idHash(id)) }
    }
  }

  private func hasDigit(_ node: Int) -> Bool {
    document.bytes[document.nodes[node].range].contains(where: JSONNumber.isDigit)
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
    let isThought =
      document.value("thought", in: node).map { document.rawBytes($0).elementsEqual("true".utf8) }
    switch type {
    case _ where isThought == true: addBlockFields(node, .reasoning)
    case "thinking", "reasoning", "redacted_thinking", "reasoning_text", "summary_text":
      addBlockFields(node, .reasoning)
    case "tool_use", "server_tool_use", "function_call":
      addCall(node)
    case "tool_result", "web_search_tool_result", "function_call_output":
      addBlockFields(node, .result)
    case "image", "image_url", "input_image", "document", "file", "input_file", "input_audio",
      "video":
      addMedia(node)
    case _ where speaker == .assistant && isCall(node): addCall(node)
    case "" where speaker != .assistant && namesCall(node): addBlockFields(node, .result)
    default: addBlockFields(node, kind)
    }
  }

  private mutating func addBlockFields(_ node: Int, _ kind: RequestPiece.Kind) {
    let members = document.members(node).map {
      (order: order(document.text($0.key), $0.value), key: $0.key, value: $0.value)
    }
    for (_, key, value) in members.sorted(by: { $0.order < $1.order }) {
      let name = document.text(key)
      if name == "cache_control" { noteBreakPoint(name, value) }
      guard !RequestFields.kinds.contains(name), !RequestFields.ignoredInMessages.contains(name),
        name != "id", isFilled(value) || document.kind(value) == .number
      else { continue }
      switch name {
      case "tool_use_id", "tool_call_id", "call_id", "toolUseId": addPiece(.callID, value)
      case "inlineData", "inline_data", "fileData", "source", "image_url": addMedia(value)
      case "functionCall", "toolUse": addCall(value)
      case "functionResponse", "toolResult": addContent(value, .result)
      case _ where RequestFields.reasoning.contains(name): addContent(value, .reasoning)
      case _ where document.kind(value) == .string && callIDs.contains(idHash(value)):
        addPiece(.callID, value)
      default: addContent(value, kind)
      }
    }
  }
}
