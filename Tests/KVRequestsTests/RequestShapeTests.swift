import KVRequests
import Testing

/// Requests of other makes, in other scripts: what they are is told by their shape.
@Suite struct RequestShapeTests {
  private func changes(_ before: String, _ now: String) throws -> [RequestChange] {
    let (a, b) = (
      try PromptRequest(json: Array(before.utf8)), try PromptRequest(json: Array(now.utf8))
    )
    return RequestComparison(from: a, to: b).changes
  }

  private func kinds(_ before: String, _ now: String) throws -> [RequestChange.Kind] {
    try changes(before, now).map(\.kind)
  }

  private static let question = "Where is the parser, and who calls it from the other side?"

  private func chat(_ system: String, _ more: String = "") -> String {
    """
    {"messages":[{"role":"system","content":"\(system)"},\
    {"role":"user","content":"\(Self.question)"}\(more)]}
    """
  }

  @Test func theMarkThatAsksForAnAnswerIsNoPartOfThePrompt() throws {
    let first = "<|im_start|>user\\nhello<|im_end|>\\n<|im_start|>assistant\\n"
    let second =
      first + "Hi.<|im_end|>\\n<|im_start|>tool\\n17<|im_end|>\\n<|im_start|>assistant\\n"
    let (a, b) = (
      try PromptRequest(json: Array("{\"prompt\":\"\(first)\"}".utf8)),
      try PromptRequest(json: Array("{\"prompt\":\"\(second)\"}".utf8))
    )
    #expect(RequestComparison(from: a, to: b).relation == .appended)
  }

  @Test func textWithoutBlanksIsNoValue() throws {
    let before = chat("集装箱清单放行审计，航线船舶起重机泊位延误罚款合同客户。请只用一句话回答。")
    let now = chat("集装箱清单放行关税，航线船舶起重机泊位延误罚款合同客户。请只用一句话回答。")
    let change = try #require(try changes(before, now).first)
    #expect(change.kind == .edited)
    #expect(change.now == "关税" && change.was == "审计")
    let dates = try changes(
      chat("今天是 2026年11月28日，请只用一句话回答，并写明文件名。"),
      chat("今天是 2026年11月29日，请只用一句话回答，并写明文件名。")
    )
    #expect(dates.map(\.kind) == [.volatileValue] && dates.first?.shape == .date)
    #expect(dates.first?.now == "2026年11月29日")
  }

  @Test func monthsAndDaysOfOtherLanguages() throws {
    for (before, now) in [
      ("28. November 2026, 21:48 Uhr", "29. November 2026, 8:12 Uhr"), ("mardi", "mercredi"),
      ("28 ноября 2026 г.", "29 ноября 2026 г."), ("187,402 tokens", "186,007 tokens"),
      ("pid=4711", "pid=6203"),
    ] {
      let found = try kinds(
        chat("State: \(before). Answer briefly."),
        chat("State: \(now). Answer briefly.")
      )
      #expect(found == [.volatileValue], "\(now)")
    }
  }

  @Test func otherLineBreaksAreWhiteSpaceAndSwappedRulesAreReordered() throws {
    let rules = ["1. Name the file.", "2. Be brief and kind.", "3. Never guess at all."]
    let text = "Rules of the house:\\n\\n" + rules.joined(separator: "\\n") + "\\n\\nThat is all."
    let broken = text.replacing("\\n", with: "\\r\\n")
    #expect(Set(try kinds(chat(text), chat(broken))) == [.whiteSpace])
    let swapped = text.replacing("Name the file", with: "X")
      .replacing("Be brief and kind", with: "Name the file").replacing(
        "X",
        with: "Be brief and kind"
      )
    #expect(try kinds(chat(text), chat(swapped)) == [.reordered])
  }

  @Test func aCallsIDCountsOnce() throws {
    func call(_ id: String) -> String {
      """
      ,{"role":"assistant","content":"I look.","tool_calls":[{"id":"\(id)","type":"function",\
      "function":{"name":"read","arguments":"{}"}}]},\
      {"role":"tool","tool_call_id":"\(id)","content":"It is in src/parser.c, called by main."},\
      {"role":"assistant","content":"The parser is in src/parser.c, and main calls it once."},\
      {"role":"user","content":"Then look at the lexer, too, and tell me what it does."}
      """
    }
    let found = try changes(
      chat("Be brief.", call("call_a1b2c3")),
      chat("Be brief.", call("call_d4e5f6"))
    )
    #expect(found.map(\.kind) == [.volatileValue])
    #expect(found.first?.path == "messages[2].tool_calls[0].id")
  }

  @Test func resultsAreResultsWhateverTheyAreWrappedIn() throws {
    func converse(_ result: String, _ model: String = "m-9b", tools: String = "read,write")
      -> String
    {
      let list = tools.split(separator: ",").map { name in
        """
        {"toolSpec":{"name":"\(name)","description":"About \(name).","inputSchema":{"json":{"type":"object"}}}}
        """
      }
      return """
        {"modelId":"\(model)","system":[{"text":"Be brief and kind to everyone."}],\
        "toolConfig":{"tools":[\(list.joined(separator: ","))]},"messages":[\
        {"role":"user","content":[{"text":"\(Self.question)"}]},\
        {"role":"assistant","content":[{"toolUse":{"toolUseId":"tu_8a7","name":"read","input":{"path":"a","limit":3}}}]},\
        {"role":"user","content":[{"toolResult":{"toolUseId":"tu_8a7","content":[{"text":"\(result)"}]}}]},\
        {"role":"assistant","content":[{"text":"It is in the file that you named before."}]},\
        {"role":"user","content":[{"text":"And now the lexer, please, in the same way."}]}]}
        """
    }
    let page =
      "<html><p>The parser is in src, and main calls it from the other side of the queue.</p></html>"
    #expect(try kinds(converse(page), converse("")) == [.toolResultRemoved])
    #expect(try kinds(converse(page), converse("[entfernt]")) == [.toolResultRemoved])
    #expect(try kinds(converse(page), converse(page, "m-70b")) == [.modelSwitched])
    #expect(try kinds(converse(page), converse(page, tools: "write,read")) == [.toolsReordered])
    #expect(try kinds(converse(page), converse(page, tools: "read,write,ask")) == [.toolsAdded])
    let reordered = converse(page).replacing(
      "\"path\":\"a\",\"limit\":3",
      with: "\"limit\":3,\"path\":\"a\""
    )
    #expect(try kinds(converse(page), reordered) == [.keyOrder])
  }

  @Test func aMovedFileIsAnAttachmentAndAMovedNoteIsNone() throws {
    let lines = (1...40).map { "line \($0) of the table" }.joined(separator: "\\n")
    for (tag, kind) in [
      ("document path=\\\"a.csv\\\"", RequestChange.Kind.attachedAgain),
      ("system-reminder", .reminderMoved),
    ] {
      let part = "<\(tag)>\\n\(lines)\\n</\(tag.split(separator: " ")[0])>"
      let answer =
        ",{\"role\":\"assistant\",\"content\":\"I have read all of it, and it is fine.\"}"
      let before =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\(part)\\n\\n\(Self.question)\"}\(answer)]}"
      let now =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\(Self.question)\"}\(answer),"
        + "{\"role\":\"user\",\"content\":\"\(part)\\n\\nAnd the lexer?\"}]}"
      #expect(try kinds(before, now) == [kind], "\(tag)")
    }
  }

  @Test func equalMessagesAtTheEndAreAppended() throws {
    let more = """
      ,{"role":"assistant","content":"Done."},{"role":"user","content":"Go on."}
      """
    let found = try changes(
      chat("It is 21:48. Be brief, and name the file.", more),
      chat("It is 21:49. Be brief, and name the file.", more + more)
    )
    #expect(found.map(\.kind) == [.volatileValue])
  }

  /// Gemini's results without ids, side by side, each replaced by a few letters.
  @Test func resultsThatAreClearedSideBySide() throws {
    func body(_ results: [String]) -> String {
      let calls = results.indices.map {
        "{\"functionCall\":{\"name\":\"read\",\"args\":{\"path\":\"file \($0)\"}}}"
      }
      let answers = results.map {
        """
        ,{"role":"user","parts":[{"functionResponse":{"name":"read","response":{"result":"\($0)"}}}]}
        """
      }
      return """
        {"contents":[{"role":"user","parts":[{"text":"\(Self.question)"}]},\
        {"role":"model","parts":[\(calls.joined(separator: ","))]}\(answers.joined()),\
        {"role":"model","parts":[{"text":"Both were read, and nothing is wrong with them."}]},\
        {"role":"user","parts":[{"text":"Then go on with the next two files, please."}]}]}
        """
    }
    let long = [
      "The first file has forty lines of code in it.", "<html><p>Another one.</p></html>",
    ]
    let found = try changes(body(long), body(["[cleared]", "[cleared]"]))
    #expect(found.map(\.kind) == [.toolResultRemoved, .toolResultRemoved])
    #expect(
      found.map(\.path)
        == (2...3).map { "contents[\($0)].parts[0].functionResponse.response.result" }
    )
  }

  /// Objects of classes as tracing writes them, and lists of messages under the name of a prompt.
  @Test func messagesInObjectsOfClassesAndInAPrompt() throws {
    func classes(_ result: String) -> String {
      func message(_ name: String, _ fields: String) -> String {
        """
        {"lc":1,"type":"constructor","id":["langchain","schema","messages","\(name)Message"],\
        "kwargs":{\(fields)}}
        """
      }
      let messages = [
        message("Human", "\"type\":\"human\",\"content\":\"\(Self.question)\""),
        message("AI", "\"type\":\"ai\",\"content\":\"I will read it.\""),
        message("Tool", "\"type\":\"tool\",\"content\":\"\(result)\""),
        message("AI", "\"type\":\"ai\",\"content\":\"It stands in the second file.\""),
        message("Human", "\"type\":\"human\",\"content\":\"Then read the next file, too.\""),
      ]
      return "{\"messages\":[\(messages.joined(separator: ","))]}"
    }
    let long = "The second file has forty lines of code, and main calls it from the queue."
    let gone = try changes(classes(long), classes("[gone]"))
    #expect(gone.map(\.kind) == [.toolResultRemoved])
    #expect(gone.first?.path == "messages[2].kwargs.content")

    func prompt(_ result: String) throws -> PromptRequest {
      let text = """
        {"prompt":[{"role":"system","content":"Be brief, and name the file."},\
        {"role":"user","content":[{"type":"text","text":"\(Self.question)"}]},\
        {"role":"tool","content":[{"type":"tool-result","toolCallId":"c1","toolName":"read",\
        "output":{"type":"text","value":"\(result)"}}]},\
        {"role":"assistant","content":[{"type":"text","text":"It stands in the second file."}]}]}
        """
      return try PromptRequest(json: Array(text.utf8))
    }
    #expect(
      try prompt(long).parts.map(\.role) == [.system, .user, .toolResult, .assistant]
    )
    let change = RequestComparison(from: try prompt(long), to: try prompt("[gone]")).changes.first
    #expect(change?.kind == .toolResultRemoved)
    #expect(change?.path == "prompt[2].content[0].output.value")
  }

  /// What a framework answers to each wrong call is the user's message before, once more, and no attachment.
  @Test func anErrorThatIsSaidAgainIsNoAttachment() throws {
    let error = (1...20).map { "line \($0) of what is wrong with it" }.joined(separator: "\\n")
    let wrong = """
      ,{"role":"assistant","content":"print(17"},{"role":"user","content":"\(error)"}
      """
    let again = """
      ,{"role":"assistant","content":"print(18"},\
      {"role":"user","content":"\(error)\\nNow answer without code."}
      """
    #expect(try kinds(chat("Be brief.", wrong), chat("Be brief.", wrong + again)).isEmpty)
    let file = """
      ,{"role":"assistant","content":"Yes?"},{"role":"user","content":"See:\\n\(error)"}
      """
    let more = """
      ,{"role":"assistant","content":"Yes?"},{"role":"user","content":"Look again:\\n\(error)"}
      """
    #expect(
      try kinds(chat("Be brief.", file), chat("Be brief.", file + more)) == [.attachedAgain]
    )
  }

  @Test func textsThatAreEmbeddedAreNoRequest() throws {
    for input in [#"["one text","another"]"#, "[1,2,3]", "[[1,2],[3]]"] {
      let body = #"{"model":"embedder","input":\#(input)}"#
      #expect(try LoggedRequest.inRecord(Array(body.utf8)) == nil)
    }
    #expect(try LoggedRequest.inRecord(Array(#"{"model":"m","input":"one"}"#.utf8)) != nil)
  }

  @Test func aShortTextThatWasCutIsCut() throws {
    let more = """
      ,{"role":"assistant","content":"Yes."},{"role":"user","content":"Go on, and look at the file."}\
      ,{"role":"assistant","content":"There is nothing in it that would be wrong."}
      """
    for mark in ["\u{2026}", "... [truncated]"] {
      let cut = more.replacing("look at the file.", with: "lo\(mark)")
      #expect(try kinds(chat("Be brief.", more), chat("Be brief.", cut)) == [.truncated], "\(mark)")
    }
  }
}
