/// The hosted interface's messages, as the server turns them into its template's.
///
/// A guess at worst: what is restored is compared with the request's real tokens by the server, and its count with ours.
enum AnthropicMessages {
  /// The same conversation as `/apply-template` takes it; nil for media and for what is no conversation.
  ///
  /// - Parameters:
  ///   - body: of the request.
  ///   - place: behind which block it ends; nil = it is whole.
  static func converted(_ body: JSON, endingAt place: CacheBreakPoint.Place? = nil) -> [UInt8]? {
    guard let all = body["messages"], all.isArray else { return nil }
    var messages: [String] = []
    var toolLimit = Int.max
    var systemLimit: Int? = Int.max
    var list = all.elements
    var blockLimit = Int.max
    switch place {
    case nil: break
    case .tool(let index):
      toolLimit = index + 1
      systemLimit = nil
      list = []
    case .system(let index):
      systemLimit = index + 1
      list = []
    case .message(let index, let block):
      list = Array(list.prefix(index + 1))
      blockLimit = block + 1
    }
    if let systemLimit, let system = body["system"], !system.isNull {
      var text = ""
      if let whole = system.string {
        text = withoutStamp(whole)
      } else {
        for block in system.elements.prefix(systemLimit) where block["type"]?.string == "text" {
          text += withoutStamp(block["text"]?.string ?? "")
        }
      }
      messages.append("{\"role\":\"system\",\"content\":\(JSON.quoted(text))}")
    }
    for (index, message) in list.enumerated() {
      let limit = index == list.count - 1 ? blockLimit : Int.max
      guard let made = converted(message: message, blockLimit: limit) else { return nil }
      messages += made
    }
    // Templates want someone to speak; what this one says is where the prompts part.
    if list.isEmpty, place != nil { messages.append("{\"role\":\"user\",\"content\":\"\\u2063\"}") }
    var members = ["\"messages\":[\(messages.joined(separator: ","))]"]
    if let tools = body["tools"], tools.isArray {
      let made = tools.elements.prefix(toolLimit).map(converted(tool:))
      members.append("\"tools\":[\(made.joined(separator: ","))]")
    }
    switch body["tool_choice"]?["type"]?.string {
    case "auto": members.append("\"tool_choice\":\"auto\"")
    case "any", "tool": members.append("\"tool_choice\":\"required\"")
    default: break
    }
    if let thinking = body["thinking"], thinking["type"]?.string == "enabled" {
      let budget = thinking["budget_tokens"]?.text ?? "10000"
      members.append("\"thinking_budget_tokens\":\(budget)")
    }
    if let arguments = body["chat_template_kwargs"] {
      members.append("\"chat_template_kwargs\":\(arguments.text)")
    }
    if place != nil { members.append("\"add_generation_prompt\":false") }
    return Array("{\(members.joined(separator: ","))}".utf8)
  }

  private static func converted(tool: JSON) -> String {
    let name = JSON.quoted(tool["name"]?.string ?? "")
    let description = JSON.quoted(tool["description"]?.string ?? "")
    let schema = tool["input_schema"]?.text ?? "{}"
    return """
      {"type":"function","function":{"name":\(name),"description":\(description),"parameters":\(schema)}}
      """
  }

  private static func converted(message: JSON, blockLimit: Int) -> [String]? {
    let role = message["role"]?.string ?? ""
    guard let content = message["content"] else {
      return role == "assistant" ? [] : [message.text]
    }
    guard content.isArray else { return [message.text] }
    var texts: [String] = []
    var calls: [String] = []
    var results: [String] = []
    var reasoning = ""
    for block in content.elements.prefix(blockLimit) {
      switch block["type"]?.string {
      case "text":
        texts.append("{\"type\":\"text\",\"text\":\(block["text"]?.text ?? "\"\"")}")
      case "thinking": reasoning += block["thinking"]?.string ?? ""
      case "image": return nil
      case "tool_use":
        let id = JSON.quoted(block["id"]?.string ?? "")
        let name = JSON.quoted(block["name"]?.string ?? "")
        let arguments = JSON.quoted(block["input"]?.compact ?? "{}")
        calls.append(
          "{\"id\":\(id),\"type\":\"function\",\"function\":{\"name\":\(name),\"arguments\":\(arguments)}}"
        )
      case "tool_result":
        guard let text = text(ofResult: block["content"]) else { return nil }
        let id = JSON.quoted(block["tool_use_id"]?.string ?? "")
        results.append(
          "{\"role\":\"tool\",\"tool_call_id\":\(id),\"content\":\(JSON.quoted(text))}"
        )
      default: continue
      }
    }
    var made: [String] = []
    if !texts.isEmpty || !calls.isEmpty || !reasoning.isEmpty {
      var members = ["\"role\":\(JSON.quoted(role))"]
      members.append(
        "\"content\":" + (texts.isEmpty ? "\"\"" : "[\(texts.joined(separator: ","))]")
      )
      if !calls.isEmpty { members.append("\"tool_calls\":[\(calls.joined(separator: ","))]") }
      if !reasoning.isEmpty { members.append("\"reasoning_content\":\(JSON.quoted(reasoning))") }
      made.append("{\(members.joined(separator: ","))}")
    }
    return made + results
  }

  /// Of a tool's result; nil where an image is in it.
  private static func text(ofResult content: JSON?) -> String? {
    guard let content else { return "" }
    if let text = content.string { return text }
    var result = ""
    for part in content.elements {
      switch part["type"]?.string {
      case "text": result += part["text"]?.string ?? ""
      case "image": return nil
      default: continue
      }
    }
    return result
  }

  /// One client begins its system prompt with a stamp that is another one each time; the server blots it out, so that prompts stay alike.
  private static func withoutStamp(_ text: String) -> String {
    let head = "x-anthropic-billing-header:"
    guard text.hasPrefix(head) else { return text }
    var bytes = Array(text.utf8)
    let mark = Array("cch=".utf8)
    guard
      let at = (head.utf8.count..<max(head.utf8.count, bytes.count - 9)).first(where: {
        bytes[$0..<$0 + 4].elementsEqual(mark)
      }), bytes[at + 9] == UInt8(ascii: ";")
    else { return text }
    for index in at + 4..<at + 9 { bytes[index] = UInt8(ascii: "f") }
    return String(decoding: bytes, as: UTF8.self)
  }
}
