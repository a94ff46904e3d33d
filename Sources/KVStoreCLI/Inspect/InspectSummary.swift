import ArgumentParser
import Glibc
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
      if !options.json { print("\u{1B}[H\u{1B}[2J", terminator: "") }
      try show()
      fflush(nil)
      sleep(1)
    }
  }

  private func show() throws {
    try options.withStore { store in
      let document = SummaryDocument(
        path: options.store,
        summary: try store.inspector.summary(),
        statistics: try store.statistics(),
        namespaceCount: try store.inspector.namespaces().count
      )
      try options.show(document, document.lines)
    }
  }
}

/// The JSON of `inspect summary`.
struct SummaryDocument: Encodable {
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
  var createdNanoseconds: UInt64
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
  var catalogByteCount: UInt64
  var catalogByteCountMax: UInt64
  var reservedSlotCount: Int
  var pinCount: Int
  var ioPath: String
  var slotFiles: [SlotFile]

  init(
    path: String,
    summary: StoreInspector.Summary,
    statistics: StoreStatistics,
    namespaceCount: Int
  ) {
    self.path = path
    storeUUID = summary.storeUUID
    formatVersion = summary.formatVersion
    createdNanoseconds = summary.createdNanoseconds
    isClean = summary.isClean
    ownerCount = summary.ownerCount
    transactionID = summary.transactionID
    firstEvent = summary.events?.lowerBound
    lastEvent = summary.events?.upperBound
    self.namespaceCount = namespaceCount
    blockCount = statistics.blocksStored
    payloadByteCount = statistics.payloadBytesStored
    diskByteCount = statistics.diskBytesUsed
    archiveByteCount = statistics.archiveBytesUsed
    catalogByteCount = statistics.catalogBytesUsed
    catalogByteCountMax = statistics.catalogBytesCapacity
    reservedSlotCount = summary.reservedSlotCount
    pinCount = summary.pinCount
    ioPath = statistics.ioPath.text
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
      ? "open in \(ownerCount) process\(ownerCount == 1 ? "" : "es")"
      : isClean ? "closed cleanly" : "at rest, not closed cleanly (nothing to repair)"
    let slotBytes = slotFiles.reduce(0) {
      $0 + ($1.tier == "disk" ? $1.slotCount * $1.slotByteCount : 0)
    }
    let events = if let firstEvent, let lastEvent { "\(firstEvent)–\(lastEvent)" } else { "none" }
    var lines = fieldLines([
      ("store", path),
      ("UUID", storeUUID),
      ("format", "version \(formatVersion)"),
      ("created", ageText(secondsAgo: secondsSince(nanoseconds: createdNanoseconds))),
      ("state", state),
      ("last commit", "\(transactionID)"),
      ("events kept", events),
      ("I/O path", ioPath),
      ("namespaces", "\(namespaceCount)"),
      ("blocks", "\(blockCount)"),
      ("payload", byteText(payloadByteCount)),
      ("on disk", "\(byteText(diskByteCount)), of that \(byteText(slotBytes)) slot files"),
      ("in the archive", byteText(archiveByteCount)),
      ("catalog", catalogText),
      ("slots reserved", "\(reservedSlotCount)"),
      ("pins", "\(pinCount)"),
    ])
    guard !slotFiles.isEmpty else { return lines }
    var table = TextTable([
      ("slot size", .right), ("tier", .left), ("files", .right), ("slots", .right),
      ("used", .right), ("filled", .right),
    ])
    let alike = Dictionary(grouping: slotFiles) {
      SlotKind(tier: $0.tier, byteCount: $0.slotByteCount)
    }
    for (kind, files) in alike.sorted(by: { $0.key < $1.key }) {
      let slots = files.reduce(0) { $0 + $1.slotCount }
      let used = files.reduce(0) { $0 + $1.usedSlotCount }
      table.append([
        byteText(kind.byteCount), kind.tier, "\(files.count)", "\(slots)", "\(used)",
        percentText(UInt64(clamping: used), UInt64(clamping: slots)),
      ])
    }
    lines.append("")
    return lines + table.lines()
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

/// A moment in Unix nanoseconds as "in 5 min" or "5 min ago".
func momentText(nanoseconds: UInt64) -> String {
  ageText(secondsAgo: secondsSince(nanoseconds: nanoseconds))
}

func percentText(_ part: UInt64, _ whole: UInt64) -> String {
  whole == 0 ? "–" : decimalText(Double(part) / Double(whole) * 100, digits: 2) + " %"
}
