import ArgumentParser
import Glibc
import KVAdmin
import KVCore
import KVStore

/// `kvstore import`: takes the blocks of a portable file into a store.
struct ImportCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "import",
    abstract: "Take the blocks, or the run, of an exported file into a store.",
    discussion: """
      They go into the namespace of the identity that the file carries, which is made when it is not there: an engine finds them when its own \
      identity is the same in every field. Blocks that are stored already stay as they are. Each block is checked by its checksum and its key; \
      the first that fails ends the import with status 1, and what came before stays. The checksums find damage, not forgery: import only \
      files whose writer you trust. Works at rest and beside a live server.

      An agent's run becomes that of --user, once the file was read to its end: one that is damaged leaves no run.

      EXAMPLES
        kvstore import STORE warm.kvblocks
        kvstore import NEW-STORE warm.kvblocks --create --capacity 200G
        kvstore import STORE report-7.run --user bob
      """
  )

  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @ArgumentParser.Argument(
    help: "The file that kvstore export wrote; - is the standard input.",
    completion: .file()
  )
  var file: String

  @Option(
    help: ArgumentHelp(
      "What the store may take on disk, as its engine opens it: older blocks leave for new ones.",
      discussion: "(default: what it was made with, or grown for)",
      valueName: "bytes"
    )
  )
  var capacity: ByteSize?

  @OptionGroup var owner: AgentOwner

  @Flag(help: "Make the store, of --capacity (default 10 GiB), where there is none.")
  var create = false

  @Flag(help: "Print one JSON document.")
  var json = false

  func run() throws {
    let input = try InputFile(path: file)
    if create, folderEntries(store).isEmpty {
      try reportingErrors(at: store) {
        var configuration = StoreConfiguration(path: store)
        if let capacity { configuration.capacityBytes = capacity.byteCount }
        configuration.hostBytes = 0
        try Store.open(configuration).close()
      }
    }
    try withStore(
      at: store,
      readOnly: false,
      hostBytes: portableHostBytes,
      capacity: .exactly(capacity?.byteCount)
    ) { opened in
      let line = ProgressLine()
      if input.skips(RunExport.magic) {
        var run = RunImport(read: input.read)
        let document = try run.take(as: owner, into: opened) {
          line.show("\($0) blocks, \(byteText($1))")
        }
        line.clear()
        return print(json ? try jsonText(document) : document.text)
      }
      guard owner.user == nil, owner.secretFile == nil else {
        throw CommandFailure("--user is for an agent's run, and this file is none")
      }
      let result = try opened.importBlocks(
        progress: { line.show("\($0.blockCount) blocks, \(byteText($0.payloadByteCount))") },
        read: input.read
      )
      line.clear()
      let document = ImportDocument(result, readError: input.error)
      print(json ? try jsonText(document) : document.text)
      if let problem = document.problem {
        let name = file == "-" ? "the standard input" : file
        let kept = result.blockCount > 0 ? "; what came before is kept" : ""
        throw CommandFailure("\(name): \(problem)\(kept)")
      }
    }
  }
}

/// The JSON of `import`.
struct ImportDocument: CommandDocument {
  static let schema = "import"

  /// nil when the file did not say whose blocks they are.
  var namespace: UInt32?
  /// Blocks of the file that were whole.
  var blockCount: Int
  var storedBlockCount: Int
  var knownBlockCount: Int
  var droppedBlockCount: Int
  var payloadByteCount: Int
  var problem: String?
  /// Where in the file.
  var problemOffset: Int?

  init(_ result: ImportResult, readError: Int32) {
    namespace = result.namespace?.rawValue
    blockCount = result.blockCount
    storedBlockCount = result.storedBlockCount
    knownBlockCount = result.knownBlockCount
    droppedBlockCount = result.droppedBlockCount
    payloadByteCount = result.payloadByteCount
    guard let found = result.problem else { return }
    problemOffset = result.problemOffset
    let place = "at byte \(result.problemOffset)"
    guard readError == 0 else {
      problem = "cannot be read: \(errorText(readError)), in the record \(place)"
      return
    }
    problem =
      switch found {
      case .notABlockFile: "not a file that kvstore export has written"
      case .version(let version): "of version \(version), which this kvstore does not read"
      case .identity: "the identity record cannot be taken"
      case .truncated: "it ends in the middle of the record \(place): copy it again"
      case .damaged: "the record \(place) is damaged: copy it again"
      }
  }

  /// The document for people.
  var text: String {
    let known = knownBlockCount > 0 ? ", \(knownBlockCount) stored before" : ""
    let dropped = droppedBlockCount > 0 ? ", \(droppedBlockCount) not kept for want of room" : ""
    let place = namespace.map { "namespace \($0): " } ?? ""
    return
      "\(place)\(counted(storedBlockCount, "block")) stored\(known)\(dropped); \(byteText(payloadByteCount)) of payload read"
  }
}

/// A file that is read from its beginning to its end.
private final class InputFile {
  private let descriptor: Int32
  /// What ended it, besides its end.
  private(set) var error: Int32 = 0
  /// Read, and not taken.
  private var waiting: [UInt8] = []

  init(path: String) throws {
    descriptor = path == "-" ? 0 : unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw CommandFailure("cannot read \(path): \(errorText(errno))")
    }
  }

  deinit { if descriptor > 0 { close(descriptor) } }

  /// Whether it begins with these bytes, which are read then.
  func skips(_ start: [UInt8]) -> Bool {
    waiting = read(start.count)
    guard waiting == start else { return false }
    waiting = []
    return true
  }

  /// So many bytes, fewer at the end.
  func read(_ byteCount: Int) -> [UInt8] {
    guard waiting.isEmpty else {
      let first = Array(waiting.prefix(byteCount))
      waiting.removeFirst(first.count)
      return first.count < byteCount ? first + read(byteCount - first.count) : first
    }
    return readNew(byteCount)
  }

  private func readNew(_ byteCount: Int) -> [UInt8] {
    unsafe Array(unsafeUninitializedCapacity: byteCount) { bytes, count in
      while count < byteCount {
        let got = unsafe Glibc.read(
          descriptor,
          bytes.baseAddress.map { unsafe $0 + count },
          byteCount - count
        )
        if got < 0, errno == EINTR { continue }
        if got < 0 { error = errno }
        guard got > 0 else { return }
        count += got
      }
    }
  }
}
