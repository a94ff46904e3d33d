import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore inspect sessions`: what each conversation hit, step by step.
struct InspectSessions: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sessions",
    abstract: "Show the recorded sessions: hit rate of each step, and where the prefix broke.",
    discussion: """
      A session is what an engine recorded through kvstore_session_begin. One whose hit rate on \
      steps 3 to 10 is below 70 % is marked: by then an agent has read nearly all of its prompt \
      before, so something at its front keeps changing.

      EXAMPLES
        kvstore inspect sessions STORE
        kvstore inspect sessions STORE --session 1795428548127981569 --json
      """
  )

  @OptionGroup var options: InspectOptions

  @Option(help: "Show the steps of this session.")
  var session: UInt64?

  @Option(help: "Show at most this many sessions, the newest.")
  var limit = 50

  func validate() throws {
    guard limit > 0 else { throw ValidationError("--limit must be at least 1.") }
  }

  func run() throws {
    try options.withStore { store in
      if let session {
        guard let found = try store.inspector.session(session) else {
          throw CommandFailure("the store has no session \(session)")
        }
        let document = SessionDocument(found)
        try options.show(
          SessionsDocument(sessions: [document], omittedSessionCount: 0),
          document.stepLines
        )
      } else {
        let documents = try store.inspector.sessions(limit: limit).map(SessionDocument.init)
        let omitted = max(0, try store.inspector.sessionCount() - documents.count)
        let footer = omitted > 0 ? ["", "… and \(omitted) older: raise --limit"] : []
        try options.show(
          SessionsDocument(sessions: documents, omittedSessionCount: omitted),
          SessionDocument.lines(documents) + footer
        )
      }
    }
  }
}

/// The JSON of `inspect sessions`.
struct SessionsDocument: CommandDocument {
  static let schema = "inspect-sessions"

  /// The newest, oldest first.
  var sessions: [SessionDocument]
  /// Older ones, beyond --limit.
  var omittedSessionCount: Int
}

/// A session in the JSON of `inspect sessions`.
struct SessionDocument: Encodable {
  struct Step: Encodable {
    var number: Int
    var at: Moment?
    var tokenCount: Int
    var matchedTokenCount: Int
    var computedTokenCount: Int
    var previousTokenCount: Int
    var commonTokenCount: Int
    var hitRate: Double
    var cause: String
  }

  /// Steps in which an agent's prefix has settled, and the hit rate that is expected of them.
  static let settledSteps = 3...10
  static let hitRateMin = 0.7

  /// A number, as text: it is larger than what JavaScript's numbers tell apart.
  var id: String
  var namespace: UInt32
  var name: String
  var isEnded: Bool
  var createdAt: Moment?
  var lastStepAt: Moment?
  var stepCount: Int
  var tokenCount: UInt64
  var matchedTokenCount: UInt64
  var computedTokenCount: UInt64
  var hitRate: Double
  /// Of steps 3 to 10; nil when there are none.
  var settledHitRate: Double?
  /// That is below 70 %.
  var isPoor: Bool
  /// The first step behind the second whose prefix broke, and at which token.
  var brokenStep: Int?
  var brokenToken: Int?
  var brokenCause: String?
  var steps: [Step]

  init(_ session: StoreInspector.SessionSummary) {
    id = "\(session.id)"
    namespace = session.namespace.rawValue
    name = session.name
    isEnded = session.isEnded
    createdAt = Moment(nanoseconds: session.createdNanoseconds)
    lastStepAt = Moment(nanoseconds: session.lastNanoseconds)
    stepCount = session.stepCount
    tokenCount = session.tokenCount
    matchedTokenCount = session.matchedTokenCount
    computedTokenCount = session.computedTokenCount
    hitRate = Self.rate(session.matchedTokenCount, session.tokenCount)
    let settled = session.steps.filter { Self.settledSteps.contains($0.number) }
    settledHitRate =
      settled.isEmpty
      ? nil
      : Self.rate(
        settled.reduce(0) { $0 + UInt64($1.matchedTokenCount) },
        settled.reduce(0) { $0 + UInt64($1.tokenCount) }
      )
    isPoor = settledHitRate.map { $0 < Self.hitRateMin } ?? false
    let broken = session.steps.first { step in
      step.number > 1 && step.matchedTokenCount < step.previousTokenCount
        && !Self.keepsPrefix(step)
    }
    brokenStep = broken?.number
    brokenToken = broken.map { min($0.commonTokenCount, $0.previousTokenCount) }
    if let broken, broken.commonTokenCount == broken.previousTokenCount {
      // The prompt itself is as before: what was stored of it has left.
      brokenToken = broken.matchedTokenCount
    }
    brokenCause = broken.map { "\(Self.cause(of: $0, in: session))" }
    steps = session.steps.map {
      Step(
        number: $0.number,
        at: Moment(nanoseconds: $0.timeNanoseconds),
        tokenCount: $0.tokenCount,
        matchedTokenCount: $0.matchedTokenCount,
        computedTokenCount: $0.computedTokenCount,
        previousTokenCount: $0.previousTokenCount,
        commonTokenCount: $0.commonTokenCount,
        hitRate: $0.hitRate,
        cause: "\($0.cause)"
      )
    }
  }

  /// What broke a prefix: where later steps break at the same token again, it is a value that changes with every request, which
  /// the first of them could not tell from an edit.
  private static func cause(
    of broken: StoreInspector.SessionStep,
    in session: StoreInspector.SessionSummary
  ) -> Explanation.Cause {
    let alike = session.steps.filter {
      $0.number > broken.number && $0.commonTokenCount == broken.commonTokenCount
        && $0.commonTokenCount < $0.previousTokenCount
    }
    let changes: Set<Explanation.Cause> = [.edited, .inserted, .deleted, .volatileValue]
    guard changes.contains(broken.cause), alike.contains(where: { changes.contains($0.cause) })
    else { return broken.cause }
    return .volatileValue
  }

  /// Nothing of the step before was changed or has left: what is new is new, or a part of it once more.
  private static func keepsPrefix(_ step: StoreInspector.SessionStep) -> Bool {
    switch step.cause {
    case .stored, .appended: true
    case .elsewhere: step.commonTokenCount == step.previousTokenCount
    default: false
    }
  }

  private static func rate(_ part: UInt64, _ whole: UInt64) -> Double {
    whole == 0 ? 1 : Double(part) / Double(whole)
  }

  static func lines(_ documents: [SessionDocument]) -> [String] {
    guard !documents.isEmpty else { return ["no sessions"] }
    var table = TextTable([
      ("session", .right), ("name", .left), ("ns", .right), ("steps", .right), ("tokens", .right),
      ("hit", .right), ("steps 3–10", .right), ("last", .right), ("", .left),
    ])
    for document in documents {
      var notes: [String] = []
      if document.isPoor { notes.append("LOW") }
      if let step = document.brokenStep, let token = document.brokenToken,
        let cause = document.brokenCause
      {
        notes.append("broke in step \(step) at token \(token): \(cause)")
      }
      if document.isEnded { notes.append("ended") }
      table.append([
        document.id, document.name.isEmpty ? "–" : printable(document.name),
        "\(document.namespace)", "\(document.stepCount)", "\(document.tokenCount)",
        rateText(document.hitRate), document.settledHitRate.map(rateText) ?? "–",
        document.lastStepAt.map(agoText) ?? "–",
        notes.joined(separator: "; "),
      ])
    }
    return table.lines()
  }

  /// One session, a line for each step.
  var stepLines: [String] {
    var table = TextTable([
      ("step", .right), ("tokens", .right), ("stored", .right), ("computed", .right),
      ("hit", .right), ("like the step before", .right), ("what ended the prefix", .left),
    ])
    for step in steps {
      table.append([
        "\(step.number)", "\(step.tokenCount)", "\(step.matchedTokenCount)",
        "\(step.computedTokenCount)", Self.rateText(step.hitRate),
        step.number == 1 ? "–" : "\(step.commonTokenCount) of \(step.previousTokenCount)",
        step.cause,
      ])
    }
    return Self.lines([self]) + [""] + table.lines()
  }

  private static func rateText(_ rate: Double) -> String {
    decimalText(rate * 100, digits: 3) + " %"
  }
}
