import ArgumentParser
import Glibc
import KVAdmin
import KVCore
import KVStore

/// `kvstore du`: what takes the bytes on disk.
struct UsageCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "du",
    abstract: "Show what takes the bytes on disk: kinds of files, and namespaces.",
    discussion: """
      Files are counted as the file system holds them. Slots that are free stay in their files, so the namespaces' bytes are \
      fewer than those of the slot files; the catalog's do not shrink.

      EXAMPLES
        kvstore du STORE
        kvstore du STORE --json
      """
  )

  @OptionGroup var options: InspectOptions

  func run() throws {
    try options.withStore { store in
      let statistics = try store.statistics()
      let namespaces = try store.inspector.namespaces()
      var document = UsageDocument(
        path: options.store,
        capacityByteCount: Int(clamping: statistics.diskBytesCapacity),
        usedByteCount: Int(clamping: statistics.diskBytesUsed),
        archiveCapacityByteCount: Int(clamping: statistics.archiveBytesCapacity),
        archiveUsedByteCount: Int(clamping: statistics.archiveBytesUsed),
        catalogFileByteCount: 0,
        slotFileByteCount: 0,
        otherFileByteCount: 0,
        namespaces: []
      )
      document.count(options.store)
      document.namespaces = namespaces.map { namespace in
        UsageDocument.Namespace(
          namespace: namespace.id.rawValue,
          modelName: namespace.identity?.modelName ?? "",
          saltMark: namespace.saltMark,
          blockCount: namespace.blockCount,
          payloadByteCount: namespace.payloadByteCount,
          storedByteCount: namespace.storedByteCount
        )
      }.sorted { ($1.storedByteCount, $0.namespace) < ($0.storedByteCount, $1.namespace) }
      try options.show(document, document.lines)
    }
  }
}

/// The JSON of `du`.
struct UsageDocument: CommandDocument {
  static let schema = "du"

  struct Namespace: Encodable {
    var namespace: UInt32
    var modelName: String
    var saltMark: String?
    var blockCount: Int
    var payloadByteCount: Int
    /// As stored: compressed in the archive.
    var storedByteCount: Int
  }

  var path: String
  var capacityByteCount: Int
  /// As the store counts against its capacity.
  var usedByteCount: Int
  var archiveCapacityByteCount: Int
  var archiveUsedByteCount: Int
  /// As the file system has it, the archive's files not counted where they lie elsewhere.
  var catalogFileByteCount: Int
  var slotFileByteCount: Int
  var otherFileByteCount: Int
  /// The largest first.
  var namespaces: [Namespace]

  /// Adds the files of a folder, links not followed.
  mutating func count(_ folder: String) {
    for name in folderEntries(folder) {
      var status = stat()
      let path = "\(folder)/\(name)"
      guard unsafe lstat(path, &status) == 0 else { continue }
      let byteCount = Int(status.st_blocks) * 512
      if status.st_mode & S_IFMT == S_IFDIR {
        count(path)
      } else if name.hasSuffix(".mdb") {
        catalogFileByteCount += byteCount
      } else if folder.hasSuffix("/slots") || folder.hasSuffix("/archive") {
        slotFileByteCount += byteCount
      } else {
        otherFileByteCount += byteCount
      }
    }
  }

  /// The document for people.
  var lines: [String] {
    var fields = [
      (
        "used",
        "\(byteText(usedByteCount)) of \(byteText(capacityByteCount))"
          + (capacityByteCount > 0 ? ", \(usedByteCount * 100 / capacityByteCount) %" : "")
      )
    ]
    if archiveCapacityByteCount > 0 {
      fields.append(
        (
          "archive",
          "\(byteText(archiveUsedByteCount)) of \(byteText(archiveCapacityByteCount)), in addition"
        )
      )
    }
    fields += [
      ("slot files", byteText(slotFileByteCount)), ("catalog", byteText(catalogFileByteCount)),
      ("other files", byteText(otherFileByteCount)),
    ]
    var table = TextTable([
      ("stored", .right), ("payload", .right), ("blocks", .right), ("namespace", .left),
    ])
    for one in namespaces {
      let salt = one.saltMark.map { ", salt \($0)" } ?? ""
      let name = one.modelName.isEmpty ? salt : " (\(printable(one.modelName))\(salt))"
      table.append([
        byteText(one.storedByteCount), byteText(one.payloadByteCount), "\(one.blockCount)",
        "\(one.namespace)\(name)",
      ])
    }
    return fieldLines(fields) + (namespaces.isEmpty ? [] : [""] + table.lines())
  }
}
