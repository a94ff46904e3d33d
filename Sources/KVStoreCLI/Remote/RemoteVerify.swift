import ArgumentParser
import KVCore
import KVFile
import KVRedis
import KVRemote

/// `kvstore remote verify`: reads every object and checks it.
struct RemoteVerify: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify",
    abstract: "Read every object of the remote and check it.",
    discussion: """
      Checks each chunk's header, checksums, name and identity, and with --key-file its authentication code. Reads everything: \
      as many bytes as `remote stat` shows. Exit status 2 when something is wrong. Damage means misses, never wrong bytes; \
      --remove takes damaged objects away, so that stores write them again.

      EXAMPLES
        kvstore remote verify redis://cache
        kvstore remote verify redis://cache --identity 2f9c --key-file /etc/kvstore/remote.key --json
      """
  )

  @OptionGroup var options: RemoteOptions

  @Option(help: "Only this identity, as `remote stat` shows it; its first digits do.")
  var identity: String?

  @Option(help: "File with the key that the machines share, of mode 0600.", completion: .file())
  var keyFile: String?

  @Flag(help: "Remove what is damaged.")
  var remove = false

  func validate() throws {
    if let identity { try RemoteIdentity.checkDigits(identity) }
  }

  func run() throws {
    let key = try readKey()
    var isSound = true
    try options.withRemote { remote, _ in
      var check = RemoteCheck(remote, options, key)
      let line = ProgressLine()
      defer { line.clear() }
      let prefix = RemoteName("kv1:\((identity ?? "").lowercased())")
      try eachPage(of: remote, prefix: prefix, options) { names in
        try check.add(names) { line.show("objects: \($0)") }
      }
      if remove {
        check.document.removedCount = try remote.remove(
          check.damaged,
          deadline: options.deadline
        )
      }
      line.clear()
      isSound = check.document.findingCount == 0
      try options.show(check.document, check.document.lines)
    }
    if !isSound { throw ExitCode(2) }
  }

  private func readKey() throws -> RemoteKey? {
    guard let keyFile else { return nil }
    do throws(PrivateFileError) {
      let bytes = try readPrivateFile(keyFile, byteCountMax: RemoteKey.byteCountMax + 2)
      if let key = RemoteKey(bytes) { return key }
    } catch { throw CommandFailure("\(keyFile): \(error.text)") }
    throw CommandFailure(
      "\(keyFile): a key has \(RemoteKey.byteCountMin) to \(RemoteKey.byteCountMax) bytes"
    )
  }
}

/// Objects of a remote, looked at one after the other.
///
/// Unsafe: objects are read into memory of its own.
private struct RemoteCheck {
  var document = RemoteVerifyDocument()
  /// What can be removed.
  private(set) var damaged: [RemoteName] = []
  private let remote: RedisObjects
  private let options: RemoteOptions
  private let key: RemoteKey?
  private var seen: Set<RemoteName> = []
  private var identities: [String: RemoteNamespace?] = [:]
  /// So many objects are read at once.
  private static let groupCount = 4
  private static let findingCountMax = 1000

  init(_ remote: RedisObjects, _ options: RemoteOptions, _ key: RemoteKey?) {
    self.remote = remote
    self.options = options
    self.key = key
  }

  mutating func add(_ names: [RemoteName], _ progress: (Int) -> Void) throws {
    let own = names.filter { RemoteIdentity.parts(of: $0) != nil && !seen.contains($0) }
    seen.formUnion(own)
    for start in stride(from: 0, to: own.count, by: Self.groupCount) {
      try read(Array(own[start..<min(start + Self.groupCount, own.count)]))
      progress(document.objectCount)
    }
  }

  private mutating func read(_ names: [RemoteName]) throws {
    var objects: [Int: UnsafeMutableRawBufferPointer] = unsafe [:]
    defer { unsafe objects.values.forEach { unsafe $0.deallocate() } }
    var reads = [RemoteRead](repeating: .absent, count: names.count)
    // Each of them may take as long as an answer.
    let limit = deadline(after: UInt64(names.count) * options.timeout.seconds * 1_000_000_000)
    try unsafe remote.get(names, deadline: limit) { index, byteCount in
      let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 64)
      unsafe objects[index] = memory
      return unsafe memory
    } done: { index, read in
      reads[index] = read
    }
    for (index, name) in names.enumerated() {
      switch reads[index] {
      case .whole(let byteCount):
        guard let memory = unsafe objects[index] else { continue }
        document.objectCount += 1
        document.byteCount += byteCount
        try unsafe look(at: name, UnsafeRawBufferPointer(rebasing: memory[..<byteCount]))
      // Gone since it was listed.
      case .absent, .skipped: continue
      case .failed(.refused):
        document.objectCount += 1
        find(name, "format", "no string")
      case .failed(let error): throw error
      }
    }
  }

  private mutating func find(_ name: RemoteName, _ kind: String, _ text: String) {
    document.findingCount += 1
    damaged.append(name)
    if document.findings.count < Self.findingCountMax {
      document.findings.append(.init(name: name.text, kind: kind, text: text))
    }
  }

  private mutating func look(at name: RemoteName, _ bytes: UnsafeRawBufferPointer) throws {
    guard let parts = RemoteIdentity.parts(of: name) else { return }
    if parts.isRecord {
      document.recordCount += 1
      guard let identity = NamespaceIdentity(record: unsafe Array(bytes)) else {
        return find(name, "record", "no identity record")
      }
      // The record of a salted namespace names no salt: its digest cannot be made again from it.
      guard !NamespaceIdentity.recordHasSalt(unsafe Array(bytes)),
        let space = RemoteNamespace(identity, key: nil), space.recordName == name
      else {
        if key == nil { document.unprovenCount += 1 }
        return
      }
      return
    }
    let view: ChunkView
    do throws(ChunkFlaw) {
      view = unsafe try ChunkView(bytes)
      try view.checkPayload()
    } catch { return find(name, "\(error)", error.text) }
    document.chunkCount += 1
    document.blockCount += view.blocks.count
    guard let space = try namespace(parts.identity) else {
      document.unprovenCount += 1
      return
    }
    do throws(ChunkFlaw) {
      // 0: an object whose life is over is no damage; the server lets it go.
      try view.check(space, blocks: view.range, now: 0)
    } catch { return find(name, "\(error)", error.text) }
    guard let last = view.blocks.last, space.chunkName(last.blockKey) == name else {
      return find(name, "name", "it is the chunk of another name")
    }
  }

  /// The namespace of an identity by the record beside its objects; nil where the record or the key is missing that would prove it.
  private mutating func namespace(_ identity: String) throws -> RemoteNamespace? {
    if let known = identities[identity] { return known }
    let record = try RemoteIdentity.record(of: identity, remote, options)
    let found = record.flatMap { record -> RemoteNamespace? in
      guard !NamespaceIdentity.recordHasSalt(record),
        let parsed = NamespaceIdentity(record: record)
      else { return nil }
      let candidates = [
        RemoteNamespace(parsed, key: nil), key.flatMap { RemoteNamespace(parsed, key: $0) },
      ]
      return candidates.compactMap(\.self).first { $0.recordName.text == "kv1:\(identity):id" }
    }
    identities[identity] = .some(found)
    return found
  }
}

extension ChunkFlaw {
  fileprivate var text: String {
    switch self {
    case .format: "no chunk, or one of another version"
    case .length: "cut, or longer than it says"
    case .damaged: "a checksum or a number is not right"
    case .code: "its authentication code is not right"
    case .identity: "of another namespace"
    case .tokens: "of other tokens"
    case .expired: "its life is over"
    }
  }
}

/// The JSON of `remote verify`.
struct RemoteVerifyDocument: CommandDocument {
  static let schema = "remote-verify"

  struct Finding: Encodable {
    var name: String
    var kind: String
    var text: String
  }

  var objectCount = 0
  var byteCount = 0
  var chunkCount = 0
  var blockCount = 0
  var recordCount = 0
  /// Sound in themselves; whose they are could not be checked, for lack of a record or of the key.
  var unprovenCount = 0
  var findingCount = 0
  /// The first thousand.
  var findings: [Finding] = []
  var removedCount = 0

  /// The document for people.
  var lines: [String] {
    var fields = [
      ("objects", "\(objectCount), \(byteText(byteCount))"), ("chunks", "\(chunkCount)"),
      ("blocks", "\(blockCount)"), ("records", "\(recordCount)"),
    ]
    if unprovenCount > 0 {
      fields.append(
        ("not proven", "\(unprovenCount) (their record or key is not here: --key-file)")
      )
    }
    var lines = fieldLines(fields) + [""]
    if findingCount == 0 { return lines + ["sound"] }
    lines += findings.map { "\($0.kind)  \(printable($0.name))\n  \($0.text)" }
    if findingCount > findings.count { lines.append("and \(findingCount - findings.count) more") }
    if removedCount > 0 { lines.append("\(counted(removedCount, "object")) removed") }
    return lines
  }
}
