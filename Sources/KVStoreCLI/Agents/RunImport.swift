import FoundationEssentials
import KVAdmin
import KVCore
import KVStore

/// Takes a run that `RunExport` or `kvstore.agent.carry` wrote into a user's namespaces.
struct RunImport {
  private let read: (Int) -> [UInt8]
  private var checksum = SHA256()
  private var blockCount = 0
  private var byteCount = 0

  private static let headByteCountMax = 64 << 20
  private static let payloadByteCountMax = 1 << 20
  /// Of steps and logs (run.py).
  private static let priority: UInt8 = 90

  private struct Head: Decodable {
    struct Record: Decodable {
      struct Origin: Decodable {
        var run: String
        var at: Int
      }
      var created: Double?
      var origin: Origin?
    }
    var run: String?
    var session: String?
    var rest: Double?
    var record: Record?
    var path: String?
    var large: Bool?
    var end: Int?
    var sha256: String?
    var sizes: [Int]
  }

  /// `read` gives what comes behind the magic.
  init(read: @escaping (Int) -> [UInt8]) {
    self.read = read
    unsafe RunExport.magic.withUnsafeBytes { unsafe checksum.update($0) }
  }

  mutating func take(
    as owner: AgentOwner,
    into store: Store,
    progress: (_ blockCount: Int, _ byteCount: Int) -> Void
  ) throws -> RunImportDocument {
    let (head, _) = try next()
    guard let name = head.run, let record = head.record else { throw Self.noRun }
    let records = try store.openNamespace(owner.identity(areLarge: false))
    var pieces: Namespace?
    let reader = AgentRuns(inspector: store.inspector)
    let entry = AgentRun.Entry(run: name, session: head.session, created: 0, origin: nil)
    let run = AgentRun(namespace: records.id, entry: entry)
    let recordKey = reader.recordKey(run)
    guard try reader.payloads([recordKey], records.id).isEmpty else {
      throw CommandFailure("there is a run \(name) of this user already")
    }
    let life = head.rest.map { rest in
      TimeToLive.absolute(nanoseconds: UInt64(max(0.001, min(rest, 3e9)) * 1e9))
    }
    var last: [[UInt8]] = []
    while true {
      let (part, payloads) = try next()
      if let end = part.end {
        guard end == blockCount, last.count == 1 else { throw Self.cut }
        break
      }
      guard let path = part.path.map(AgentKey.bytes(hexadecimal:)),
        path.count == 32 * payloads.count, !payloads.isEmpty
      else { throw Self.noRun }
      blockCount += payloads.count
      byteCount += payloads.reduce(0) { $0 + $1.count }
      progress(blockCount, byteCount)
      if path == recordKey {
        // Last: until then there is no run.
        last = payloads
        continue
      }
      if part.large == true, pieces == nil {
        pieces = try store.openNamespace(owner.identity(areLarge: true))
      }
      let namespace = part.large == true ? pieces ?? records : records
      try put(payloads, AgentKey.words(path), namespace, life)
    }
    try flush(store)
    try put(last, AgentKey.words(recordKey), records, life)
    try flush(store)
    try register(name, head.session, record, in: records, store, reader)
    return RunImportDocument(
      run: name,
      session: head.session,
      namespace: records.id.rawValue,
      blockCount: blockCount,
      payloadByteCount: byteCount
    )
  }

  private func put(
    _ payloads: [[UInt8]],
    _ words: [UInt32],
    _ namespace: Namespace,
    _ life: TimeToLive?
  ) throws {
    let isStored = try namespace.store(
      payloads,
      of: words,
      timeToLive: life ?? .unlimited,
      priority: Self.priority
    )
    guard isStored else { throw CommandFailure("the store has no place for the run") }
  }

  private func flush(_ store: Store) throws {
    let flushed = try store.flush()
    let lost =
      flushed.droppedFullBlockCount + flushed.droppedParentBlockCount
      + flushed.droppedErrorBlockCount
    guard lost == 0 else { throw CommandFailure("the store has no place for the run") }
  }

  /// Notes the run for `inspect runs` and `AgentStore.runs`, at the end of its user's list (lists.py).
  private func register(
    _ name: String,
    _ session: String?,
    _ record: Head.Record,
    in records: Namespace,
    _ store: Store,
    _ reader: AgentRuns
  ) throws {
    let now = SystemClock().realTimeNanoseconds()
    let created = record.created ?? Double(now) / 1e9
    let origin = record.origin.map { "{\"run\":\(AgentKey.quoted($0.run)),\"at\":\($0.at)}" }
    let text =
      "{\"run\":\(AgentKey.quoted(name)),\"session\":\(AgentKey.quoted(session)),"
      + "\"created\":\(created),\"origin\":\(origin ?? "null")}"
    let entry = AgentRecord.encoded(content: Array(text.utf8), storedNanoseconds: now)
    let list = try reader.register(records.id)
    var page = 0
    while true {
      let digests = AgentKey.page(page, ofList: list)
      let count = try reader.payloads(digests, records.id).count
      guard count < digests.count else {
        page += 1
        continue
      }
      let path = Array(digests.prefix(count + 1))
      let words = path.flatMap(AgentKey.words)
      _ = try records.store([entry], of: words, timeToLive: .unlimited, priority: 100)
      try flush(store)
      // What is there stays: another process may have been first at this place.
      let stored = try reader.payloads(path, records.id)
      guard stored.count == path.count else {
        throw CommandFailure("the store has no place for the run")
      }
      if stored.last == entry { return }
    }
  }

  // MARK: - The file

  private static let noRun = CommandFailure("not a run that kvstore has exported")
  private static let cut = CommandFailure("the file ends too early, or is damaged: copy it again")

  private mutating func next() throws -> (head: Head, payloads: [[UInt8]]) {
    let before = checksum
    let size = try bytes(4).reversed().reduce(0) { $0 << 8 | Int($1) }
    guard size <= Self.headByteCountMax else { throw Self.noRun }
    let text = try bytes(size)
    guard let head = try? JSONDecoder().decode(Head.self, from: Data(text)) else {
      throw Self.noRun
    }
    if head.end != nil, head.sha256 != AgentKey.hexadecimal(before.finished()) { throw Self.cut }
    var payloads: [[UInt8]] = []
    for size in head.sizes {
      guard (0...Self.payloadByteCountMax).contains(size) else { throw Self.noRun }
      payloads.append(try bytes(size))
    }
    return (head, payloads)
  }

  private mutating func bytes(_ count: Int) throws -> [UInt8] {
    let found = count == 0 ? [] : read(count)
    guard found.count == count else { throw Self.cut }
    unsafe found.withUnsafeBytes { unsafe checksum.update($0) }
    return found
  }
}

/// The JSON of `import` of a run.
struct RunImportDocument: CommandDocument {
  static let schema = "import-run"

  var run: String
  var session: String?
  var namespace: UInt32
  var blockCount: Int
  var payloadByteCount: Int

  /// The document for people.
  var text: String {
    "namespace \(namespace): run \(printable(run)), \(counted(blockCount, "block")) stored; \(byteText(payloadByteCount)) of payload read"
  }
}
