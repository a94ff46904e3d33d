import ArgumentParser
import KVAdmin
import KVCore
import KVStore

/// `kvstore set`: changes what was chosen when a store was made.
struct SetCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "set",
    abstract: "Change what was chosen when a store or a namespace was made.",
    subcommands: [
      SetQuotaCommand.self, SetTTLCommand.self, SetCapacityCommand.self, SetArchivePathCommand.self,
    ]
  )
}

/// `kvstore set archive-path`: moves the archive of a stopped store to another folder.
struct SetArchivePathCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "archive-path",
    abstract: "Move the archive of a stopped store to another folder or disk.",
    discussion: """
      The archive's files are copied to a folder in PATH that is named by the store's UUID, synced, and then removed from \
      the old place. Interrupt it at any time: the archive is whole in one of the two places, and the same command goes on. \
      If you have moved the folder yourself, it is found there. The engine opens the store with the new path from then on \
      (archive_path). Needs the store stopped.

      EXAMPLES
        kvstore set archive-path STORE /mnt/large/kv
      """
  )

  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @ArgumentParser.Argument(
    help: "The folder that the archive is to lie in; made when absent.",
    completion: .directory
  )
  var path: String

  @Flag(help: "Print one JSON document.")
  var json = false

  func run() throws {
    try reportingErrors(at: store) {
      let line = ProgressLine()
      defer { line.clear() }
      let move = try Store.moveArchive(StoreConfiguration(path: store), to: path) {
        line.show("\(byteText($0)) of \(byteText($1)) copied")
      }
      line.clear()
      let document = SetArchivePathDocument(
        path: move.path,
        archivePath: path,
        fileCount: move.fileCount,
        byteCount: move.byteCount
      )
      print(json ? try jsonText(document) : document.text)
    }
  }
}

/// The JSON of `set archive-path`.
struct SetArchivePathDocument: CommandDocument {
  static let schema = "set-archive-path"

  /// The folder in which the archive lies now.
  var path: String
  /// What the store has to be opened with.
  var archivePath: String
  var fileCount: Int
  var byteCount: Int

  /// The document for people.
  var text: String {
    let what =
      fileCount == 0
      ? "the archive is in \(path)"
      : "the archive is in \(path): \(fileCount) files, \(byteText(byteCount))"
    return what + "\nopen the store with archive_path = \(archivePath) from now on"
  }
}
