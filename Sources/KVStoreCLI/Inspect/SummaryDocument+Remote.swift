import KVAdmin
import KVCore
import KVStore

/// How a process' remote tier looks, in JSON and on the screen.
extension SummaryDocument {
  struct Remote: Encodable {
    struct CauseCount: Encodable {
      var cause: String
      var count: UInt64
    }

    /// Hosts; never a user.
    var server: String
    var state: String
    var stateSinceAt: Moment?
    var answeredAt: Moment?
    /// Why a call failed last.
    var lastFailure: String?
    /// What is written there: off, reused, all.
    var writes: String
    var matchesAlways: Bool
    /// Why writing waits, while it does.
    var pauseCause: String?
    var pausedUntilAt: Moment?
    var lookUpCount: UInt64
    var lookUpFoundCount: UInt64
    var roundCount: UInt64
    var chunksFound: UInt64
    var chunksFetched: UInt64
    var fetchedByteCount: UInt64
    var blocksFetched: UInt64
    var chunksSent: UInt64
    var sentByteCount: UInt64
    var chunksExisted: UInt64
    var objectsRemoved: UInt64
    var misses: [CauseCount]
    var drops: [CauseCount]
    var leftAloneCount: UInt64
    /// Nil = no bound.
    var writeBytesPerDay: UInt64?
    /// Of that, what may be written at this moment.
    var writeBytesLeft: UInt64?
    var sendQueuedCount: UInt64
    var lookUpQueuedCount: UInt64
    /// Of fetches; nil before the first.
    var bytesPerSecond: UInt64?
    /// Of a round of questions; nil before the first.
    var roundSeconds: Double?
    var purgePendingCount: UInt64

    init(_ report: RemoteReport) {
      let counts = report.statistics
      server = report.server
      state = counts.state.rawValue
      stateSinceAt = Moment(monotonicNanoseconds: counts.stateSince)
      answeredAt = Moment(monotonicNanoseconds: counts.answeredAt)
      lastFailure = counts.lastFailure?.rawValue
      writes = "\(report.writes)"
      matchesAlways = report.matchesAlways
      pauseCause = counts.pauseCause?.rawValue
      pausedUntilAt = Moment(monotonicNanoseconds: counts.pausedUntil)
      lookUpCount = counts.lookUps
      lookUpFoundCount = counts.lookUpsFound
      roundCount = counts.lookUpRounds
      chunksFound = counts.chunksFound
      chunksFetched = counts.chunksFetched
      fetchedByteCount = counts.bytesFetched
      blocksFetched = counts.blocksFetched
      chunksSent = counts.chunksSent
      sentByteCount = counts.bytesSent
      chunksExisted = counts.chunksExisted
      objectsRemoved = counts.objectsRemoved
      misses = Self.causes(counts.misses)
      drops = Self.causes(counts.drops)
      leftAloneCount = counts.breakerOpened
      let isBounded = counts.writeBytesPerDay > 0
      writeBytesPerDay = isBounded ? counts.writeBytesPerDay : nil
      writeBytesLeft = isBounded ? counts.writeBytesLeft : nil
      sendQueuedCount = counts.sendsQueued
      lookUpQueuedCount = counts.lookUpsQueued
      bytesPerSecond = counts.bytesPerSecond > 0 ? counts.bytesPerSecond : nil
      roundSeconds = counts.roundNanoseconds > 0 ? Double(counts.roundNanoseconds) / 1e9 : nil
      purgePendingCount = counts.purgesPending
    }

    private static func causes(_ counts: [RemoteStatistics.Cause: UInt64]) -> [CauseCount] {
      RemoteStatistics.Cause.allCases.compactMap { cause in
        counts[cause].map { CauseCount(cause: cause.rawValue, count: $0) }
      }
    }

    /// All that brought nothing, but what is not there.
    var failureCount: UInt64 { misses.reduce(0) { $1.cause == "absent" ? $0 : $0 + $1.count } }
    var dropCount: UInt64 { drops.reduce(0) { $0 + $1.count } }

    // MARK: For people

    var stateText: String {
      let since = stateSinceAt.map { ", since \(agoText($0))" } ?? ""
      let cause = lastFailure.map { " (\(Self.text($0)))" } ?? ""
      let text =
        switch RemoteStatistics.State(rawValue: state) {
        case .up: "up, answered \(answeredAt.map(agoText) ?? "–")"
        case .leftAlone: "left alone after failures\(cause)\(since)"
        case .unauthorized: "refuses the credentials\(since)"
        case .idle, nil: "not asked yet"
        }
      guard let pauseCause else { return text }
      let end = pausedUntilAt.map { ", until \(agoText($0))" } ?? ""
      return text + "; writing waits: \(Self.text(pauseCause))\(end)"
    }

    /// A cause in words where its name is none.
    static func text(_ cause: String) -> String {
      switch RemoteStatistics.Cause(rawValue: cause) {
      case .timedOut: "no answer in time"
      case .unreachable: "no connection"
      case .unauthorized: "not allowed"
      case .noRoom: "no room here"
      case .breaker: "left alone"
      case .absent: "not there"
      default: cause
      }
    }

    private static func text(_ counts: [CauseCount]) -> String {
      counts.isEmpty
        ? "none" : counts.map { "\(text($0.cause)) \($0.count)" }.joined(separator: ", ")
    }

    /// Several lines under the process' name.
    func lines(_ process: String) -> [String] {
      let speed = bytesPerSecond.map { ", \(byteText($0))/s" } ?? ""
      let round = roundSeconds.map { "; a round takes \(timeText(UInt64($0 * 1e9)))" } ?? ""
      var budget = ""
      if let writeBytesPerDay, let writeBytesLeft {
        budget = "; \(byteText(writeBytesLeft)) may go now, \(byteText(writeBytesPerDay)) a day"
      }
      var fields: [(name: String, value: String)] = [
        ("remote tier", "\(printable(server)), of \(process)"),
        ("  state", stateText),
        ("  look-ups", "\(lookUpCount), \(lookUpFoundCount) found something\(round)"),
        (
          "  fetched",
          "\(chunksFetched) chunks, \(byteText(fetchedByteCount)), \(blocksFetched) new blocks\(speed)"
        ),
        (
          "  sent",
          "\(chunksSent) chunks, \(byteText(sentByteCount)); \(chunksExisted) were there; "
            + "\(sendQueuedCount) paths wait (writes: \(writes))\(budget)"
        ),
        ("  misses", Self.text(misses)),
        ("  not sent", Self.text(drops)),
      ]
      if purgePendingCount > 0 { fields.append(("  purges", "\(purgePendingCount) not confirmed")) }
      return fieldLines(fields)
    }
  }
}

extension Moment {
  /// Of a moment in nanoseconds of CLOCK_MONOTONIC; nil for 0.
  init?(monotonicNanoseconds moment: UInt64) {
    guard moment > 0 else { return nil }
    let (now, monotonic) = (SystemClock().realTimeNanoseconds(), monotonicNanoseconds())
    self.init(
      nanoseconds: moment > monotonic
        ? now &+ (moment - monotonic) : now - min(now, monotonic - moment)
    )
  }
}
