import KVRequests
import Testing

/// A chat that people write by hand, and what they do to it.
@Suite struct RequestComparisonTests {
  static let system = """
    You are a careful assistant for a project. The time is 2026-11-29 21:48. Follow the rules:
    - be brief
    - be kind
    - cite files

    """
  static let messages = [
    ("user", "Please find the bug in parser.c, it crashes on empty input."),
    ("assistant", "I looked at parser.c and the loop reads before it checks the length."),
    ("user", "Then fix it and add a test."),
    ("assistant", "Done, the test covers the empty input."),
  ]

  static func request(
    _ system: String = Self.system,
    _ messages: [(String, String)] = Self.messages,
    fields: String = ""
  ) throws -> PromptRequest {
    var text = "{\(fields)\"messages\":[{\"role\":\"system\",\"content\":\(quoted(system))}"
    for (role, content) in messages {
      text += ",{\"content\":\(quoted(content)),\"role\":\"\(role)\"}"
    }
    return try PromptRequest(json: Array((text + "]}").utf8))
  }

  static func quoted(_ text: String) -> String {
    let escaped = text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"")
    return "\"\(escaped.replacing("\n", with: "\\n"))\""
  }

  private func only(_ comparison: RequestComparison) throws -> RequestChange {
    #expect(comparison.relation == .changed)
    return try #require(comparison.changes.count == 1 ? comparison.changes.first : nil)
  }

  @Test func appendsForksAndRetriesAreNoChanges() throws {
    let first = try Self.request()
    let cases: [([(String, String)], RequestComparison.Relation)] = [
      (Self.messages, .same),
      (Self.messages + [("user", "Thanks. Now the lexer.")], .appended),
      (Array(Self.messages.prefix(1)), .shortened),
      (Array(Self.messages.prefix(2)) + [("user", "Leave it, and tell me about lunch.")], .forked),
    ]
    for (messages, relation) in cases {
      let comparison = RequestComparison(from: first, to: try Self.request(Self.system, messages))
      #expect(comparison.relation == relation)
      #expect(comparison.changes.isEmpty)
    }
  }

  /// Few words make all answers alike; of two that were computed anew neither is the other, changed.
  @Test func anotherAnswerToOneQuestionIsNoChange() throws {
    func request(_ answer: String, _ question: String) throws -> PromptRequest {
      try Self.request(
        Self.system,
        [("user", "Where is the parser?"), ("assistant", answer), ("user", question)]
      )
    }
    let first = try request(
      """
      lantern anchor feather velvet velvet garden candle garden barrel velvet barrel barrel walnut \
      marble velvet violin garden barrel saddle kettle.
      """,
      "Write the tests, please."
    )
    let other = try request(
      """
      feather marble marble anchor velvet velvet saddle pepper barrel candle pepper velvet violin \
      anchor garden kettle granite saddle saddle saddle.
      """,
      "Which of the queues has it?"
    )
    let comparison = RequestComparison(from: first, to: other)
    #expect(comparison.relation == .forked)
    #expect(comparison.changes.isEmpty)
  }

  @Test func aTimeInTheSystemPrompt() throws {
    let later = Self.system.replacing("21:48", with: "21:49")
    let change = try only(RequestComparison(from: Self.request(), to: Self.request(later)))
    #expect(change.kind == .volatileValue && change.shape == .time)
    #expect(change.path == "messages[0].content")
    #expect(change.now == "2026-11-29 21:49" && change.was == "2026-11-29 21:48")
    #expect(change.start == 55 && change.end == 71)
  }

  @Test func anEditedMessage() throws {
    var messages = Self.messages
    messages[0].1 = messages[0].1.replacing("parser.c", with: "lexer.c")
    let change = try only(
      RequestComparison(from: Self.request(), to: Self.request(Self.system, messages))
    )
    #expect(change.kind == .edited)
    #expect(change.path == "messages[1].content")
    #expect(change.now == "lexer.c" && change.was == "parser.c")
  }

  @Test func toolsThatComeGoAndChangePlaces() throws {
    func tools(_ list: [String]) -> String {
      let tools = list.map {
        "{\"type\":\"function\",\"function\":{\"name\":\"\($0)\",\"description\":\"About \($0)\"}}"
      }
      return "\"tools\":[\(tools.joined(separator: ","))],"
    }
    let first = try Self.request(fields: tools(["read", "write", "run"]))
    let cases: [([String], RequestChange.Kind, String)] = [
      (["read", "run", "write"], .toolsReordered, "tools[1]"),
      (["read", "write", "run", "ask"], .toolsAdded, "tools[3]"),
      (["read", "run"], .toolsRemoved, "tools[1]"),
    ]
    for (list, kind, path) in cases {
      let change = try only(
        RequestComparison(from: first, to: Self.request(fields: tools(list)))
      )
      #expect(change.kind == kind)
      #expect(change.path == path)
    }
  }

  @Test func whatReachesNoPromptIsNoChange() throws {
    let first = try Self.request(fields: "\"temperature\":0.1,\"user\":\"a\",")
    let second = try Self.request(fields: "\"stream\":true,\"temperature\":0.9,")
    #expect(RequestComparison(from: first, to: second).relation == .same)
  }
}
