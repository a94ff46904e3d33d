import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore inspect runs`: the runs of agents.
struct InspectRuns: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "runs",
    abstract: "Show the runs of agents: their steps, and how many of their calls were answered.",
    discussion: """
      A run is what a program recorded with kvstore.agent. Each user has a namespace of his own; \
      who he is cannot be told from it.

      EXAMPLES
        kvstore inspect runs STORE
        kvstore inspect run STORE RUN --log
      """
  )

  @OptionGroup var options: InspectOptions
  @OptionGroup var chosen: NamespaceOption

  func run() throws {
    try options.withStore { store in
      let reader = AgentRuns(inspector: store.inspector)
      let documents = try reader.runs(in: chosen.selected(in: store)).map {
        try RunDocument($0, reader, withLog: false)
      }
      try options.show(RunsDocument(runs: documents), RunDocument.lines(documents))
    }
  }
}

/// `kvstore inspect run`: one of them.
struct InspectRun: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run",
    abstract: "Show the steps of an agent's run, and what each of its calls was answered.",
    discussion: """
      EXAMPLES
        kvstore inspect run STORE report-7
        kvstore inspect run STORE report-7 --namespace 3 --log
      """
  )

  @OptionGroup var options: InspectOptions

  @ArgumentParser.Argument(help: "The run's name.")
  var name: String

  @Option(help: "Its session, where runs of several have that name.")
  var session: String?

  @OptionGroup var chosen: NamespaceOption

  @Flag(help: "Show each call: how it was answered, from where, how old.")
  var log = false

  func run() throws {
    try options.withStore { store in
      let reader = AgentRuns(inspector: store.inspector)
      let found = try reader.runs(in: chosen.selected(in: store)).filter {
        $0.entry.run == name && (session == nil || $0.entry.session == session)
      }
      guard let run = found.first else { throw CommandFailure("the store has no run \(name)") }
      guard found.count == 1 else {
        let places = found.map {
          "namespace \($0.namespace.rawValue), session \($0.entry.session ?? "–")"
        }
        throw CommandFailure(
          "\(found.count) runs are called \(name): \(places.joined(separator: "; ")). Say --namespace or --session"
        )
      }
      let document = try RunDocument(run, reader, withLog: true)
      try options.show(RunsDocument(runs: [document]), document.lines(withLog: log))
    }
  }
}

/// The JSON of `inspect runs` and `inspect run`.
struct RunsDocument: CommandDocument {
  static let schema = "inspect-runs"

  /// Oldest first in each namespace.
  var runs: [RunDocument]
}

/// A run in the JSON of `inspect runs` and `inspect run`.
struct RunDocument: Encodable {
  struct Origin: Encodable {
    var run: String
    /// The last step that both have.
    var step: Int
  }

  struct Outcome: Encodable {
    var outcome: String
    var count: Int
  }

  struct Step: Encodable {
    var number: Int
    var kind: String
    var name: String
    /// What the steps are chained by.
    var key: String
    var storedAt: Moment?
    var tookSeconds: Double?
  }

  struct Event: Encodable {
    var at: Moment?
    var layer: String
    var outcome: String
    var name: String
    var call: String?
    var key: String?
    var version: String?
    var ageSeconds: Double?
    /// The run that stored it.
    var source: String?
    var reason: String?
  }

  struct Opening: Encodable {
    var openedAt: Moment?
    var process: Int?
    /// Nil in `inspect runs`.
    var events: [Event]?
  }

  var run: String
  var namespace: UInt32
  var session: String?
  var createdAt: Moment?
  /// Nil if it is no fork.
  var forkOf: Origin?
  var stepCount: Int
  /// Calls by how they were answered.
  var outcomes: [Outcome]
  /// Nil in `inspect runs`.
  var steps: [Step]?
  var openings: [Opening]

  init(_ run: AgentRun, _ reader: AgentRuns, withLog: Bool) throws {
    self.run = run.entry.run
    namespace = run.namespace.rawValue
    session = run.entry.session
    createdAt = Moment(nanoseconds: UInt64(max(0, min(run.entry.created, 1e10)) * 1e9))
    forkOf = run.entry.origin.map { Origin(run: $0.run, step: $0.at) }
    let steps = try reader.steps(of: run)
    stepCount = steps.count
    var counts: [String: Int] = [:]
    openings = []
    for opening in try reader.openings(of: run) {
      let events = try reader.events(of: run, since: opening)
      for event in events { counts[event.meta.outcome, default: 0] += 1 }
      openings.append(
        Opening(
          openedAt: Moment(nanoseconds: opening.openedNanoseconds),
          process: opening.meta.process,
          events: withLog ? events.map(Event.init) : nil
        )
      )
    }
    outcomes = counts.sorted { $0.key < $1.key }.map { Outcome(outcome: $0.key, count: $0.value) }
    self.steps =
      withLog
      ? steps.map {
        Step(
          number: $0.number,
          kind: $0.meta.kind,
          name: $0.meta.name,
          key: $0.meta.step,
          storedAt: Moment(nanoseconds: $0.storedNanoseconds),
          tookSeconds: $0.meta.seconds
        )
      } : nil
  }

  static func lines(_ documents: [RunDocument]) -> [String] {
    guard !documents.isEmpty else { return ["no runs"] }
    var table = TextTable([
      ("run", .left), ("ns", .right), ("session", .left), ("made", .right), ("opened", .right),
      ("steps", .right), ("answered", .right), ("done", .right), ("failed", .right),
      ("fork of", .left),
    ])
    for document in documents {
      func count(_ names: String...) -> String {
        "\(document.outcomes.reduce(0) { $0 + (names.contains($1.outcome) ? $1.count : 0) })"
      }
      table.append([
        printable(document.run), "\(document.namespace)", document.session.map(printable) ?? "–",
        document.createdAt.map(agoText) ?? "–",
        "\(document.openings.count)×", "\(document.stepCount)", count("hit", "recorded", "stale"),
        count("stored", "asked", "forced", "bypassed"), count("failed"),
        document.forkOf.map { "\(printable($0.run)) at \($0.step)" } ?? "–",
      ])
    }
    return table.lines()
  }

  func lines(withLog: Bool) -> [String] {
    var lines = Self.lines([self]) + [""]
    var table = TextTable([
      ("step", .right), ("kind", .left), ("name", .left), ("took", .right), ("stored", .right),
      ("key", .left),
    ])
    for step in steps ?? [] {
      table.append([
        "\(step.number)", printable(step.kind), printable(step.name),
        step.tookSeconds.map { "\(decimalText($0, digits: 3)) s" } ?? "–",
        step.storedAt.map(agoText) ?? "–",
        String(step.key.prefix(16)),
      ])
    }
    lines += table.lines()
    guard withLog else { return lines }
    for (index, opening) in openings.enumerated() {
      let age = opening.openedAt.map(agoText) ?? "–"
      lines += ["", "opening \(index), \(age), process \(opening.process ?? 0)"]
      var table = TextTable([
        ("call", .left), ("layer", .left), ("outcome", .left), ("version", .left), ("age", .right),
        ("from", .left), ("key", .left), ("why", .left),
      ])
      for event in opening.events ?? [] {
        table.append([
          printable(event.call ?? event.name), printable(event.layer), printable(event.outcome),
          event.version.map(printable) ?? "–",
          event.ageSeconds.map { "\(decimalText($0, digits: 3)) s" } ?? "–",
          event.source.map(printable) ?? "–", event.key.map { String($0.prefix(16)) } ?? "–",
          event.reason.map(printable) ?? "",
        ])
      }
      lines += table.lines()
    }
    return lines
  }
}

extension RunDocument.Event {
  init(_ event: AgentRun.Event) {
    self.init(
      at: Moment(nanoseconds: event.storedNanoseconds),
      layer: event.meta.layer,
      outcome: event.meta.outcome,
      name: event.meta.name,
      call: event.meta.call,
      key: event.meta.key,
      version: event.meta.version,
      ageSeconds: event.meta.age,
      source: event.meta.source,
      reason: event.meta.reason
    )
  }
}
