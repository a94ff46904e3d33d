/// A change in a request of a log, with what it costs.
public struct LogFinding: Sendable {
  /// Which file of several; from 0 on.
  public var source: Int
  /// The line, or the entry of a file that is no log of lines; from 1 on.
  public var line: Int
  /// The line of the request that it is compared with, in the same counting; 0 when there is none.
  public var previousLine: Int
  /// The conversation, from 1 on, and the step in it.
  public var conversation: Int
  /// The request's place in its conversation, from 1 on.
  public var step: Int
  /// It is the first of its conversation, compared with another conversation.
  public var isBetweenConversations: Bool
  /// What happened and where.
  public var change: RequestChange
  /// The tokens were counted by a server, not estimated.
  public var isExact = false
  /// The front of the conversation that it is compared with.
  var otherFront: UInt64?
  /// The request with the same prompt and other settings that it is compared with.
  var twin: UInt64?
}

/// One step of a conversation.
public struct LogStep: Sendable {
  /// Which file of several; from 0 on.
  public var source: Int
  /// Its line; from 1 on.
  public var line: Int
  /// Tokens of the request.
  public var tokenCount: Int
  /// Of those, the ones that an earlier request had in front as well.
  public var foundTokenCount: Int
  /// Tokens that would have been found besides, had nothing been changed.
  public var lostTokenCount: Int
  /// Unix seconds; 0 where the log does not say.
  public var time: Double
}

/// Requests that go on from each other.
public struct LogConversation: Sendable {
  /// From 1 on.
  public var number: Int
  /// Its requests, in the order of the log.
  public var steps: [LogStep] = []
  /// The longest time between two steps.
  public var longestPause = 0.0
  /// The system prompt was the same in all steps.
  public var hasStaticSystemPrompt = true
  /// Results of tools.
  public var toolResultCount = 0
  /// Their tokens.
  public var toolResultTokenCount = 0
  /// Those of the largest one.
  public var largestToolResultTokenCount = 0
  /// Calls of tools.
  public var toolCallCount = 0
  /// Calls that were made before with equal arguments.
  public var repeatedToolCallCount = 0
  /// Calls that were made before with the same arguments, written differently.
  public var equivalentToolCallCount = 0

  /// Tokens found of those sent in some steps; nil where there are none.
  public func hitRate(steps range: Range<Int>? = nil) -> Double? {
    let chosen = range.map { steps[$0.clamped(to: 0..<steps.count)] } ?? steps[...]
    let all = chosen.reduce(0) { $0 + $1.tokenCount }
    guard all > 0 else { return nil }
    return Double(chosen.reduce(0) { $0 + $1.foundTokenCount }) / Double(all)
  }
}

/// What a log holds.
public struct LogReport: Sendable {
  /// Requests in all.
  public var requestCount = 0
  /// By interface.
  public var formatCounts: [RequestFormat: Int] = [:]
  /// By model.
  public var modelCounts: [String: Int] = [:]
  /// Tokens of all requests.
  public var tokenCount = 0
  /// Of those, the ones that an earlier request had in front as well.
  public var foundTokenCount = 0
  /// The conversations, by when they began.
  public var conversations: [LogConversation] = []
  /// In the order of the log.
  public var findings: [LogFinding] = []
  /// The longest time that a request asks the server to keep it, in seconds.
  public var longestTimeToLiveSeconds: Double?
  /// Requests that go on from something that only the server has.
  public var hiddenHistoryCount = 0
  /// Conversations of which the newest request was no longer kept when the next one came.
  public var forgottenConversationCount = 0

  /// Tokens that the findings cost, those of each step at most once.
  public var lostTokenCount: Int {
    conversations.reduce(0) { $0 + $1.steps.reduce(0) { $0 + $1.lostTokenCount } }
  }

  /// The share of tokens that an earlier request had in front as well.
  public var hitRate: Double {
    tokenCount == 0 ? 0 : Double(foundTokenCount) / Double(tokenCount)
  }

  /// The same, were some tokens more found.
  public func hitRate(adding count: Int) -> Double {
    tokenCount == 0 ? 0 : min(1, Double(foundTokenCount + count) / Double(tokenCount))
  }
}
