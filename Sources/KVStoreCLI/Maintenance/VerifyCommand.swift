import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore verify`: checks everything that is stored against everything that is said of it.
struct VerifyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify",
    abstract: "Check a store: the catalog's invariants, every slot, every checksum.",
    discussion: """
      Reads only, in short transactions: works at rest and beside a live server. What moves on \
      while it looks is no finding. Exit status 2 when something is wrong.

      EXAMPLES
        kvstore verify STORE
        kvstore verify STORE --quick --json
      """
  )

  @OptionGroup var options: InspectOptions

  @Flag(help: "Compare slot headers only, and leave the payload unread.")
  var quick = false

  func run() throws {
    var isSound = true
    try options.withStore { store in
      var choice = VerifyOptions()
      choice.checksPayload = !quick
      let line = ProgressLine()
      let result = try store.verify(choice) { progress in
        line.show(progress.text)
      }
      line.clear()
      isSound = result.isSound
      let document = VerificationDocument(result)
      try options.show(document, document.lines)
    }
    if !isSound { throw ExitCode(2) }
  }
}

extension MaintenanceProgress {
  /// For the progress line.
  var text: String {
    guard totalCount > 0 else { return "\(activity): \(doneCount)" }
    let share = min(1, Double(doneCount) / Double(totalCount)) * 100
    return "\(activity): \(doneCount) of \(totalCount) (\(decimalText(share, digits: 2)) %)"
  }
}

/// The JSON of `verify`.
struct VerificationDocument: CommandDocument {
  static let schema = "verify"

  struct FindingDocument: Encodable {
    var kind: String
    var place: String
    var text: String
  }

  var isSound: Bool
  var findingCount: Int
  var findings: [FindingDocument]
  var rowCount: Int
  var namespaceCount: Int
  var runCount: Int
  var blockCount: Int
  var headerCount: Int
  var payloadCount: Int
  var payloadByteCount: UInt64
  var movedCount: Int
  var wasWritten: Bool
  var leftOverReservedSlotCount: Int
  var leftOverLeaseCount: Int
  var leftOverOwnerFileCount: Int
  var leftOverSlotFileCount: Int

  init(_ result: Verification) {
    isSound = result.isSound
    findingCount = result.findingCount
    findings = result.findings.map {
      FindingDocument(kind: $0.kind.rawValue, place: $0.place, text: $0.text)
    }
    rowCount = result.rowCount
    namespaceCount = result.namespaceCount
    runCount = result.runCount
    blockCount = result.blockCount
    headerCount = result.headerCount
    payloadCount = result.payloadCount
    payloadByteCount = result.payloadByteCount
    movedCount = result.movedCount
    wasWritten = result.wasWritten
    leftOverReservedSlotCount = result.leftOver.reservedSlotCount
    leftOverLeaseCount = result.leftOver.leaseCount
    leftOverOwnerFileCount = result.leftOver.ownerFileCount
    leftOverSlotFileCount = result.leftOver.slotFileCount
  }

  /// The document for people.
  var lines: [String] {
    let payload =
      payloadCount == 0 && headerCount > 0
      ? "not read" : "\(payloadCount) blocks, \(byteText(payloadByteCount))"
    var fields = [
      ("catalog rows", "\(rowCount)"),
      ("namespaces", "\(namespaceCount)"),
      ("runs", "\(runCount)"),
      ("blocks", "\(blockCount)"),
      ("headers compared", "\(headerCount)"),
      ("payload compared", payload),
    ]
    if movedCount > 0 { fields.append(("moved on meanwhile", "\(movedCount)")) }
    if wasWritten {
      fields.append(("written meanwhile", "yes: sums compared only within a snapshot"))
    }
    let left = [
      (leftOverReservedSlotCount, "reserved slot"), (leftOverLeaseCount, "lease"),
      (leftOverOwnerFileCount, "lock file"), (leftOverSlotFileCount, "slot file"),
    ].filter { $0.0 > 0 }.map { counted($0.0, $0.1) }
    if !left.isEmpty {
      fields.append(("left by dead processes", left.joined(separator: ", ") + " (no fault)"))
    }
    var lines = fieldLines(fields.map { (name: $0.0, value: $0.1) })
    lines.append("")
    guard !isSound else { return lines + ["sound"] }
    for finding in findings { lines.append("\(finding.kind)  \(finding.place): \(finding.text)") }
    let rest = findingCount - findings.count
    if rest > 0 { lines.append("… and \(rest) more") }
    lines.append(
      "\(counted(findingCount, "finding")): damaged blocks are misses, never wrong bytes"
    )
    return lines
  }
}
