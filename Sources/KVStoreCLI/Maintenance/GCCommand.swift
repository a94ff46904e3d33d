import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore gc`: removes what nobody can use any more, and gives free room back.
struct GCCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "gc",
    abstract: "Remove what has expired or was left behind, and give empty slot files back.",
    discussion: """
      Works at rest and beside a live server, which does most of this by itself; what it does not do is to give the room of empty \
      slot files back to the file system. Removes blocks whose life is over, namespaces that hold nothing and that nobody has open, \
      pins that have ended, slots and files that processes left which were killed, and slot files without a used slot.

      EXAMPLES
        kvstore gc STORE --dry-run
        kvstore gc STORE
      """
  )

  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @Flag(help: "Say what would be removed, and remove nothing.")
  var dryRun = false

  @Flag(help: "Print one JSON document.")
  var json = false

  func run() throws {
    var document = GCDocument(isDryRun: dryRun)
    try withStore(at: store, readOnly: true) { opened in
      document.note(try opened.garbage())
      document.diskByteCountBefore = try opened.statistics().diskBytesUsed
      document.diskByteCount = document.diskByteCountBefore
    }
    if !dryRun {
      // What dead processes left goes with the opening.
      try withStore(at: store, readOnly: false) { opened in
        let removed = try opened.collectGarbage()
        document.expiredBlockCount = Int(clamping: try opened.statistics().blocksExpired)
        document.emptyNamespaceCount = removed.namespaceCount
        document.emptyFileCount = removed.fileCount
        document.emptyByteCount = removed.byteCount
      }
      try withStore(at: store, readOnly: true) { opened in
        document.diskByteCount = try opened.statistics().diskBytesUsed
      }
    }
    print(json ? try jsonText(document) : document.lines.joined(separator: "\n"))
  }
}

/// The JSON of `gc`: what was removed, or with --dry-run would be.
struct GCDocument: CommandDocument {
  static let schema = "gc"

  var isDryRun: Bool
  var expiredBlockCount = 0
  var emptyNamespaceCount = 0
  var endedPinCount = 0
  var deadReservedSlotCount = 0
  var strayFileCount = 0
  var strayByteCount = 0
  var setAsideFileCount = 0
  var setAsideByteCount = 0
  var emptyFileCount = 0
  var emptyByteCount = 0
  var diskByteCountBefore: UInt64 = 0
  var diskByteCount: UInt64 = 0

  init(isDryRun: Bool) { self.isDryRun = isDryRun }

  mutating func note(_ garbage: Garbage) {
    expiredBlockCount = garbage.expiredBlockCount
    emptyNamespaceCount = garbage.emptyNamespaceCount
    endedPinCount = garbage.endedPinCount
    deadReservedSlotCount = garbage.deadReservedSlotCount
    strayFileCount = garbage.strayFileCount
    strayByteCount = garbage.strayByteCount
    setAsideFileCount = garbage.setAsideFileCount
    setAsideByteCount = garbage.setAsideByteCount
    emptyFileCount = garbage.emptyFileCount
    emptyByteCount = garbage.emptyByteCount
  }

  /// The document for people.
  var lines: [String] {
    var lines = fieldLines([
      ("expired blocks", "\(expiredBlockCount)"),
      ("empty namespaces", "\(emptyNamespaceCount)"),
      ("ended pins", "\(endedPinCount)"),
      ("slots of dead processes", "\(deadReservedSlotCount)"),
      ("stray slot files", "\(strayFileCount) (\(byteText(strayByteCount)))"),
      (
        "set aside (*.aside, kept)", "\(setAsideFileCount) (\(byteText(setAsideByteCount)))"
      ),
      ("empty slot files", "\(emptyFileCount) (\(byteText(emptyByteCount)))"),
    ])
    lines.append("")
    lines.append(
      isDryRun
        ? "nothing was removed (--dry-run)"
        : "on disk: \(byteText(diskByteCount)), before \(byteText(diskByteCountBefore))"
    )
    return lines
  }
}
