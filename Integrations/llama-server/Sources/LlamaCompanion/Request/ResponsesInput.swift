/// `/v1/responses`, as the server turns it into its template's messages.
enum ResponsesInput {
  /// The same conversation as `/apply-template` takes it; nil for media and for what the server refuses.
  static func converted(_ body: JSON) -> [UInt8]? {
    if let previous = body["previous_response_id"]?.string, !previous.isEmpty { return nil }
    guard let input = body["input"] else { return nil }
    var messages: [Message] = []
    if let instructions = body["instructions"] {
      messages.append(Message(role: "system", content: JSON.quoted(instructions.string ?? "")))
    }
    if input.isString {
      messages.append(Message(role: "user", content: input.text))
    } else {
      guard input.isArray else { return nil }
      for item in input.elements { guard add(item, to: &messages) else { return nil } }
    }
    var members = ["\"messages\":[\(messages.map(\.text).joined(separator: ","))]"]
    if let tools = body["tools"] {
      guard tools.isArray else { return nil }
      let made = tools.elements.filter { $0["type"]?.string == "function" }.map(converted(tool:))
      if !made.isEmpty { members.append("\"tools\":[\(made.joined(separator: ","))]") }
    }
    for name in ["tool_choice", "chat_template_kwargs", "parallel_tool_calls", "response_format"] {
      if let value = body[name] { members.append("\"\(name)\":\(value.text)") }
    }
    if let effort = body["reasoning"]?["effort"] {
      members.append("\"reasoning_effort\":\(effort.text)")
    }
    return Array("{\(members.joined(separator: ","))}".utf8)
  }

  private struct Message {
    var role: String
    /// As JSON; nil where there is none.
    var content: String?
    var parts: [String] = []
    var calls: [String] = []
    var reasoning: String?
    /// Of a tool's result.
    var callID: String?

    init(role: String, content: String? = nil) {
      self.role = role
      self.content = content
    }

    var text: String {
      var members = ["\"role\":\(JSON.quoted(role))"]
      if !parts.isEmpty {
        members.append("\"content\":[\(parts.joined(separator: ","))]")
      } else if let content {
        members.append("\"content\":\(content)")
      }
      if let callID { members.append("\"tool_call_id\":\(callID)") }
      if !calls.isEmpty { members.append("\"tool_calls\":[\(calls.joined(separator: ","))]") }
      if let reasoning { members.append("\"reasoning_content\":\(reasoning)") }
      return "{\(members.joined(separator: ","))}"
    }
  }

  private static func add(_ item: JSON, to messages: inout [Message]) -> Bool {
    let role = item["role"]?.string
    let type = item["type"]?.string
    let goesOn = messages.last?.role == "assistant"
    if let content = item["content"], let role, ["user", "system", "developer"].contains(role),
      content.isString || content.isArray
    {
      guard let parts = parts(content, ["input_text"]) else { return false }
      var message = Message(role: role, content: "[]")
      message.parts = parts
      messages.append(message)
      return true
    }
    if role == "assistant", type == "message" {
      guard let parts = parts(item["content"], ["output_text", "input_text"]) else { return false }
      if goesOn {
        messages[messages.count - 1].parts += parts
      } else {
        var message = Message(role: "assistant", content: "[]")
        message.parts = parts
        messages.append(message)
      }
      return true
    }
    switch type {
    case "function_call":
      guard let arguments = item["arguments"], arguments.isString, let id = item["call_id"],
        id.isString, let name = item["name"], name.isString
      else { return false }
      let call = """
        {"function":{"arguments":\(arguments.text),"name":\(name.text)},"id":\(id.text),"type":"function"}
        """
      if !goesOn { messages.append(Message(role: "assistant")) }
      messages[messages.count - 1].calls.append(call)
      return true
    case "function_call_output":
      guard let id = item["call_id"], id.isString, let output = item["output"] else { return false }
      var message = Message(role: "tool", content: output.isString ? output.text : "[]")
      message.callID = id.text
      if !output.isString {
        guard output.isArray, let parts = parts(output, ["input_text"]) else { return false }
        message.parts = parts
      }
      messages.append(message)
      return true
    case "reasoning":
      guard let text = item["content"]?.elements.first?["text"], text.isString else {
        return false
      }
      if !goesOn { messages.append(Message(role: "assistant", content: "[]")) }
      messages[messages.count - 1].reasoning = text.text
      return true
    default: return false
    }
  }

  private static func parts(_ content: JSON?, _ kinds: Set<String>) -> [String]? {
    guard let content else { return [] }
    func part(_ text: String) -> String { "{\"text\":\(text),\"type\":\"text\"}" }
    if content.isString { return [part(content.text)] }
    var result: [String] = []
    for element in content.elements {
      guard let type = element["type"]?.string, kinds.contains(type), let text = element["text"]
      else { return nil }
      result.append(part(text.text))
    }
    return result
  }

  private static func converted(tool: JSON) -> String {
    var members: [String] = []
    tool.forEachMember { name, value in
      if name != "type" { members.append("\(JSON.quoted(name)):\(value.text)") }
    }
    if tool["strict"] == nil { members.append("\"strict\":true") }
    return "{\"type\":\"function\",\"function\":{\(members.joined(separator: ","))}}"
  }
}
