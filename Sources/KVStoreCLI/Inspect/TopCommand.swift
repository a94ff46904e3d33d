import ArgumentParser
import Glibc
import KVAdmin
import KVCore
import KVStore

/// `kvstore top`: what a store does now, a look each second.
struct TopCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "top",
    abstract: "Watch what a store does: hit rate, what is written and evicted, who uses it.",
    discussion: """
      Reads as inspect does, beside a live server. On a terminal it redraws one screen; into a pipe or a file it writes a \
      line for each look, and with --json a document a line. Processes save their counters with other commits, a second \
      later at most.

      EXAMPLES
        kvstore top STORE
        kvstore top STORE --interval 5 --count 12 >load.txt
        kvstore top STORE --json
      """
  )

  @OptionGroup var options: InspectOptions

  @Option(help: "Seconds between two looks, 0.1 to 3600.")
  var interval = 1.0

  @Option(help: "End after so many looks. (default: until it is interrupted)")
  var count: Int?

  func validate() throws {
    guard (0.1...3600).contains(interval) else {
      throw ValidationError("--interval must be 0.1 to 3600.")
    }
    if let count, count < 1 { throw ValidationError("--count must be at least 1.") }
  }

  func run() throws {
    var previous: TopDocument?
    var number = 0
    let isTerminal = isatty(1) == 1 && !options.json
    while true {
      var look: TopDocument?
      try options.withStore { store in
        look = try TopDocument(store, path: options.store, after: previous)
      }
      if let look {
        if options.json {
          print(try jsonText(look, isPretty: false))
        } else if isTerminal {
          let lines = look.screen(height: Self.terminalHeight)
          print("\u{1B}[H\u{1B}[2J" + lines.joined(separator: "\n"))
        } else {
          if number % 20 == 0 || look.hasRemote != previous?.hasRemote { print(look.lineHeading) }
          print(look.line)
        }
        previous = look
      }
      try Output.finish()
      number += 1
      if number == count { return }
      usleep(UInt32(interval * 1e6))
    }
  }

  private static var terminalHeight: Int {
    var size = winsize()
    // TIOCGWINSZ
    guard unsafe ioctl(1, 0x5413, &size) == 0, size.ws_row > 8 else { return 24 }
    return Int(size.ws_row)
  }
}

/// The JSON of `top`: one look.
///
/// Rates are those since the look before; of the first there are none.
struct TopDocument: CommandDocument {
  static let schema = "top"

  struct Rates: Encodable {
    /// Over so long.
    var overSeconds: Double
    var lookUpsPerSecond: Double
    var tokensAskedPerSecond: Double
    var tokensFoundPerSecond: Double
    /// Nil where nothing was looked up.
    var hitRate: Double?
    var blocksOffloadedPerSecond: Double
    var bytesWrittenPerSecond: Double
    var blocksEvictedPerSecond: Double
    var blocksExpiredPerSecond: Double
    /// Nil where no process has a remote tier.
    var remote: RemoteRates?
  }

  /// Of the remote tiers of all processes that have one, and had it at the look before.
  struct RemoteRates: Encodable {
    var lookUpsPerSecond: Double
    var lookUpsFoundPerSecond: Double
    var fetchedBytesPerSecond: Double
    var sentBytesPerSecond: Double
    /// Without those that are not there.
    var failuresPerSecond: Double
    var dropsPerSecond: Double

    init(_ now: [SummaryDocument.Owner], _ before: [SummaryDocument.Owner], seconds: Double) {
      func perSecond(_ counter: (SummaryDocument.Remote) -> UInt64) -> Double {
        let sum = now.reduce(0.0) { sum, owner in
          guard let remote = owner.remote,
            let old = before.first(where: { $0.number == owner.number })?.remote
          else { return sum }
          return sum + Double(counter(remote) - min(counter(remote), counter(old)))
        }
        return (sum / seconds * 1000).rounded() / 1000
      }
      lookUpsPerSecond = perSecond(\.lookUpCount)
      lookUpsFoundPerSecond = perSecond(\.lookUpFoundCount)
      fetchedBytesPerSecond = perSecond(\.fetchedByteCount)
      sentBytesPerSecond = perSecond(\.sentByteCount)
      failuresPerSecond = perSecond(\.failureCount)
      dropsPerSecond = perSecond(\.dropCount)
    }
  }

  var at: Moment?
  var path: String
  var blockCount: UInt64
  var payloadByteCount: UInt64
  var diskByteCount: UInt64
  /// What the processes that have it open let it take; at rest what it was made with.
  var diskByteCountMax: UInt64
  var catalogByteCount: UInt64
  var catalogByteCountMax: UInt64
  /// Of all look-ups since the store was made; nil without one.
  var hitRate: Double?
  var rates: Rates?
  var owners: [SummaryDocument.Owner]
  /// The largest first, at most ten.
  var namespaces: [SummaryDocument.Namespace]
  var namespaceCount: Int
  private let lifetime: StoreInspector.Lifetime

  private static let namespaceCountMax = 10

  private enum CodingKeys: CodingKey {
    case at, path, blockCount, payloadByteCount, diskByteCount, diskByteCountMax, catalogByteCount
    case catalogByteCountMax, hitRate, rates, owners, namespaces, namespaceCount
  }

  init(_ store: Store, path: String, after previous: TopDocument?) throws {
    let inspector = store.inspector
    let statistics = try store.statistics()
    let now = SystemClock().realTimeNanoseconds()
    at = Moment(nanoseconds: now)
    self.path = path
    blockCount = statistics.blocksStored
    payloadByteCount = statistics.payloadBytesStored
    diskByteCount = statistics.diskBytesUsed
    catalogByteCount = statistics.catalogBytesUsed
    catalogByteCountMax = statistics.catalogBytesCapacity
    let found = inspector.owners()
    owners = found.map(SummaryDocument.Owner.init)
    let capacities = found.compactMap(\.memory?.diskBytesCapacity).filter { $0 > 0 }
    diskByteCountMax = try capacities.max() ?? inspector.summary().capacityBytes
    let all = try inspector.namespaces()
    namespaceCount = all.count
    namespaces = all.sorted { $0.storedByteCount > $1.storedByteCount }
      .prefix(Self.namespaceCountMax).map(SummaryDocument.Namespace.init)
    lifetime = try inspector.lifetime()
    hitRate = Self.rate(lifetime.tokensFound, lifetime.tokensAsked)
    guard let previous, let before = previous.at?.nanoseconds, now > before else { return }
    let (new, old) = (lifetime, previous.lifetime)
    let seconds = Double(now - before) / 1e9
    func perSecond(_ counter: (StoreInspector.Lifetime) -> UInt64) -> Double {
      // A store that was made anew counts from 0.
      (Double(counter(new) - min(counter(new), counter(old))) / seconds * 1000).rounded() / 1000
    }
    rates = Rates(
      overSeconds: (seconds * 1000).rounded() / 1000,
      lookUpsPerSecond: perSecond { $0.matchCalls },
      tokensAskedPerSecond: perSecond { $0.tokensAsked },
      tokensFoundPerSecond: perSecond { $0.tokensFound },
      hitRate: Self.rate(
        new.tokensFound - min(new.tokensFound, old.tokensFound),
        new.tokensAsked - min(new.tokensAsked, old.tokensAsked)
      ),
      blocksOffloadedPerSecond: perSecond { $0.blocksOffloaded },
      bytesWrittenPerSecond: perSecond {
        $0.diskBytesWritten + $0.archiveBytesWritten + $0.catalogBytesWritten
      },
      blocksEvictedPerSecond: perSecond { $0.blocksEvicted },
      blocksExpiredPerSecond: perSecond { $0.blocksExpired },
      remote: hasRemote ? RemoteRates(owners, previous.owners, seconds: seconds) : nil
    )
  }

  private static func rate(_ part: UInt64, _ whole: UInt64) -> Double? {
    whole == 0 ? nil : Double(part) / Double(whole)
  }

  private static func shareText(_ rate: Double?) -> String {
    rate.map { decimalText($0 * 100, digits: 3) + " %" } ?? "–"
  }

  private static func rateText(_ value: Double?) -> String {
    value.map { decimalText($0, digits: 3) } ?? "–"
  }

  // MARK: For people

  private static let columns: [(heading: String, width: Int)] = [
    ("time", 19), ("look-ups/s", 10), ("hit", 7), ("tokens found/s", 14), ("written/s", 10),
    ("evicted/s", 9), ("blocks", 10), ("on disk", 9),
  ]

  private static func row(
    _ columns: [(heading: String, width: Int)],
    _ cells: [String]
  ) -> String {
    zip(columns, cells).enumerated().map { index, pair in
      let padding = String(repeating: " ", count: max(0, pair.0.width - pair.1.count))
      return index == 0 ? pair.1 + padding : padding + pair.1
    }.joined(separator: " ")
  }

  private static let remoteColumns: [(heading: String, width: Int)] = [
    ("remote in/s", 11), ("out/s", 9), ("remote", 12),
  ]

  /// Whether a process has a remote tier: only then is anything of it shown.
  var hasRemote: Bool { owners.contains { $0.remote != nil } }

  private var columns: [(heading: String, width: Int)] {
    Self.columns + (hasRemote ? Self.remoteColumns : [])
  }

  var lineHeading: String { Self.row(columns, columns.map(\.heading)) }

  /// One look in a line, for a pipe or a file.
  var line: String {
    Self.row(
      columns,
      [
        clockText(nanoseconds: at?.nanoseconds ?? 0), Self.rateText(rates?.lookUpsPerSecond),
        Self.shareText(rates.map(\.hitRate) ?? hitRate),
        Self.rateText(rates?.tokensFoundPerSecond),
        rates.map { byteText(UInt64($0.bytesWrittenPerSecond)) } ?? "–",
        Self.rateText(rates?.blocksEvictedPerSecond), "\(blockCount)", byteText(diskByteCount),
        rates?.remote.map { byteText(UInt64($0.fetchedBytesPerSecond)) } ?? "–",
        rates?.remote.map { byteText(UInt64($0.sentBytesPerSecond)) } ?? "–", worstRemoteState,
      ]
    )
  }

  /// Of several processes, the one that has most to say.
  private var worstRemoteState: String {
    let states = owners.compactMap(\.remote).map { $0.pauseCause == nil ? $0.state : "paused" }
    return ["left_alone", "unauthorized", "paused", "up", "idle"].first(where: states.contains)
      ?? "–"
  }

  /// Of each process with a remote tier.
  private var remoteRows: [[String]] {
    owners.compactMap { owner in
      guard let remote = owner.remote else { return nil }
      return [
        owner.text, remote.stateText, "\(remote.lookUpFoundCount) of \(remote.lookUpCount)",
        byteText(remote.fetchedByteCount), byteText(remote.sentByteCount),
        "\(remote.sendQueuedCount)", "\(remote.failureCount)", "\(remote.dropCount)",
      ]
    }
  }

  private static let remoteTable: [(heading: String, alignment: TextTable.Alignment)] = [
    ("process", .left), ("remote tier", .left), ("found", .right), ("fetched", .right),
    ("sent", .right), ("queued", .right), ("failed", .right), ("not sent", .right),
  ]

  /// A screen; tables lose their last lines where it is small.
  func screen(height: Int) -> [String] {
    let now = rates
    var lines = fieldLines([
      ("store", "\(path)   \(clockText(nanoseconds: at?.nanoseconds ?? 0))"),
      (
        "hit rate",
        "\(Self.shareText(now?.hitRate)) now, \(Self.shareText(hitRate)) since it was made"
      ),
      (
        "look-ups",
        "\(Self.rateText(now?.lookUpsPerSecond))/s, \(Self.rateText(now?.tokensFoundPerSecond)) of "
          + "\(Self.rateText(now?.tokensAskedPerSecond)) tokens/s found"
      ),
      (
        "written",
        "\(Self.rateText(now?.blocksOffloadedPerSecond)) blocks/s, "
          + "\(now.map { byteText(UInt64($0.bytesWrittenPerSecond)) } ?? "–")/s"
      ),
      (
        "left",
        "\(Self.rateText(now?.blocksEvictedPerSecond)) evicted/s, "
          + "\(Self.rateText(now?.blocksExpiredPerSecond)) expired/s"
      ),
      (
        "on disk",
        "\(byteText(diskByteCount)) of \(byteText(diskByteCountMax)) "
          + "(\(percentText(diskByteCount, diskByteCountMax))), \(blockCount) blocks, "
          + "\(byteText(payloadByteCount)) of payload"
      ),
      (
        "catalog",
        "\(byteText(catalogByteCount)) of \(byteText(catalogByteCountMax)) "
          + "(\(percentText(catalogByteCount, catalogByteCountMax)))"
      ),
    ])
    lines += Self.table(
      owners.map { owner in
        owner.memory?.row(owner.text) ?? [owner.text]
      },
      SummaryDocument.Memory.columns
    )
    lines += Self.table(remoteRows, Self.remoteTable)
    lines += Self.table(namespaces.map(\.row), SummaryDocument.Namespace.columns)
    if namespaceCount > namespaces.count {
      lines.append("… and \(namespaceCount - namespaces.count) smaller ones")
    }
    return Array(lines.prefix(max(7, height - 1)))
  }

  private static func table(
    _ rows: [[String]],
    _ columns: [(heading: String, alignment: TextTable.Alignment)]
  ) -> [String] {
    guard !rows.isEmpty else { return [] }
    var table = TextTable(columns)
    for row in rows { table.append(row) }
    return [""] + table.lines()
  }
}
