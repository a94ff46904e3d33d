import ArgumentParser
import KVStore

/// `kvstore init`: makes an empty store.
struct InitCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "init",
    abstract: "Make an empty store.",
    discussion: """
      An engine makes the store itself when it opens one that is not there. Make it beforehand to choose what is fixed \
      then, to see whether the folder serves, or to import blocks into it.

      EXAMPLES
        kvstore init /var/cache/my-engine --capacity 200G
        kvstore init STORE --capacity 200G --archive 1T --archive-path /mnt/large/kv
      """
  )

  @ArgumentParser.Argument(
    help: "The store's folder; made when absent, and empty otherwise.",
    completion: .directory
  )
  var store: String

  @Option(help: "Upper bound of the bytes on disk, metadata included: 200G, 1.5TiB.")
  var capacity: ByteSize

  @Option(help: "The part of it that the catalog may use. (default: a sixteenth, at least 32 MiB)")
  var catalog: ByteSize?

  @Option(help: "Bytes of an archive, in addition. (default: no archive)")
  var archive: ByteSize?

  @Option(
    help: "A folder for the archive, for example on a larger and slower disk.",
    completion: .directory
  )
  var archivePath: String?

  @Flag(help: "Print one JSON document.")
  var json = false

  func validate() throws {
    guard archivePath == nil || archive != nil else {
      throw ValidationError("--archive-path needs --archive.")
    }
  }

  func run() throws {
    try reportingErrors(at: store) {
      guard folderEntries(store).isEmpty else {
        throw CommandFailure("\(store): the folder is not empty")
      }
      var configuration = StoreConfiguration(path: store)
      configuration.capacityBytes = capacity.byteCount
      configuration.catalogBytes = catalog?.byteCount ?? 0
      configuration.archiveBytes = archive?.byteCount ?? 0
      configuration.archivePath = archivePath ?? ""
      configuration.hostBytes = 0
      let made = try Store.open(configuration)
      let statistics = try made.statistics()
      try made.close()
      let document = InitDocument(
        path: store,
        capacityByteCount: Int(clamping: statistics.diskBytesCapacity),
        catalogByteCount: Int(clamping: statistics.catalogBytesCapacity),
        archiveByteCount: Int(clamping: statistics.archiveBytesCapacity),
        freeByteCount: freeByteCount(at: store)
      )
      print(json ? try jsonText(document) : document.text)
    }
  }
}

/// The JSON of `init`.
struct InitDocument: CommandDocument {
  static let schema = "init"

  var path: String
  var capacityByteCount: Int
  var catalogByteCount: Int
  var archiveByteCount: Int
  /// What the file system has free; nil when it does not say.
  var freeByteCount: Int?

  /// The document for people.
  var text: String {
    let archive = archiveByteCount > 0 ? ", and \(byteText(archiveByteCount)) of archive" : ""
    let made =
      "\(printable(path)): an empty store of \(byteText(capacityByteCount)), \(byteText(catalogByteCount)) of them for the catalog\(archive)"
    guard let freeByteCount, freeByteCount < capacityByteCount else { return made }
    return made
      + "\nonly \(byteText(freeByteCount)) are free there: it evicts when they are used up"
  }
}
