import KVAdmin
import KVCore
import KVStore

/// What the page of `inspect report` shows of agents' runs.
struct ReportRuns: Encodable {
  struct Layer: Encodable {
    /// Steps, tools, answers, embeddings.
    var layer: String
    var callCount = 0
    /// From the store, or from the run's own record.
    var answeredCount = 0
    var failedCount = 0
    /// What the answered ones took when they were made.
    var savedSeconds = 0.0
    var savedTokenCount = 0
    /// By the price list of the program; 0 without one.
    var savedMoney = 0.0
  }

  struct Run: Encodable {
    var run: String
    var namespace: UInt32
    var session: String?
    var createdAt: Moment?
    var forkOf: RunDocument.Origin?
    var stepCount: Int
    var openingCount: Int
    var layers: [Layer]
    /// The last ones of its log, in order.
    var events: [RunDocument.Event]
    /// Those before them.
    var olderEventCount: Int
  }

  /// The newest ones first.
  var runs: [Run] = []
  /// Those that are not in it.
  var olderRunCount = 0

  private static let runCountMax = 100
  private static let openingCountMax = 20
  private static let eventCountMax = 200

  init(_ inspector: StoreInspector) throws {
    let reader = AgentRuns(inspector: inspector)
    let found = try reader.runs(in: inspector.namespaces()).sorted {
      $0.entry.created > $1.entry.created
    }
    runs = try found.prefix(Self.runCountMax).map { try Self.run($0, reader) }
    olderRunCount = found.count - runs.count
  }

  private static func run(_ run: AgentRun, _ reader: AgentRuns) throws -> Run {
    let openings = try reader.openings(of: run)
    var events: [AgentRun.Event] = []
    for opening in openings.suffix(openingCountMax) {
      events += try reader.events(of: run, since: opening)
    }
    let kept = events.suffix(eventCountMax)
    return Run(
      run: run.entry.run,
      namespace: run.namespace.rawValue,
      session: run.entry.session,
      createdAt: Moment(nanoseconds: UInt64(max(0, min(run.entry.created, 1e10)) * 1e9)),
      forkOf: run.entry.origin.map { RunDocument.Origin(run: $0.run, step: $0.at) },
      stepCount: try reader.steps(of: run).count,
      openingCount: openings.count,
      layers: layers(events),
      events: kept.map(RunDocument.Event.init),
      olderEventCount: events.count - kept.count
    )
  }

  /// By layer, in the order in which they appear.
  private static func layers(_ events: [AgentRun.Event]) -> [Layer] {
    var found: [Layer] = []
    for event in events where event.meta.layer != "run" {
      let index =
        found.firstIndex { $0.layer == event.meta.layer }
        ?? {
          found.append(Layer(layer: event.meta.layer))
          return found.count - 1
        }()
      found[index].callCount += 1
      switch event.meta.outcome {
      case "hit", "recorded", "stale":
        found[index].answeredCount += 1
        found[index].savedSeconds += event.meta.seconds ?? 0
        found[index].savedTokenCount += event.meta.tokens?.reduce(0, +) ?? 0
        found[index].savedMoney += event.meta.money ?? 0
      case "failed": found[index].failedCount += 1
      default: break
      }
    }
    return found
  }
}
