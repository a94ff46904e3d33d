import FoundationEssentials
import KVAdmin
import KVCore
import KVStore

/// Writes a run as the file that `kvstore import` and `kvstore.agent.carry` take (docs/file-format.md, "Exported runs").
struct RunExport {
  private let write: ([UInt8]) -> Bool
  private var checksum = SHA256()
  private(set) var result = ExportResult()
  /// Of its records.
  private(set) var namespace: NamespaceID?

  static let magic = Array("kvstore run 1\n".utf8)

  init(write: @escaping ([UInt8]) -> Bool) { self.write = write }

  mutating func add(
    _ name: String,
    session: String?,
    of owner: AgentOwner,
    in store: Store,
    progress: (ExportResult) -> Void
  ) throws {
    guard let records = try store.openExistingNamespace(owner.identity(areLarge: false)) else {
      throw CommandFailure("the store has no runs of this user")
    }
    namespace = records.id
    let reader = AgentRuns(inspector: store.inspector)
    let summaries = try store.inspector.namespaces().filter { $0.id == records.id }
    let found = try reader.runs(in: summaries).filter {
      $0.entry.run == name && (session == nil || $0.entry.session == session)
    }
    guard let run = found.first else {
      throw CommandFailure("the store has no run \(name) of this user")
    }
    guard found.count == 1 else {
      throw CommandFailure("\(found.count) runs are called \(name): say --session")
    }
    let pieces = try store.openExistingNamespace(owner.identity(areLarge: true))
    put(Self.magic)
    try putHead(run, reader)
    for path in try reader.paths(of: run) {
      let words = AgentKey.words(path.digests)
      let payloads = try (path.isLarge ? pieces : records)?.payloads(of: words) ?? []
      guard payloads.count * 32 == path.digests.count else {
        throw CommandFailure("a part of the run has left the store, so it cannot be exported whole")
      }
      let digests = AgentKey.quoted(AgentKey.hexadecimal(path.digests))
      putPart("\"path\":\(digests),\"large\":\(path.isLarge)", payloads)
      result.blockCount += payloads.count
      result.payloadByteCount += payloads.reduce(0) { $0 + $1.count }
      progress(result)
    }
    let digest = AgentKey.hexadecimal(checksum.finished())
    putPart("\"end\":\(result.blockCount),\"sha256\":\"\(digest)\"", [])
  }

  /// Whose it was, and how long it lives: what an import registers it with.
  private mutating func putHead(_ run: AgentRun, _ reader: AgentRuns) throws {
    struct Life: Decodable { var end: Double? }
    guard
      let record = try reader.payloads([reader.recordKey(run)], run.namespace).first
        .flatMap(AgentRecord.init),
      let content = record.content
    else { throw CommandFailure("run \(run.entry.run) has left the store") }
    // How long is left of its life counts, not when it was to end: clocks differ.
    let now = Double(SystemClock().realTimeNanoseconds()) / 1e9
    let rest = record.content(Life.self)?.end.map { "\(max(0.001, $0 - now))" } ?? "null"
    let text = String(decoding: content, as: UTF8.self)
    putPart(
      "\"run\":\(AgentKey.quoted(run.entry.run)),\"session\":\(AgentKey.quoted(run.entry.session)),"
        + "\"rest\":\(rest),\"record\":\(text)",
      []
    )
  }

  /// A line of JSON behind its length, and the payloads whose lengths are in it.
  private mutating func putPart(_ members: String, _ payloads: [[UInt8]]) {
    let sizes = payloads.map { "\($0.count)" }.joined(separator: ",")
    let text = Array("{\(members),\"sizes\":[\(sizes)]}".utf8)
    put((0..<4).map { UInt8(text.count >> (8 * $0) & 0xff) } + text)
    for payload in payloads { put(payload) }
  }

  private mutating func put(_ bytes: [UInt8]) {
    unsafe bytes.withUnsafeBytes { unsafe checksum.update($0) }
    result.isComplete = write(bytes)
  }
}
