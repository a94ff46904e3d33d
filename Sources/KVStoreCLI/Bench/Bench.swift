import Dispatch
import FoundationEssentials
import Glibc
import KVCore
import KVFile
import KVStore

/// What the workloads share: options, a folder of their own, the report.
final class Bench {
  let options: BenchOptions
  let folder: String
  let report: Report
  let progress = ProgressLine()
  /// Which of the workloads is running.
  var step = ""
  let storage = LinuxStorage()
  private let signalSources: [any DispatchSourceSignal]
  private var storeCount = 0

  init(_ options: BenchOptions) throws {
    self.options = options
    let parent = resolvedPath(options.path ?? ".")
    let folder = "\(parent)/kvstore-bench-\(getpid())"
    do {
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    } catch { throw CommandFailure("cannot make the folder \(folder)") }
    self.folder = folder
    report = Report(options, progress)
    // A bench that is interrupted must not leave gigabytes behind.
    let isKept = options.keep
    signalSources = [SIGINT, SIGTERM].map { number in
      _ = signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
      source.setEventHandler {
        if !isKept { try? FileManager.default.removeItem(atPath: folder) }
        _exit(128 + number)
      }
      source.resume()
      return source
    }
  }

  /// Removes the folder, or says where it is.
  func cleanUp() {
    progress.clear()
    for source in signalSources { source.cancel() }
    if options.keep {
      writeError("kept: \(folder)\n")
    } else {
      try? FileManager.default.removeItem(atPath: folder)
    }
  }

  /// A path for another store.
  func freshStorePath() -> String {
    storeCount += 1
    return "\(folder)/store-\(storeCount)"
  }

  /// Removes a store that is not needed any more.
  func remove(_ path: String) throws {
    do { try FileManager.default.removeItem(atPath: path) } catch {
      throw CommandFailure("cannot remove \(path)")
    }
  }

  /// A store's configuration with room for twice `total`.
  func configuration(_ path: String, hostBytes: Int = 256 << 20) -> StoreConfiguration {
    options.configuration(path, hostBytes: hostBytes)
  }

  /// Room in the arena for everything that a run moves, headers included.
  var wholeHostBytes: Int {
    let slotBytes = (options.blockBytes.byteCount + 4095) / 4096 * 4096 + 3 * 4096
    return (slotBytes + 4 * options.tokensPerBlock) * options.blockCount + (64 << 20)
  }

  /// The identity of the bench's blocks.
  var identity: NamespaceIdentity { options.identity }

  private let start = monotonicNanoseconds()

  /// Says on the terminal what is going on.
  func show(_ text: String) {
    progress.show("\(step): \(text), \((monotonicNanoseconds() - start) / 1_000_000_000) s")
  }

  /// Adds a figure of the blocks that the options describe.
  func add(
    _ measure: String,
    _ series: Series,
    unit: String,
    limit: Limit? = nil,
    with further: [String: Parameter] = [:]
  ) {
    let params = parameters(measure).merging(further) { $1 }
    report.add(params, series, unit: unit, limit: limit)
  }

  /// Repeats `body` for each run, saying so.
  func forEachRun(_ what: String, _ body: (Int) throws -> Void) rethrows {
    for run in 0..<options.runs {
      show("\(what): run \(run + 1) of \(options.runs)")
      try body(run)
    }
  }

  /// The parameters that every line carries.
  func parameters(_ measure: String) -> [String: Parameter] {
    var parameters: [String: Parameter] = [
      "measure": .text(measure), "block_bytes": .integer(options.blockBytes.byteCount),
      "tokens_per_block": .integer(options.tokensPerBlock),
      "total_bytes": .integer(options.blockCount * options.blockBytes.byteCount),
      "seed": .integer(Int(clamping: options.seed)),
      "eviction_policy": .text(options.evictionPolicy.rawValue),
    ]
    if let model = options.model { parameters["model"] = .text(model.rawValue) }
    return parameters
  }

  /// Lets the kernel forget its cached pages of a folder's files, so that they come from the disk next.
  func dropPageCache(of folder: String) throws {
    for name in try storage.list(folder) {
      let path = "\(folder)/\(name)"
      if name == "slots" {
        try dropPageCache(of: path)
      } else if name.hasSuffix(".kvs") || name.hasSuffix(".mdb") {
        let file = try storage.openFile(path, mode: .existing, direct: false)
        try file.sync()
        try file.dropPageCache()
      }
    }
  }

  /// Bytes that a folder's files take up on disk.
  func allocatedBytes(of folder: String) throws -> Int {
    var sum = 0
    for name in try storage.list(folder) {
      let path = "\(folder)/\(name)"
      var status = stat()
      guard unsafe lstat(path, &status) == 0 else { continue }
      if status.st_mode & S_IFMT == S_IFDIR {
        sum += try allocatedBytes(of: path)
      } else {
        sum += Int(status.st_blocks) * 512
      }
    }
    return sum
  }
}
