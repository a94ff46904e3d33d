import ArgumentParser
import Glibc
import KVAdmin
import KVCore
import KVStore

/// `kvstore export`: a namespace, or a prefix, as one portable file.
struct ExportCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "export",
    abstract: "Write a namespace, the front of a prompt, or an agent's run into one portable file.",
    discussion: """
      Every byte is verified as it is read, and the file has checksums of its own. Works at rest and beside a live server, which may \
      remove blocks meanwhile. A namespace with a salt is refused: of a salt only a keyed digest is stored, which no other store could \
      compare. The file is readable for its owner only: who has it has the prompts' token ids.

      EXAMPLES
        kvstore export STORE warm.kvblocks
        kvstore export STORE warm.kvblocks --prompt system-prompt.json
        kvstore export STORE - | ssh HOST kvstore import STORE -
        kvstore export STORE report-7.run --run report-7 --user ann
      """
  )

  @ArgumentParser.Argument(help: "The store's folder.", completion: .directory)
  var store: String

  @ArgumentParser.Argument(
    help: "The file to write, which must not be there (see --force); - is the standard output.",
    completion: .file()
  )
  var file: String

  @Option(
    help: ArgumentHelp(
      "Only the stored front of this prompt: a file with token ids (1 2 3 or [1, 2, 3]); - is the standard input.",
      valueName: "file"
    ),
    completion: .file()
  )
  var prompt: String?

  @OptionGroup var chosen: OneNamespaceOption

  @Option(
    name: .customLong("run"),
    help: ArgumentHelp(
      "This run of an agent: its steps, its log, and all that its calls were answered.",
      valueName: "name"
    )
  )
  var agentRun: String?

  @Option(help: "The run's session, where runs of several have that name.")
  var session: String?

  @OptionGroup var owner: AgentOwner

  @Flag(help: "Take the place of a file that is there, once the new one is whole.")
  var force = false

  @Flag(help: "Print one JSON document.")
  var json = false

  func validate() throws {
    guard agentRun == nil || prompt == nil && chosen.namespace == nil else {
      throw ValidationError("--run is for itself: --user says whose it is.")
    }
    guard agentRun != nil || session == nil && owner.user == nil && owner.secretFile == nil else {
      throw ValidationError("--session, --user and --secret-file go with --run.")
    }
  }

  func run() throws {
    try withStore(at: store, readOnly: true, hostBytes: portableHostBytes) { opened in
      if let agentRun { return try export(agentRun, of: opened) }
      let (namespace, identity) = try chosen.selected(in: opened)
      guard !namespace.hasSalt else {
        throw CommandFailure(
          "namespace \(namespace.id.rawValue) has a salt, of which only a keyed digest is stored: no other store could take its blocks"
        )
      }
      let words = try prompt.map { try PromptInput(path: $0, identity: identity).words }
      let output = try OutputFile.make(file, isForced: force)
      let line = ProgressLine()
      let total = words.map { $0.count / identity.wordsPerBlock } ?? namespace.blockCount
      let result = try opened.exportBlocks(
        of: namespace.id,
        prompt: words,
        progress: {
          line.show("\($0.blockCount) of \(total) blocks, \(byteText($0.payloadByteCount))")
        },
        write: output.write
      )
      line.clear()
      try output.finish(isWhole: result.isComplete)
      let document = ExportDocument(
        file: file,
        namespace: namespace.id.rawValue,
        blockCount: result.blockCount,
        payloadByteCount: result.payloadByteCount,
        missedBlockCount: result.missedBlockCount
      )
      try show(document, output)
    }
  }

  private func export(_ run: String, of opened: Store) throws {
    let output = try OutputFile.make(file, isForced: force)
    let line = ProgressLine()
    var export = RunExport(write: output.write)
    try export.add(run, session: session, of: owner, in: opened) {
      line.show("\($0.blockCount) blocks, \(byteText($0.payloadByteCount))")
    }
    line.clear()
    try output.finish(isWhole: export.result.isComplete)
    let document = ExportDocument(
      file: file,
      namespace: export.namespace?.rawValue ?? 0,
      blockCount: export.result.blockCount,
      payloadByteCount: export.result.payloadByteCount,
      missedBlockCount: 0
    )
    try show(document, output)
  }

  private func show(_ document: ExportDocument, _ output: OutputFile) throws {
    let text = json ? try jsonText(document) : document.text
    if output.isStandardOutput { writeError(text + "\n") } else { print(text) }
  }
}

/// Room in RAM for what is on its way; at least four blocks must fit.
let portableHostBytes = 256 << 20

/// The JSON of `export`.
struct ExportDocument: CommandDocument {
  static let schema = "export"

  var file: String
  var namespace: UInt32
  var blockCount: Int
  var payloadByteCount: Int
  /// Left the store meanwhile, or failed a check, or lay below one that did.
  var missedBlockCount: Int

  /// The document for people.
  var text: String {
    let missed =
      missedBlockCount > 0
      ? "; \(counted(missedBlockCount, "block")) left the store meanwhile, or failed a check" : ""
    return
      "\(printable(file)): \(counted(blockCount, "block")), \(byteText(payloadByteCount)) of payload\(missed)"
  }
}

/// A file that is written from its beginning to its end, or removed.
private final class OutputFile {
  let isStandardOutput: Bool
  private let path: String
  private let descriptor: Int32
  private var error: Int32 = 0
  private var isWhole = false

  /// The name that it is written under; nil: none yet.
  private var written: String?
  private let isForced: Bool
  /// O_TMPFILE, which is defined by O_DIRECTORY and so not imported.
  private static let openNameless: Int32 = 0o20_000_000 | O_DIRECTORY

  private init(path: String, descriptor: Int32, written: String?, isForced: Bool) {
    self.path = path
    self.written = written
    self.isForced = isForced
    self.descriptor = descriptor
    isStandardOutput = descriptor == 1
  }

  /// Throws where there is a file of this name, unless it is to be replaced: nothing is written over, or removed.
  static func make(_ path: String, isForced: Bool) throws -> OutputFile {
    guard path != "-" else {
      guard isatty(1) == 0 else {
        throw CommandFailure("the standard output is a terminal: name a file")
      }
      return OutputFile(path: path, descriptor: 1, written: nil, isForced: false)
    }
    // Without a name until it is whole: a process that is killed leaves nothing. Not every file system can do that.
    var status = stat()
    let isThere = unsafe lstat(path, &status) == 0
    guard !isThere || isForced && status.st_mode & S_IFMT == S_IFREG else {
      throw CommandFailure("cannot create \(path): \(errorText(EEXIST))")
    }
    let folder =
      path.contains("/") ? String(path[...(path.lastIndex(of: "/") ?? path.endIndex)]) : "."
    let nameless = unsafe open(folder, O_WRONLY | openNameless | O_CLOEXEC, 0o600)
    if nameless >= 0 {
      return OutputFile(path: path, descriptor: nameless, written: nil, isForced: isForced)
    }
    let written = isForced ? "\(path).new.\(getpid())" : path
    let descriptor = unsafe open(written, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else {
      throw CommandFailure("cannot create \(written): \(errorText(errno))")
    }
    return OutputFile(path: path, descriptor: descriptor, written: written, isForced: isForced)
  }

  deinit {
    guard !isStandardOutput else { return }
    close(descriptor)
    if !isWhole, let written { unsafe unlink(written) }
  }

  func write(_ bytes: [UInt8]) -> Bool {
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = unsafe rest.withUnsafeBytes {
        unsafe Glibc.write(descriptor, $0.baseAddress, $0.count)
      }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else {
        error = errno
        return false
      }
      rest = rest.dropFirst(count)
    }
    return true
  }

  /// Syncs it, and gives it its name.
  func finish(isWhole: Bool) throws {
    if isWhole, !isStandardOutput, fsync(descriptor) != 0 { error = errno }
    if isWhole, !isStandardOutput, error == 0 { name() }
    guard isWhole, error == 0 else {
      throw CommandFailure("cannot write \(path): \(errorText(error)); it is not whole")
    }
    self.isWhole = true
  }

  private func name() {
    if written == nil {
      let name = isForced ? "\(path).new.\(getpid())" : path
      let own = "/proc/self/fd/\(descriptor)"
      guard unsafe linkat(AT_FDCWD, own, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0 else {
        error = errno
        return
      }
      written = name
    }
    if let written, written != path, unsafe rename(written, path) != 0 { error = errno }
  }
}
