import KVAdmin
import KVCore
import KVStore

/// What the page of `inspect report` shows, as it is embedded in it.
///
/// Runs are arrays of numbers, since there may be a hundred thousand of them.
struct ReportData: CommandDocument {
  static let schema = "inspect-report"

  struct Namespace: Encodable {
    var id: UInt32
    var model: String
    var dtype: String
    var tokensPerBlock: Int
    var blockCount: Int
    var payloadByteCount: Int
    var storedByteCount: Int
    var saltMark: String?
    var isWhole: Bool
    /// Each: run, parent run, parent position, blocks before it, blocks, payload bytes, created (Unix seconds), stamp, archived blocks,
    /// look-ups that ended in it.
    var runs: [[UInt64]]
    /// Of each run: key of its first block, then the first of its token ids.
    var keys: [String]
    var firstTokens: [[UInt32]]
  }

  struct Tier: Encodable {
    var name: String
    var usedByteCount: Int
    var byteCount: Int
  }

  struct Remote: Encodable {
    /// Which process.
    var process: String
    /// How it stands with it, in words.
    var standing: String
    var remote: SummaryDocument.Remote
  }

  /// Blocks that were stored and removed in one slice of the time that the events span.
  struct Activity: Encodable {
    var fromAt: Moment?
    var storedCount: Int
    var removedCount: Int
  }

  /// What the store counted in stretches of one length.
  struct History: Encodable {
    var spanSeconds: UInt32
    /// Each: Unix seconds of its begin, look-ups, tokens asked, tokens found, blocks found in RAM, on disk, in the archive, blocks
    /// offloaded, evicted, expired.
    var intervals: [[UInt64]]
  }

  var title: String
  var storeUUID: String
  /// When the page was made.
  var madeAt: Moment?
  /// When the store was.
  var createdAt: Moment?
  var state: String
  var blockCount: UInt64
  var payloadByteCount: UInt64
  var diskByteCount: UInt64
  var diskByteCountMax: UInt64
  /// Of all lookups since the store was made.
  var lookUpCount: UInt64
  var tokensAsked: UInt64
  var tokensFound: UInt64
  var evictedCount: UInt64
  /// What the page computes the time saved with, until somebody gives another.
  var prefillTokensPerSecond: Double
  var catalogByteCount: UInt64
  var catalogByteCountMax: UInt64
  var tiers: [Tier]
  /// Remote tiers of the processes that have the store open.
  var remotes: [Remote]
  var namespaces: [Namespace]
  var sessions: [SessionDocument]
  var agents: ReportRuns
  var history: [History]
  var activitySeconds: UInt64
  var activity: [Activity]

  private static let sessionCountMax = 200
  private static let firstTokenCount = 8
  private static let sliceCount = 60

  init(
    _ store: Store,
    path: String,
    runCountMax: Int,
    prefillTokensPerSecond: Double
  ) throws {
    self.prefillTokensPerSecond = prefillTokensPerSecond
    let inspector = store.inspector
    let summary = try inspector.summary()
    let statistics = try store.statistics()
    title = path
    storeUUID = summary.storeUUID
    madeAt = Moment(nanoseconds: SystemClock().realTimeNanoseconds())
    createdAt = Moment(nanoseconds: summary.createdNanoseconds)
    state =
      summary.ownerCount > 0 ? "open in \(counted(summary.ownerCount, "process"))" : "at rest"
    blockCount = statistics.blocksStored
    payloadByteCount = statistics.payloadBytesStored
    diskByteCount = statistics.diskBytesUsed
    diskByteCountMax = statistics.diskBytesCapacity
    let lifetime = try inspector.lifetime()
    lookUpCount = lifetime.matchCalls
    tokensAsked = lifetime.tokensAsked
    tokensFound = lifetime.tokensFound
    evictedCount = lifetime.blocksEvicted
    catalogByteCount = statistics.catalogBytesUsed
    catalogByteCountMax = statistics.catalogBytesCapacity
    let files = Dictionary(grouping: summary.slotFiles) { "\($0.tier)" }
    var tiers: [Tier] = files.sorted { $0.key > $1.key }.map(Self.tier)
    tiers.append(
      Tier(
        name: "catalog",
        usedByteCount: Int(clamping: statistics.catalogBytesUsed),
        byteCount: Int(clamping: statistics.catalogBytesCapacity)
      )
    )
    self.tiers = tiers
    remotes = inspector.owners().map(SummaryDocument.Owner.init).compactMap { owner in
      owner.remote.map { Remote(process: owner.text, standing: $0.stateText, remote: $0) }
    }
    namespaces = try inspector.namespaces().map {
      try Self.namespace($0, inspector, runCountMax: runCountMax)
    }
    sessions = try inspector.sessions(limit: Self.sessionCountMax).map(SessionDocument.init)
    agents = try ReportRuns(inspector)
    history = try StoreInspector.historySpans.map { try Self.history($0, inspector) }
    (activitySeconds, activity) = try Self.activity(store)
  }

  private static func tier(_ name: String, _ files: [StoreInspector.SlotFile]) -> Tier {
    var tier = Tier(name: "\(name) (slot files)", usedByteCount: 0, byteCount: 0)
    for file in files {
      tier.usedByteCount += file.usedSlotCount * file.slotByteCount
      tier.byteCount += file.slotCount * file.slotByteCount
    }
    return tier
  }

  private static func namespace(
    _ namespace: StoreInspector.NamespaceSummary,
    _ inspector: StoreInspector,
    runCountMax: Int
  ) throws -> Namespace {
    let runs = try inspector.tree(of: namespace.id, limit: runCountMax + 1)
    var result = Namespace(
      id: namespace.id.rawValue,
      model: namespace.identity?.modelName ?? "",
      dtype: namespace.identity?.kvDtype ?? "",
      tokensPerBlock: namespace.identity?.tokensPerBlock ?? 0,
      blockCount: namespace.blockCount,
      payloadByteCount: namespace.payloadByteCount,
      storedByteCount: namespace.storedByteCount,
      saltMark: namespace.saltMark,
      isWhole: runs.count <= runCountMax,
      runs: [],
      keys: [],
      firstTokens: []
    )
    for run in runs.prefix(runCountMax) {
      result.runs.append([
        run.run.rawValue, run.parent.run.rawValue, UInt64(run.parent.position),
        UInt64(run.firstBlockDepth), UInt64(run.blockCount), UInt64(run.payloadByteCount),
        UInt64(run.createdSeconds), run.stamp ?? 0, UInt64(run.archivedBlockCount),
        run.hitCount,
      ])
      result.keys.append(run.firstBlockKey.hexadecimal)
      result.firstTokens.append(Array(run.firstWords.prefix(firstTokenCount)))
    }
    return result
  }

  private static func history(_ span: UInt32, _ inspector: StoreInspector) throws -> History {
    History(
      spanSeconds: span,
      intervals: try inspector.history(spanSeconds: span).map { interval in
        let counts = interval.counts
        return [
          interval.startSeconds, counts.matchCalls, counts.tokensAsked, counts.tokensFound,
          counts.blocksFoundHost, counts.blocksFoundDisk, counts.blocksFoundArchive,
          counts.blocksOffloaded, counts.blocksEvicted, counts.blocksExpired,
        ]
      }
    )
  }

  private static func activity(_ store: Store) throws -> (UInt64, [Activity]) {
    var events: [StoreEvent] = []
    var cursor: UInt64 = 0
    while true {
      let page = try store.events(after: cursor)
      events += page.events
      cursor = page.cursor
      if page.events.isEmpty { break }
    }
    guard let first = events.first, let last = events.last else { return (1, []) }
    let from = first.timeNanoseconds / 1_000_000_000
    let span = max(
      1,
      last.timeNanoseconds / 1_000_000_000 - min(from, last.timeNanoseconds / 1_000_000_000)
    )
    let sliceSeconds = span / UInt64(sliceCount) + 1
    var slices = (0...span / sliceSeconds).map {
      Activity(
        fromAt: Moment(seconds: from + $0 * sliceSeconds),
        storedCount: 0,
        removedCount: 0
      )
    }
    for event in events {
      let seconds = max(from, event.timeNanoseconds / 1_000_000_000)
      let slice = min(slices.count - 1, Int((seconds - from) / sliceSeconds))
      switch event.kind {
      case .stored: slices[slice].storedCount += Int(event.blockCount)
      case .removed, .quarantined: slices[slice].removedCount += Int(event.blockCount)
      case .moved: break
      }
    }
    return (sliceSeconds, slices)
  }
}
