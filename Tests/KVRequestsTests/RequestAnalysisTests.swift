import KVRequests
import Testing

/// Logs of several conversations, without ids.
@Suite struct RequestAnalysisTests {
  private typealias Messages = [(String, String)]

  private static let system = String(
    repeating: "Read the file before you change it, and say what you have done. ",
    count: 12
  )

  private func add(
    _ analysis: inout RequestAnalysis,
    _ messages: Messages,
    system: String = Self.system,
    time: Double? = nil,
    line: Int
  ) throws {
    let request = try RequestComparisonTests.request(system, messages)
    let time = time.map { "\"time\":\($0)," } ?? ""
    let record = "{\(time)\"request\":\(String(decoding: request.json, as: UTF8.self))}"
    let logged = try #require(try LoggedRequest.inRecord(Array(record.utf8)))
    analysis.add(logged, line: line)
  }

  private func conversation(_ name: String, steps: Int) -> [Messages] {
    var messages: Messages = [
      ("user", "Task \(name): mend the part of the program that is called \(name).")
    ]
    return (0..<steps).map { step in
      if step > 0 {
        messages.append(("assistant", "Step \(step) of \(name) is done, the tests are green."))
        messages.append(("user", "Then go on with step \(step + 1) of \(name)."))
      }
      return messages
    }
  }

  @Test func interleavedConversationsAreToldApart() throws {
    var analysis = RequestAnalysis()
    let (a, b) = (conversation("parser", steps: 5), conversation("queue", steps: 5))
    for (index, pair) in zip(a, b).enumerated() {
      try add(&analysis, pair.0, line: 2 * index + 1)
      try add(&analysis, pair.1, line: 2 * index + 2)
    }
    let report = analysis.finish()
    #expect(report.conversations.map(\.steps.count) == [5, 5])
    #expect(report.findings.isEmpty)
    #expect(report.hitRate > 0.8)
  }

  @Test func aForkSharesItsFrontAndCostsNothing() throws {
    var analysis = RequestAnalysis()
    let run = conversation("parser", steps: 4)
    for (index, messages) in run.enumerated() { try add(&analysis, messages, line: index + 1) }
    try add(&analysis, run[1] + [("assistant", "No."), ("user", "Leave it then.")], line: 5)
    let report = analysis.finish()
    #expect(report.findings.isEmpty)
    #expect(report.conversations.count == 2)
  }

  /// An edit counts once: what the edited conversation goes on with is found again.
  @Test func anEditCostsWhatLiesBehindItOnce() throws {
    var analysis = RequestAnalysis()
    var run = conversation("parser", steps: 6)
    for (index, messages) in run.prefix(4).enumerated() {
      try add(&analysis, messages, line: index + 1)
    }
    for index in 4..<6 { run[index][0].1 += " Be quick about it." }
    try add(&analysis, run[4], line: 5)
    try add(&analysis, run[5], line: 6)
    let report = analysis.finish()
    let finding = try #require(report.findings.first)
    #expect(report.findings.count == 1)
    #expect(finding.line == 5 && finding.previousLine == 4 && finding.change.kind == .edited)
    #expect(report.conversations.count == 1)
    #expect(report.lostTokenCount == finding.change.tokensLost)
  }

  /// What one client sends in two forms by turns is found from the second time on.
  @Test func aFormThatComesBackIsFound() throws {
    var analysis = RequestAnalysis()
    let other = Self.system.replacing("Read the file", with: "Look at the file", maxReplacements: 1)
    for (index, messages) in conversation("parser", steps: 6).enumerated() {
      try add(
        &analysis,
        messages,
        system: index % 2 == 0 ? Self.system : other,
        line: index + 1
      )
    }
    let report = analysis.finish()
    // The first time costs the whole conversation; after that only what the other form has not seen.
    let costs = report.findings.map(\.change.tokensLost)
    #expect(costs.first ?? 0 > 100)
    #expect(costs.dropFirst().allSatisfy { $0 * 2 < costs[0] }, "\(costs)")
  }

  @Test func pausesAreMeasuredAgainstTheTimeToLive() throws {
    for (life, count) in [(Double?.none, 0), (3_600, 0), (300, 3)] {
      var analysis = RequestAnalysis(options: .init(timeToLiveSeconds: life))
      for (index, messages) in conversation("parser", steps: 4).enumerated() {
        try add(&analysis, messages, time: 1e6 + Double(index) * 600, line: index + 1)
      }
      let report = analysis.finish()
      #expect(report.findings.count { $0.change.kind == .resumedAfterPause } == count)
      #expect(report.conversations.first?.longestPause == 600)
    }
  }

  /// Where memory is bounded, conversations that were not used for long are no longer compared, and that is said.
  @Test func whatIsKeptIsBounded() throws {
    var options = RequestAnalysis.Options()
    options.keptByteCountMax = 20_000
    var analysis = RequestAnalysis(options: options)
    for index in 0..<40 {
      try add(&analysis, conversation("part \(index)", steps: 1)[0], line: index + 1)
    }
    let report = analysis.finish()
    #expect(report.forgottenConversationCount > 20)
    #expect(report.findings.isEmpty)
  }

  /// Tokens that a server counted: those of the earlier request, behind the first that differs.
  @Test func tokensThatATokenizerCounted() {
    let front: [UInt32] = Array(0..<50)
    let tail: [UInt32] = Array(100..<200)
    #expect(TokenCounts.lost(previous: front + tail, next: front + tail + [1, 2]) == 0)
    #expect(
      TokenCounts.lost(previous: front + [7] + tail, next: front + [8, 9] + tail + [5]) == 100
    )
    #expect(TokenCounts.lost(previous: front + tail, next: front + [300, 301, 302]) == 0)
    #expect(TokenCounts.shared(10, as: [1, 3]) == [2, 8])
    #expect(TokenCounts.shared(10, as: [0, 0]) == [0, 0])
  }

  /// Of a history that only the server has nothing is known; what comes before it is compared all the same.
  @Test func instructionsBeforeAHistoryThatOnlyTheServerHas() throws {
    var analysis = RequestAnalysis()
    for step in 0..<3 {
      let text = """
        {"model":"m","previous_response_id":"resp_\(step)","input":"question \(step)",\
        "instructions":"It is 21:4\(step). \(Self.system)"}
        """
      let logged = try #require(try LoggedRequest.inRecord(Array(text.utf8)))
      analysis.add(logged, line: step + 1)
    }
    let report = analysis.finish()
    #expect(report.hiddenHistoryCount == 3)
    #expect(report.findings.map(\.change.kind) == [.volatileValue, .volatileValue])
    #expect(report.findings.allSatisfy { $0.change.path == "instructions" })
  }

  /// Two agents whose rules have a frame in common: neither is an edit of the other.
  @Test func otherRulesInTheSameFrameAreNoEdit() throws {
    func rules(_ seed: Int) -> String {
      let verb = ["Read", "Write", "Ask"][seed % 3]
      let lines = (0..<12).map { "- \(verb) what \(seed * 100 + $0) says of \($0 * seed)." }
      return "You are a careful agent.\n\(lines.joined(separator: "\n"))\nCall one tool at a time."
    }
    var analysis = RequestAnalysis()
    for seed in 1...3 {
      let text = conversation("agent \(seed)", steps: 1)[0]
      try add(&analysis, text, system: rules(seed), line: seed)
    }
    #expect(analysis.finish().findings.isEmpty)
  }

  /// One prompt for two models at a time: neither was switched for the other, unless only one goes on.
  @Test func twoModelsBesideEachOtherAreNoSwitch() throws {
    func body(_ model: String, _ messages: Messages) throws -> LoggedRequest {
      let request = try RequestComparisonTests.request(
        Self.system,
        messages,
        fields: "\"model\":\"\(model)\","
      )
      return try #require(try LoggedRequest.inRecord(request.json))
    }
    let run = conversation("parser", steps: 4)
    var (beside, switched) = (RequestAnalysis(), RequestAnalysis())
    for (index, messages) in run.enumerated() {
      beside.add(try body("small", messages), line: 2 * index + 1)
      beside.add(try body("large", messages), line: 2 * index + 2)
      switched.add(try body(index < 2 ? "small" : "large", messages), line: index + 1)
    }
    let report = beside.finish()
    #expect(report.findings.isEmpty && report.lostTokenCount == 0)
    #expect(report.conversations.map(\.steps.count) == [4, 4])
    let other = switched.finish()
    #expect(other.findings.map(\.change.kind).filter { $0 != .lowHitRate } == [.modelSwitched])
    #expect(other.lostTokenCount > 0)
    var again = RequestAnalysis()
    again.add(try body("small", run[0]), line: 1)
    for (index, messages) in run.enumerated() {
      again.add(try body("large", messages), line: index + 2)
    }
    #expect(again.finish().findings.contains { $0.change.kind == .modelSwitched })
  }

  /// A log may say any number for a time.
  @Test(arguments: ["1e300", "1e20", "99999999999999999999", "-5", "1e11", "17e17"])
  func timesBeyondAllTimesAreNone(time: String) throws {
    var analysis = RequestAnalysis()
    for line in 1...3 {
      let text = "{\"time\":\(time),\"request\":{\"prompt\":\"where is the parser?\"}}"
      let logged = try #require(try LoggedRequest.inRecord(Array(text.utf8)))
      analysis.add(logged, line: line)
    }
    #expect(analysis.finish().requestCount == 3)
  }
}
