import ArgumentParser
import Dispatch
import FoundationEssentials
import Glibc
import KVCore
import Synchronization

/// `kvstore weights-digest`: reads a model's weights whole, once, and keeps what tells them from others.
struct WeightsDigestCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "weights-digest",
    abstract: "Make and keep a digest of a model's weights: every byte of every file.",
    discussion: """
      Engines tell one model's KV from another's by a digest of its weights. By themselves they read samples of large files, and \
      take a file that was copied or changed for another one. This command reads the files whole; the Python package then takes the \
      digest that is kept, as long as the files are not written to, renamed or replaced. In the settings of an engine, for a model \
      that it cannot read or that is copied at each start, give the digest itself as weights_digest.

      Digests are kept in $KVSTORE_CACHE/weights, else $XDG_CACHE_HOME/kvstore/weights, else ~/.cache/kvstore/weights.

      EXAMPLES
        kvstore weights-digest /models/llama-3.1-8b
        kvstore weights-digest model-00001-of-00003.gguf
        kvstore weights-digest meta-llama/Llama-3.1-8B --json
      """
  )

  @ArgumentParser.Argument(
    help: "A folder, a file (of a GGUF in parts, any part), or a model in the Hugging Face cache.",
    completion: .file()
  )
  var model: String

  @Option(help: "The revision in the Hugging Face cache: a branch, a tag or a commit.")
  var revision = "main"

  @Flag(help: "Read the files again, and compare with what was kept.")
  var again = false

  @Flag(help: "Print one JSON document.")
  var json = false

  func run() throws {
    let files = try WeightFiles(model: model, revision: revision)
    let states = try files.paths.map { try KeptDigest(describing: $0) }
    let known = again ? states.map { _ in nil } : states.map { $0.kept() }
    let reading = FileReading(zip(states, known).compactMap { $1 == nil ? $0.path : nil })
    let digests = try reading.finished()

    var document = WeightsDigestDocument(folder: KeptDigest.folder)
    for (index, state) in states.enumerated() {
      var record = known[index] ?? state
      if known[index] == nil {
        record.sha256 = digests[state.path] ?? ""
        guard try KeptDigest(describing: files.paths[index]) == state else {
          throw CommandFailure("\(files.paths[index]): the file changed while it was read")
        }
        if again, let before = state.kept(), before.sha256 != record.sha256 {
          writeError(
            "kvstore: \(state.path): its bytes are no longer those whose digest was kept\n"
          )
        }
        if state.canBeKept { try record.keep() }
      }
      document.append(
        record,
        name: String(files.paths[index].split(separator: "/").last ?? ""),
        isRead: known[index] == nil
      )
    }
    print(json ? try jsonText(document) : document.lines.joined(separator: "\n"))
  }
}

/// Files that are read from end to end, several at once.
private final class FileReading: Sendable {
  private struct State {
    var next = 0
    var digests: [String: String] = [:]
    var failure: CommandFailure?
  }

  private let paths: [String]
  private let byteCount: Int
  private let state = Mutex(State())
  private let doneByteCount = Atomic<Int>(0)

  private static let pieceByteCount = 4 << 20

  /// The largest ones first, so that no thread is left with one at the end.
  ///
  /// Several names may be links to one file.
  init(_ paths: [String]) {
    let sizes = Dictionary(
      paths.map { path in
        (path, Int(fileStatus(path)?.st_size ?? 0))
      },
      uniquingKeysWith: { first, _ in first }
    )
    self.paths = sizes.keys.sorted { sizes[$0] ?? 0 > sizes[$1] ?? 0 }
    byteCount = sizes.values.reduce(0, +)
  }

  /// Reads all of them, with a progress bar; the SHA-256 of each by its path.
  func finished() throws -> [String: String] {
    guard !paths.isEmpty else { return [:] }
    let ended = DispatchSemaphore(value: 0)
    let threadCount = min(paths.count, ProcessInfo.processInfo.activeProcessorCount)
    for _ in 0..<threadCount {
      try startThread {
        while let path = self.nextPath() { self.read(path) }
        ended.signal()
      }
    }
    let line = ProgressLine()
    let start = monotonicNanoseconds()
    for _ in 0..<threadCount {
      while ended.wait(timeout: .now() + .milliseconds(200)) == .timedOut {
        line.show(progressText(seconds: Double(monotonicNanoseconds() - start) / 1e9))
      }
    }
    line.clear()
    return try state.withLock { state in
      if let failure = state.failure { throw failure }
      return state.digests
    }
  }

  private func nextPath() -> String? {
    state.withLock { state in
      guard state.failure == nil, state.next < paths.count else { return nil }
      state.next += 1
      return paths[state.next - 1]
    }
  }

  private func read(_ path: String) {
    do {
      let digest = try sha256(of: path)
      state.withLock { $0.digests[path] = digest }
    } catch let failure as CommandFailure {
      state.withLock { $0.failure = $0.failure ?? failure }
    } catch {
      state.withLock { $0.failure = $0.failure ?? CommandFailure("\(path): \(error)") }
    }
  }

  private func sha256(of path: String) throws -> String {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw CommandFailure("\(path): \(errorText(errno))") }
    defer { close(descriptor) }
    let piece = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Self.pieceByteCount,
      alignment: 4096
    )
    defer { unsafe piece.deallocate() }
    var hash = SHA256()
    while true {
      let count = unsafe Glibc.read(descriptor, piece.baseAddress, piece.count)
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw CommandFailure("\(path): cannot read: \(errorText(errno))") }
      if count == 0 { return hexadecimalText(hash.finished()) }
      unsafe hash.update(UnsafeRawBufferPointer(rebasing: piece[..<count]))
      doneByteCount.add(count, ordering: .relaxed)
    }
  }

  /// `[######··········] 38 % of 15.3 GiB, 612 MiB/s, 16 s left`.
  private func progressText(seconds: Double) -> String {
    let done = min(doneByteCount.load(ordering: .relaxed), byteCount)
    let share = byteCount == 0 ? 1 : Double(done) / Double(byteCount)
    let width = 32
    let full = Int(share * Double(width))
    let bar = String(repeating: "#", count: full) + String(repeating: "·", count: width - full)
    let rate = Double(done) / max(seconds, 0.001)
    let left = rate > 0 ? Int(Double(byteCount - done) / rate) : 0
    return "[\(bar)] \(Int(share * 100)) % of \(byteText(byteCount)), \(byteText(Int(rate)))/s, "
      + "\(left) s left"
  }
}

/// The JSON of `weights-digest`.
struct WeightsDigestDocument: CommandDocument {
  static let schema = "weights-digest"

  struct File: Encodable {
    var name: String
    var path: String
    var byteCount: UInt64
    var sha256: String
    /// false: the digest was known.
    var isRead: Bool
    /// false: its file system does not tell when a file is changed, so that it has to be read again.
    var isKept: Bool
  }

  /// What an engine's setting takes; 32 bytes in hexadecimal.
  var weightsDigest = ""
  var files: [File] = []
  /// Where digests are kept.
  var folder: String

  private var hash = SHA256()

  private enum CodingKeys: CodingKey { case weightsDigest, files, folder }

  init(folder: String) { self.folder = folder }

  mutating func append(_ record: KeptDigest, name: String, isRead: Bool) {
    files.append(
      File(
        name: name,
        path: record.path,
        byteCount: record.size,
        sha256: record.sha256,
        isRead: isRead,
        isKept: record.canBeKept
      )
    )
    // As kvstore.weights.files_digest writes it.
    hash.update("sha256 \(record.sha256) \(record.size) \(name.utf8.count):\(name)\n")
    weightsDigest = hexadecimalText(hash.finished())
  }

  /// The document for people.
  var lines: [String] {
    var table = TextTable([
      ("file", .left), ("size", .right), ("SHA-256", .left), ("", .left),
    ])
    for file in files {
      table.append([
        printable(file.name), byteText(file.byteCount), file.sha256,
        file.isKept ? file.isRead ? "" : "known" : "not kept",
      ])
    }
    var lines = table.lines()
    if files.contains(where: { !$0.isKept }) {
      lines += [
        "",
        "not kept: the file system has no times of change. Give the digest to the engine, as weights_digest.",
      ]
    }
    return lines + ["", "weights digest  \(weightsDigest)"]
  }
}
