import KVRequests
import Testing

/// Prompts that are one text: whatever the template, its marks are told by their form.
@Suite struct TextPromptTests {
  private func request(_ prompt: String) throws -> PromptRequest {
    let quoted = RequestComparisonTests.quoted(prompt)
    return try PromptRequest(json: Array("{\"prompt\":\(quoted)}".utf8))
  }

  private func kinds(_ before: String, _ now: String) throws -> [RequestChange.Kind] {
    RequestComparison(from: try request(before), to: try request(now)).changes.map(\.kind)
  }

  private static let said = ["Be brief.", "Where is the lexer?", "In src.", "lexer.c", "And why?"]

  @Test(arguments: [
    "<|im_start|>system\nA<|im_end|>\n<|im_start|>user\nB<|im_end|>\n<|im_start|>assistant\nC<|im_end|>\n<|im_start|>tool\nD<|im_end|>\n<|im_start|>user\nE<|im_end|>\n<|im_start|>assistant\n",
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nB<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nC<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\nD<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nE<|eot_id|>",
    "<bos><start_of_turn>system\nA<end_of_turn>\n<start_of_turn>user\nB<end_of_turn>\n<start_of_turn>model\nC<end_of_turn>\n<start_of_turn>tool\nD<end_of_turn>\n<start_of_turn>user\nE<end_of_turn>\n<start_of_turn>model\n",
    "<|start|>system<|message|>A<|end|><|start|>user<|message|>B<|end|><|start|>assistant<|channel|>final<|message|>C<|end|><|start|>functions.read to=assistant<|channel|>commentary<|message|>D<|end|><|start|>user<|message|>E<|end|><|start|>assistant",
    "<|system|>\nA<|user|>\nB<|assistant|>\nC<|observation|>\nD<|user|>\nE<|assistant|>\n",
    "System: A\n\nHuman: B\n\nAssistant: C\n\nFunction: D\n\nHuman: E\n\nAssistant:",
  ])
  func turnsAreKnownByTheFormOfTheirMarks(template: String) throws {
    var prompt = template
    for (letter, text) in zip("ABCDE", Self.said) {
      // Letters of the marks stay.
      for mark in ["\n", ">", " "] {
        for end in ["<", "\n"] {
          prompt = prompt.replacing("\(mark)\(letter)\(end)", with: "\(mark)\(text)\(end)")
        }
      }
    }
    for text in Self.said { #expect(prompt.contains(text), "\(prompt)") }
    let roles = try request(prompt).parts.map(\.role).filter { $0 != .other }
    #expect(Array(roles.suffix(4)) == [.user, .assistant, .toolResult, .user], "\(roles)")
  }

  @Test func marksWithWideBarsAndSquareBrackets() throws {
    let deep =
      "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Where?<｜Assistant｜>There.<｜end▁of▁sentence｜>"
      + "<｜tool▁output▁begin｜>lexer.c<｜tool▁output▁end｜><｜User｜>Why?<｜Assistant｜>"
    #expect(
      try request(deep).parts.map(\.role) == [.system, .user, .assistant, .toolResult, .user]
    )
    let mistral =
      "<s>[INST] Where? [/INST] There.</s>[TOOL_RESULTS] lexer.c [/TOOL_RESULTS]"
      + " It is.</s>[INST] Why? [/INST]"
    #expect(
      try request(mistral).parts.map(\.role)
        == [.user, .assistant, .toolResult, .assistant, .user]
    )
    // What is no mark: tags, lists, sentences of the prompt itself.
    let plain = "Read <page name=\"a\"> and [1] and [TODO] and <|>, x < y > z, a[START] b."
    #expect(try request(plain).parts.count == 1)
  }

  private static let rules = (1...6).map { number in
    "Rule \(number): name the file in which you found it, and its line, before you go on to \(number)."
  }

  private func chat(_ system: String, _ users: [String], more: String = "") -> String {
    var text = "<|im_start|>system\n\(system)<|im_end|>\n"
    for (number, user) in users.enumerated() {
      text +=
        "<|im_start|>user\n\(user)<|im_end|>\n<|im_start|>assistant\n"
        + "Answer \(number) says what there is to say of it, and no more.<|im_end|>\n"
    }
    return text + more
  }

  private static let questions = [
    "Where is the lexer, and what calls it?", "Which tokens does it know, and where are they?",
    "And the parser, what does it do with them?",
  ]

  @Test func paragraphsOfOneTurnAreReorderedAndThoseOfTwoAreNotes() throws {
    let system = Self.rules.joined(separator: "\n\n")
    var swapped = Self.rules
    swapped.swapAt(1, 2)
    let next = "<|im_start|>user\nGo on.<|im_end|>\n"
    #expect(
      try kinds(
        chat(system, Self.questions),
        chat(swapped.joined(separator: "\n\n"), Self.questions, more: next)
      ) == [.reordered]
    )
    let note = "\n\nReminder: the release is on Friday, so leave the files of the release alone."
    var (before, now) = (Self.questions, Self.questions)
    before[0] += note
    now[2] += note
    #expect(try kinds(chat(system, before), chat(system, now, more: next)) == [.reminderMoved])
    let later = "<|im_start|>user\nGo on.\(note)<|im_end|>\n"
    #expect(
      try kinds(chat(system, before), chat(system, Self.questions, more: later))
        == [.reminderMoved]
    )
  }

  @Test func aFileThatWandersIsOneFinding() throws {
    let lines = (1...30).map { "\($0);port of call \($0);arrives" }.joined(separator: "\n")
    let file = "<document path=\"ports.csv\">\n\(lines)\n</document>\n\n"
    var before = Self.questions
    before[1] = file + before[1]
    let later = "<|im_start|>user\n\(file)And now?<|im_end|>\n"
    #expect(
      try kinds(chat("Be brief.", before), chat("Be brief.", Self.questions, more: later))
        == [.attachedAgain]
    )
  }

  @Test func anotherTemplateIsSaid() throws {
    let before = chat("Be brief.", Self.questions)
    let now = before.replacing("<|im_end|>", with: "<|eot|>") + "<|im_start|>user\nGo on.<|eot|>\n"
    let found = try kinds(before, now)
    #expect(!found.isEmpty && found.allSatisfy { $0 == .edited })
  }
}
