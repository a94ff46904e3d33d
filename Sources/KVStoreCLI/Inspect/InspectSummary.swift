import ArgumentParser
import Glibc
import KVAdmin
import KVCore
import KVStore

/// `kvstore inspect summary`: the store in one screen.
struct InspectSummary: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "summary",
    abstract: "Show the store as a whole (the default)."
  )

  @OptionGroup var options: InspectOptions

  @Flag(help: "Show it again every second until it is interrupted.")
  var watch = false

  func run() throws {
    guard watch else { return try show() }
    while true {
      // Home and clear, so that the screen does not scroll; with --json a document after the other.
      // Into a file or a pipe no more than an empty line between two.
      if !options.json {
        print(isatty(1) == 1 ? "\u{1B}[H\u{1B}[2J" : "\n", terminator: "")
      }
      try show()
      try Output.finish()
      sleep(1)
    }
  }

  @Flag(
    help: "Look at every block for the histograms, not at the first 100,000 (1,000 with --watch)."
  )
  var all = false

  private func show() throws {
    try options.withStore { store in
      let inspector = store.inspector
      let document = SummaryDocument(
        path: options.store,
        summary: try inspector.summary(),
        statistics: try store.statistics(),
        namespaces: try inspector.namespaces(),
        lifetime: try inspector.lifetime(),
        topPrefixes: try inspector.topPrefixes(limit: 5),
        owners: inspector.owners(),
        survey: try inspector.survey(limit: all ? .max : watch ? 1_000 : 100_000)
      )
      try options.show(document, document.lines)
    }
  }
}

/// The JSON of `inspect summary`.
struct SummaryDocument: CommandDocument {
  static let schema = "inspect-summary"

  struct SlotFile: Encodable {
    var tier: String
    var file: UInt32
    var slotByteCount: Int
    var slotCount: Int
    var usedSlotCount: Int
  }

  var path: String
  var storeUUID: String
  var formatVersion: UInt32
  var createdAt: Moment?
  var isClean: Bool
  var ownerCount: Int
  var transactionID: UInt64
  var firstEvent: UInt64?
  var lastEvent: UInt64?
  var namespaceCount: Int
  var blockCount: UInt64
  var payloadByteCount: UInt64
  var diskByteCount: UInt64
  var archiveByteCount: UInt64
  /// What each tier may still take: free slots, and room for more slot files as the processes that have the store open allow it; at rest
  /// as it was made.
  var diskByteCountFree: UInt64
  /// Free slots; with a process that says how large the archive may be, room for more as well.
  var archiveByteCountFree: UInt64
  var catalogByteCount: UInt64
  var catalogByteCountMax: UInt64
  var reservedSlotCount: Int
  var pinCount: Int
  var ioPath: String
  var slotFiles: [SlotFile]
  var owners: [Owner]
  var namespaces: [Namespace]
  var lifetime: Lifetime
  var topPrefixes: [Prefix]
  var survey: Survey

  init(
    path: String,
    summary: StoreInspector.Summary,
    statistics: StoreStatistics,
    namespaces: [StoreInspector.NamespaceSummary],
    lifetime: StoreInspector.Lifetime,
    topPrefixes: [StoreInspector.UsedPrefix],
    owners: [StoreInspector.Owner],
    survey: StoreInspector.Survey
  ) {
    self.path = path
    storeUUID = summary.storeUUID
    formatVersion = summary.formatVersion
    createdAt = Moment(nanoseconds: summary.createdNanoseconds)
    isClean = summary.isClean
    ownerCount = summary.ownerCount
    transactionID = summary.transactionID
    firstEvent = summary.events?.lowerBound
    lastEvent = summary.events?.upperBound
    namespaceCount = namespaces.count
    self.owners = owners.map(Owner.init)
    self.namespaces = namespaces.map(Namespace.init)
    self.lifetime = Lifetime(lifetime)
    self.topPrefixes = topPrefixes.map { prefix in
      let identity = namespaces.first { $0.id == prefix.namespace }?.identity
      return Prefix(prefix, tokensPerBlock: identity?.tokensPerBlock ?? 0)
    }
    self.survey = Survey(survey)
    blockCount = statistics.blocksStored
    payloadByteCount = statistics.payloadBytesStored
    diskByteCount = statistics.diskBytesUsed
    archiveByteCount = statistics.archiveBytesUsed
    let live = owners.compactMap(\.memory)
    func free(_ tier: Tier, capacity: UInt64, used: UInt64) -> UInt64 {
      let slots = summary.slotFiles.reduce(UInt64(0)) { sum, file in
        guard file.tier == tier else { return sum }
        let freeCount = file.slotCount - min(file.slotCount, file.usedSlotCount)
        return sum + UInt64(freeCount) * UInt64(file.slotByteCount)
      }
      return slots + (capacity - min(capacity, used))
    }
    // The catalog's whole map is set aside, however much of it is in use.
    let catalogRest =
      statistics.catalogBytesCapacity
      - min(statistics.catalogBytesCapacity, statistics.catalogBytesUsed)
    diskByteCountFree = free(
      .disk,
      capacity: live.map(\.diskBytesCapacity).filter { $0 > 0 }.max() ?? summary.capacityBytes,
      used: statistics.diskBytesUsed + catalogRest
    )
    archiveByteCountFree = free(
      .archive,
      capacity: live.map(\.archiveBytesCapacity).max() ?? 0,
      used: statistics.archiveBytesUsed
    )
    catalogByteCount = statistics.catalogBytesUsed
    catalogByteCountMax = statistics.catalogBytesCapacity
    reservedSlotCount = summary.reservedSlotCount
    pinCount = summary.pinCount
    ioPath = lifetime.ioPath.text
    slotFiles = summary.slotFiles.map {
      SlotFile(
        tier: "\($0.tier)",
        file: $0.file,
        slotByteCount: $0.slotByteCount,
        slotCount: $0.slotCount,
        usedSlotCount: $0.usedSlotCount
      )
    }
  }

  /// The document for people.
  var lines: [String] {
    let state =
      ownerCount > 0
      ? "open in \(owners.map(\.text).joined(separator: ", "))"
      : isClean ? "closed cleanly" : "at rest, not closed cleanly (nothing to repair)"
    let events = if let firstEvent, let lastEvent { "\(firstEvent)–\(lastEvent)" } else { "none" }
    let created = createdAt.map(agoText) ?? "–"
    let archive =
      archiveByteCount > 0
      ? ", and \(byteText(archiveByteCount)) in the archive (\(byteText(archiveByteCountFree)) free)"
      : ""
    var lines = fieldLines([
      ("store", path),
      ("made", "\(created), format version \(formatVersion), UUID \(storeUUID)"),
      ("state", "\(state); commit \(transactionID), events \(events)"),
      ("I/O path", ioPath),
      ("blocks", "\(blockCount), \(byteText(payloadByteCount)) of payload; \(pinCount) pins"),
      (
        "on disk",
        "\(byteText(diskByteCount)) (\(byteText(diskByteCountFree)) free)\(archive); \(reservedSlotCount) slots reserved"
      ),
      ("catalog", catalogText),
      ("looked up", lifetime.lookUpText),
      ("found", lifetime.tierText),
      ("written", lifetime.writtenText),
      ("left", lifetime.leftText),
      ("age", survey.ageText),
      ("prefix tokens", survey.depthText),
    ])
    lines += table(of: namespaces.prefix(Self.namespaceCountMax).map(\.row), Namespace.columns)
    if namespaces.count > Self.namespaceCountMax {
      lines.append(
        "… and \(namespaces.count - Self.namespaceCountMax) more: kvstore inspect namespaces"
      )
    }
    lines += table(of: slotRows, Self.slotColumns)
    lines += table(
      of: owners.prefix(Self.ownerCountMax).compactMap { owner in
        owner.memory.map { $0.row(owner.text) }
      },
      Memory.columns
    )
    if owners.count > Self.ownerCountMax {
      lines.append("… and \(owners.count - Self.ownerCountMax) processes more: --json")
    }
    for owner in owners.prefix(Self.ownerCountMax) {
      if let remote = owner.remote { lines += [""] + remote.lines(owner.text) }
    }
    lines += table(of: topPrefixes.map(\.row), Prefix.columns)
    return lines
  }

  /// What fits on a screen.
  private static let namespaceCountMax = 6
  private static let ownerCountMax = 4

  private func table(
    of rows: [[String]],
    _ columns: [(heading: String, alignment: TextTable.Alignment)]
  ) -> [String] {
    guard !rows.isEmpty else { return [] }
    var table = TextTable(columns)
    for row in rows { table.append(row) }
    return [""] + table.lines()
  }

  private static let slotColumns: [(heading: String, alignment: TextTable.Alignment)] = [
    ("tier", .left), ("slot size", .right), ("files", .right), ("slots", .right),
    ("used", .right), ("filled", .right), ("payload ÷ stored", .right),
  ]

  /// A line for each tier and slot size; where a tier has several, what it compresses to stands in its first.
  private var slotRows: [[String]] {
    let alike = Dictionary(grouping: slotFiles) {
      SlotKind(tier: $0.tier, byteCount: $0.slotByteCount)
    }
    var seen: Set<String> = []
    return alike.sorted { $0.key < $1.key }.map { kind, files in
      let slots = files.reduce(0) { $0 + $1.slotCount }
      let used = files.reduce(0) { $0 + $1.usedSlotCount }
      let isFirst = seen.insert(kind.tier).inserted
      return [
        kind.tier, byteText(kind.byteCount), "\(files.count)", "\(slots)", "\(used)",
        percentText(UInt64(clamping: used), UInt64(clamping: slots)),
        isFirst ? survey.ratioText(kind.tier) : "",
      ]
    }
  }

  /// What a line of the table is about.
  private struct SlotKind: Hashable, Comparable {
    var tier: String
    var byteCount: Int

    static func < (a: Self, b: Self) -> Bool {
      a.tier == b.tier ? a.byteCount < b.byteCount : a.tier > b.tier
    }
  }

  private var catalogText: String {
    let filled = percentText(catalogByteCount, catalogByteCountMax)
    return "\(byteText(catalogByteCount)) of \(byteText(catalogByteCountMax)) (\(filled))"
  }
}

extension IOPath {
  /// In words.
  var text: String {
    switch self {
    case .none: "not opened"
    case .direct: "direct (O_DIRECT)"
    case .buffered: "buffered (page cache)"
    }
  }
}

/// Seconds since a moment in Unix nanoseconds.
func secondsSince(nanoseconds: UInt64) -> Int {
  let now = SystemClock().realTimeNanoseconds()
  let distance = Int64(clamping: now / 1_000_000_000) - Int64(clamping: nanoseconds / 1_000_000_000)
  return Int(distance)
}

/// "5 min ago", or "in 5 min".
func agoText(_ moment: Moment) -> String { momentText(nanoseconds: moment.nanoseconds) }

/// A moment in Unix nanoseconds as "in 5 min" or "5 min ago".
func momentText(nanoseconds: UInt64) -> String {
  ageText(secondsAgo: secondsSince(nanoseconds: nanoseconds))
}

func percentText(_ part: UInt64, _ whole: UInt64) -> String {
  whole == 0 ? "–" : decimalText(Double(part) / Double(whole) * 100, digits: 2) + " %"
}
