import ArgumentParser
import CIORecorder
import Foundation
import KVStore
import KVTestSupport

/// Records random workloads and crashes them at each of their operations.
struct CrashCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "crashes",
    abstract: "Crashes a store at every operation on its files, and checks what is left.",
    discussion: """
      A workload is recorded once: every write, sync, resize, creation, removal and renaming of a file, LMDB's included, is a \
      numbered point. For each point the folder is made that a crash there leaves, opened, and compared with what had been \
      confirmed: the process died before or within the operation; the power went and everything that was not synced is \
      lost, or each unsynced write is kept, dropped or torn by sectors of 512 bytes.
      """
  )

  @Option(help: "How many workloads; each has the next seed.")
  var iterations = 3
  @Option(help: "Seed of the first workload.")
  var seed: UInt64 = 1
  @Option(help: "Steps of each workload.")
  var steps = 100
  @Option(help: "Crash at every such operation.")
  var stride = 1
  @Option(help: "Crash only at operations FIRST-LAST.")
  var points: String?
  @Option(help: "At every such operation a process dies for real as well (0: never).")
  var killStride = 0
  @Option(help: "Images with torn writes at each point.")
  var torn = 2
  @Option(help: "Crash once more, as a failure's line says: SEED:POINT:LOSS.")
  var replay: String?
  @Option(help: .hidden)
  var dieAt: Int?
  @Flag(help: .hidden)
  var dieWithin = false
  @Option(help: "Where to put the stores (default: memory, if there is a /dev/shm).")
  var folder: String?

  func run() throws {
    guard iorecorder_is_available() != 0 else {
      say("crash-test: not in a build with a sanitizer")
      return
    }
    if let dieAt, let folder {
      // The child of a real death: it does not come back from this.
      return try Matrix(seed: seed, stepCount: steps, folder: folder).die(
        at: dieAt,
        within: dieWithin
      )
    }
    let parent =
      folder ?? (FileManager.default.fileExists(atPath: "/dev/shm") ? "/dev/shm" : nil)
    let place = try TemporaryFolder(in: parent)
    var counts = Counts()
    if let replay {
      try self.replay(replay, place.path, &counts)
    } else {
      for number in 0..<UInt64(iterations) {
        try crashAll(seed: seed + number, place.path, &counts)
      }
    }
    report(counts)
    if !counts.failures.isEmpty { throw ExitCode.failure }
  }

  private func crashAll(seed: UInt64, _ place: String, _ counts: inout Counts) throws {
    let matrix = Matrix(seed: seed, stepCount: steps, folder: place)
    try record(matrix, &counts)
    let (before, failuresBefore) = (counts.images, counts.failures.count)
    let start = Date()
    var shown = start
    try matrix.crash(at: try range(matrix), stride: stride, tornCount: torn, &counts) { point in
      guard Date().timeIntervalSince(shown) > 10 else { return }
      shown = Date()
      say("  seed \(seed): point \(point) of \(matrix.trace.operations.count)")
    }
    if killStride > 0 { try matrix.kill(at: try range(matrix), stride: killStride, &counts) }
    say(
      "seed \(seed) (\(matrix.scenario)): \(matrix.trace.operations.count) operations, "
        + "\(matrix.workload.evictedBlockCount) blocks evicted, "
        + "\(matrix.workload.movedBlockCount) moved, "
        + "\(counts.images - before) crashes, \(counts.failures.count - failuresBefore) failures, "
        + "\(Int(Date().timeIntervalSince(start))) s"
    )
  }

  private func range(_ matrix: Matrix) throws -> ClosedRange<Int> {
    let all = 0...matrix.trace.operations.count
    guard let points else { return all }
    let parts = points.split(separator: "-").compactMap { Int($0) }
    guard parts.count == 2, parts[0] <= parts[1] else {
      throw ValidationError("--points FIRST-LAST")
    }
    return (parts[0]...parts[1]).clamped(to: all)
  }

  private func record(_ matrix: Matrix, _ counts: inout Counts) throws {
    let problems = try matrix.record()
    counts.workloads += 1
    counts.operations += matrix.trace.operations.count
    guard !problems.isEmpty else { return }
    say("FAIL \(matrix.seed) (\(matrix.scenario)), without a crash")
    for problem in problems.prefix(8) { say("     \(problem)") }
    counts.failures.append(
      Failure(seed: matrix.seed, point: -1, loss: .process, problems: problems)
    )
  }

  private func replay(_ text: String, _ place: String, _ counts: inout Counts) throws {
    let parts = text.split(separator: ":")
    guard parts.count == 3, let seed = UInt64(parts[0]), let point = Int(parts[1]),
      let loss = Loss(String(parts[2]))
    else { throw ValidationError("--replay SEED:POINT:LOSS, as a failure's line says") }
    let matrix = Matrix(seed: seed, stepCount: steps, folder: place)
    try record(matrix, &counts)
    for number in max(0, point - 8)..<min(point + 3, matrix.trace.operations.count) {
      let operation = matrix.trace.operations[number]
      say(
        "\(number == point ? ">" : " ") \(number) \(operation.kind) file \(operation.file) "
          + "\(operation.path) \(operation.offset) + \(operation.byteCount)"
      )
    }
    let image = try matrix.replay(point: point, loss, &counts)
    let kept = FileManager.default.temporaryDirectory.path + "/crash-test-\(UUID().uuidString)"
    try FileManager.default.copyItem(atPath: image, toPath: kept)
    say("in \(matrix.mark(at: point).label); the folder as the crash left it: \(kept)")
  }

  private func report(_ counts: Counts) {
    let kinds = counts.imagesByLoss.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }
    say(
      "crash-test: \(counts.workloads) workloads, \(counts.operations) operations, "
        + "\(counts.images) crashes (\(kinds.joined(separator: ", ")); \(counts.kills) by real kills), "
        + "\(counts.confirmedBlocks) confirmed blocks looked up, of which \(counts.evictedBlocks) "
        + "were evicted; \(counts.failures.count) failures"
    )
  }
}
