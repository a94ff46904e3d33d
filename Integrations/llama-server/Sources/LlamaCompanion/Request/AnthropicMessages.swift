/// The hosted interface's messages.
enum Anthropic {
  /// The same conversation as the server's own template takes it; nil for what the server turns into something that we do not know.
  ///
  /// A guess at worst: what is restored is compared with the request's real tokens by the server.
  static func converted(_ body: JSON) -> [UInt8]? {
    guard let messages = body["messages"], messages.isArray else { return nil }
    if let tools = body["tools"], !tools.elements.isEmpty { return nil }
    if body["thinking"] != nil { return nil }
    var list: [String] = []
    func text(_ content: JSON?) -> String? {
      guard let content else { return nil }
      if let text = content.string { return text }
      var result = ""
      for part in content.elements {
        guard part["type"]?.string == "text", let text = part["text"]?.string else { return nil }
        result += text
      }
      return content.isArray ? result : nil
    }
    if let system = body["system"], !system.isNull {
      guard let text = text(system) else { return nil }
      list.append("{\"role\":\"system\",\"content\":\(JSON.quoted(text))}")
    }
    for message in messages.elements {
      guard let role = message["role"]?.string, let text = text(message["content"]) else {
        return nil
      }
      list.append("{\"role\":\(JSON.quoted(role)),\"content\":\(JSON.quoted(text))}")
    }
    return Array("{\"messages\":[\(list.joined(separator: ","))]}".utf8)
  }
}
