import KVRequests

/// The JSON of `kvstore lint`.
///
/// Its names are fixed: tests in other languages read them.
struct LintDocument: CommandDocument {
  static let schema = "lint"

  struct Finding: Encodable {
    var file: String
    var line: Int
    var kind: String
    var cause: String
    var value: String?
    var path: String
    var start: Int
    var end: Int
    var tokens_lost: Int
    var tokens_estimated: Bool
    var remedy: String
    var previous_line: Int?
    var previous_path: String?
    var conversation: Int
    var step: Int
    var between_conversations: Bool
    var now: String?
    var was: String?
    var store: String?
  }

  struct Group: Encodable {
    var kind: String
    var cause: String
    var value: String?
    var path: String
    var count: Int
    var tokens_lost: Int
    var cost: Double?
    var hit_rate_mended: Double
    var remedy: String
  }

  struct Conversation: Encodable {
    var conversation: Int
    var requests: Int
    var first_line: Int
    var tokens: Int
    var tokens_found: Int
    var tokens_lost: Int
    var hit_rate: Double
    var hit_rate_steps_3_to_10: Double?
    var static_front: Bool
    var tool_results: Int
    var tool_result_tokens: Int
    var tool_calls: Int
    var repeated_tool_calls: Int
    var equivalent_tool_calls: Int
    var longest_pause_seconds: Double
  }

  struct Skipped: Encodable {
    var example: String
    var count: Int
  }

  var files: [String]
  var requests: Int
  /// Those of which only the server has the history.
  var requests_with_hidden_history: Int
  var formats: [String: Int]
  var models: [String: Int]
  var tokens: Int
  var tokens_found: Int
  var tokens_lost: Int
  var hit_rate: Double
  var hit_rate_mended: Double
  var cost: Double?
  var currency: String?
  var prices_as_of: String?
  var prefill_seconds: Double?
  var findings: [Finding]
  var groups: [Group]
  var conversations: [Conversation]
  var skipped_lines: Int
  var skipped: [Skipped]
  var broken_off: [String]

  init(_ outcome: LintOutcome, isRedacted: Bool, stored: [Int: String] = [:]) {
    let report = outcome.report
    files = outcome.sources
    requests = report.requestCount
    requests_with_hidden_history = report.hiddenHistoryCount
    formats = Dictionary(
      uniqueKeysWithValues: report.formatCounts.map { ($0.key.rawValue, $0.value) }
    )
    models = report.modelCounts
    tokens = report.tokenCount
    tokens_found = report.foundTokenCount
    tokens_lost = report.lostTokenCount
    hit_rate = report.hitRate
    hit_rate_mended = report.hitRate(adding: report.lostTokenCount)
    cost = outcome.cost
    currency = outcome.cost == nil ? nil : outcome.prices.currency
    prices_as_of = outcome.cost == nil ? nil : outcome.prices.asOf
    prefill_seconds = outcome.seconds
    findings = report.findings.enumerated().map { index, finding in
      let change = finding.change
      let texts = Excerpt.pair(now: change.now, was: change.was)
      return Finding(
        file: outcome.sources[finding.source],
        line: finding.line,
        kind: change.kind.rawValue,
        cause: change.cause,
        value: change.shape?.rawValue,
        path: change.path,
        start: change.start,
        end: change.end,
        tokens_lost: change.tokensLost,
        tokens_estimated: !finding.isExact,
        remedy: change.remedy,
        previous_line: finding.previousLine > 0 ? finding.previousLine : nil,
        previous_path: change.previousPath,
        conversation: finding.conversation,
        step: finding.step,
        between_conversations: finding.isBetweenConversations,
        now: isRedacted || texts.now.isEmpty ? nil : texts.now,
        was: isRedacted || texts.was.isEmpty ? nil : texts.was,
        store: stored[index]
      )
    }
    groups = outcome.groups.map {
      Group(
        kind: $0.kind.rawValue,
        cause: $0.example.change.cause,
        value: $0.shape?.rawValue,
        path: $0.path,
        count: $0.findings.count,
        tokens_lost: $0.tokensLost,
        cost: $0.cost,
        hit_rate_mended: $0.mendedHitRate,
        remedy: $0.example.change.remedy
      )
    }
    conversations = report.conversations.map { conversation in
      Conversation(
        conversation: conversation.number,
        requests: conversation.steps.count,
        first_line: conversation.steps.first?.line ?? 0,
        tokens: conversation.steps.reduce(0) { $0 + $1.tokenCount },
        tokens_found: conversation.steps.reduce(0) { $0 + $1.foundTokenCount },
        tokens_lost: conversation.steps.reduce(0) { $0 + $1.lostTokenCount },
        hit_rate: conversation.hitRate() ?? 0,
        hit_rate_steps_3_to_10: conversation.steps.count >= 3
          ? conversation.hitRate(steps: 2..<10) : nil,
        static_front: conversation.hasStaticSystemPrompt,
        tool_results: conversation.toolResultCount,
        tool_result_tokens: conversation.toolResultTokenCount,
        tool_calls: conversation.toolCallCount,
        repeated_tool_calls: conversation.repeatedToolCallCount,
        equivalent_tool_calls: conversation.equivalentToolCallCount,
        longest_pause_seconds: conversation.longestPause
      )
    }
    skipped_lines = outcome.skipped.count
    skipped = outcome.skipped.examples.map { Skipped(example: $0.text, count: $0.count) }
    broken_off = outcome.faults
  }
}

/// The findings as SARIF 2.1.0, which CI services show beside the code.
struct SARIFDocument: Encodable {
  struct Text: Encodable { var text: String }
  struct Rule: Encodable {
    var id: String
    var shortDescription: Text
    var help: Text
  }
  struct Driver: Encodable {
    var name = "kvstore lint"
    var version = KVStoreCommand.versionText
    var rules: [Rule]
  }
  struct Tool: Encodable { var driver: Driver }
  struct ArtifactLocation: Encodable { var uri: String }
  struct Region: Encodable { var startLine: Int }
  struct PhysicalLocation: Encodable {
    var artifactLocation: ArtifactLocation
    var region: Region
  }
  struct LogicalLocation: Encodable { var fullyQualifiedName: String }
  struct Location: Encodable {
    var physicalLocation: PhysicalLocation
    var logicalLocations: [LogicalLocation]?
  }
  struct Result: Encodable {
    var ruleId: String
    var level: String
    var message: Text
    var locations: [Location]
    var partialFingerprints: [String: String]
  }
  struct Run: Encodable {
    var tool: Tool
    var results: [Result]
  }

  var version = "2.1.0"
  var schema = "https://json.schemastore.org/sarif-2.1.0.json"
  var runs: [Run]

  private enum CodingKeys: String, CodingKey {
    case version, runs
    case schema = "$schema"
  }

  init(_ outcome: LintOutcome) {
    let findings = outcome.report.findings
    var kinds: [RequestChange.Kind: RequestChange] = [:]
    for finding in findings where kinds[finding.change.kind] == nil {
      kinds[finding.change.kind] = finding.change
    }
    let rules = kinds.values.sorted { $0.kind.rawValue < $1.kind.rawValue }.map {
      Rule(
        id: $0.kind.rawValue,
        shortDescription: Text(text: "The prefix breaks: \($0.kind.rawValue)"),
        help: Text(text: $0.remedy)
      )
    }
    let results = findings.map { finding in
      let change = finding.change
      return Result(
        ruleId: change.kind.rawValue,
        level: "warning",
        message: Text(
          text: "\(change.tokensLost) tokens count as new"
            + (change.path.isEmpty
              ? ". " : " because of \(change.path), characters \(change.start) to \(change.end). ")
            + change.remedy
        ),
        locations: [
          Location(
            physicalLocation: PhysicalLocation(
              artifactLocation: ArtifactLocation(uri: outcome.sources[finding.source]),
              region: Region(startLine: finding.line)
            ),
            logicalLocations: change.path.isEmpty
              ? nil : [LogicalLocation(fullyQualifiedName: change.path)]
          )
        ],
        partialFingerprints: [
          "kindAndPlace": "\(change.kind.rawValue) \(LintOutcome.pattern(change.path))"
        ]
      )
    }
    runs = [Run(tool: Tool(driver: Driver(rules: rules)), results: results)]
  }
}
