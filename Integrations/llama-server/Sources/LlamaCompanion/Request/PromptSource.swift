/// What a request asks the server to complete, as far as it can be told before.
enum PromptSource: Sendable {
  /// Messages for the server's own template.
  case messages(body: [UInt8])
  /// Text, as the JSON string that it was.
  case text([UInt8])
  case tokens([Int32])

  var hasText: Bool {
    if case .tokens = self { return false }
    return true
  }
}
