import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore repair`: rebuilds a damaged or lost catalog from what is provably intact.
struct RepairCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "repair",
    abstract: "Rebuild the catalog of a stopped store from what is provably intact.",
    discussion: """
      Reads every slot, gives back each block whose bytes and ancestors verify, and keeps what it \
      replaces in a folder repair-… in the store. Needs the store stopped. --dry-run only counts. \
      A catalog that is intact is replaced with --force only, since some of what it holds is lost.

      EXAMPLES
        kvstore repair STORE --dry-run
        kvstore repair STORE
      """
  )

  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @Flag(help: "Say what would be given back, and replace nothing.")
  var dryRun = false

  @Flag(help: "Replace a catalog that is intact, too.")
  var force = false

  @Flag(help: "Give up what lies in an archive that is not there, instead of refusing.")
  var withoutArchive = false

  @Flag(help: "Print one JSON document.")
  var json = false

  func run() throws {
    try reportingErrors(at: store) {
      let line = ProgressLine()
      let result = try Store.repair(
        StoreConfiguration(path: store),
        dryRun: dryRun,
        force: force,
        withoutArchive: withoutArchive
      ) { progress in line.show(progress.text) }
      line.clear()
      if result.isRefused { throw CommandFailure("\(store): \(refusal(result.kept))") }
      let document = RepairDocument(result, isDryRun: dryRun)
      print(json ? try jsonText(document) : document.lines.joined(separator: "\n"))
    }
  }
}

/// Why a store whose catalog is intact is not repaired.
private func refusal(_ kept: Repair.Kept) -> String {
  """
  the catalog is intact: there is nothing to repair. A new one would lose the order of use, the hits \
  of prefixes, the events and what is said of removed blocks; it would keep \(kept.pinCount) pins and \
  \(kept.sessionCount) sessions as far as their blocks are intact, the history and the counters. \
  kvstore verify says whether blocks are damaged, which needs no repair; --force replaces the catalog
  """
}

/// The JSON of `repair`.
struct RepairDocument: CommandDocument {
  static let schema = "repair"

  var isDryRun: Bool
  var slotCount: Int
  var namespaceCount: Int
  var blockCount: Int
  var payloadByteCount: UInt64
  var inlineBlockCount: Int
  var damagedCount: Int
  var orphanCount: Int
  var removedCount: Int
  var expiredCount: Int
  var supersededCount: Int
  var unknownCount: Int
  var slotFilesSetAside: Int
  var catalogIsSound: Bool
  var keptPinCount: Int
  var keptSessionCount: Int
  var keptHistoryCount: Int
  var keptAside: String?

  init(_ result: Repair, isDryRun: Bool) {
    self.isDryRun = isDryRun
    slotCount = result.slotCount
    namespaceCount = result.namespaceCount
    blockCount = result.blockCount
    payloadByteCount = result.payloadByteCount
    inlineBlockCount = result.inlineBlockCount
    damagedCount = result.damagedCount
    orphanCount = result.orphanCount
    removedCount = result.removedCount
    expiredCount = result.expiredCount
    supersededCount = result.supersededCount
    unknownCount = result.unknownCount
    slotFilesSetAside = result.slotFilesSetAside
    catalogIsSound = result.catalogIsSound
    keptPinCount = result.kept.pinCount
    keptSessionCount = result.kept.sessionCount
    keptHistoryCount = result.kept.historyCount
    keptAside = result.keptAside
  }

  /// The document for people.
  var lines: [String] {
    let inline = inlineBlockCount > 0 ? ", \(inlineBlockCount) of them from the old catalog" : ""
    var fields: [(name: String, value: String)] = [
      ("slots looked at", "\(slotCount)"),
      ("namespaces", "\(namespaceCount)"),
      ("blocks intact", "\(blockCount) (\(byteText(payloadByteCount)))\(inline)"),
    ]
    let left: [(name: String, value: Int)] = [
      ("damaged", damagedCount), ("without their ancestors", orphanCount),
      ("forgotten or purged", removedCount), ("expired", expiredCount),
      ("older copies", supersededCount), ("of nobody known", unknownCount),
      ("slot files set aside", slotFilesSetAside),
      ("pins kept", keptPinCount), ("sessions kept", keptSessionCount),
    ]
    for (name, count) in left where count > 0 { fields.append((name, "\(count)")) }
    var lines = fieldLines(fields)
    lines.append("")
    if isDryRun {
      let intact = catalogIsSound ? "; the catalog is intact, so that a repair needs --force" : ""
      lines.append("dry run: nothing was changed\(intact)")
    } else if let keptAside {
      lines.append("repaired; what was replaced is in \(keptAside): delete it when all is well")
    }
    return lines
  }
}
