import CIORecorder
import Foundation
import KVStore
import KVTestSupport

/// A crash that broke a promise.
struct Failure {
  let seed: UInt64
  let point: Int
  let loss: Loss
  let problems: [String]
}

/// What a run has done so far.
struct Counts {
  var workloads = 0
  var operations = 0
  var images = 0
  /// Of those, by killing a process.
  var kills = 0
  var imagesByLoss: [String: Int] = [:]
  var confirmedBlocks = 0
  var evictedBlocks = 0
  var failures: [Failure] = []
}

/// Records one workload, and crashes it at each operation.
final class Matrix {
  let seed: UInt64
  let scenario: Scenario
  let stepCount: Int
  private let folder: String
  let workload: Workload
  private(set) var trace = Trace(operations: [])

  /// The scenario follows from the seed.
  init(seed: UInt64, stepCount: Int, folder: String) {
    self.seed = seed
    self.stepCount = stepCount
    self.folder = folder
    scenario = Scenario.allCases[Int(seed % UInt64(Scenario.allCases.count))]
    workload = Workload(scenario: scenario, seed: seed, path: folder + "/recorded/store")
  }

  /// Runs the workload once; what is wrong before anything has crashed.
  func record() throws -> [String] {
    let recorded = folder + "/recorded"
    try? FileManager.default.removeItem(atPath: recorded)
    try FileManager.default.createDirectory(atPath: recorded, withIntermediateDirectories: true)
    iorecorder_start(recorded)
    defer { iorecorder_stop() }
    try workload.run(stepCount: stepCount)
    trace = Trace.recorded()
    return workload.problems + boundProblems()
  }

  /// Crashes at every `stride`-th point, each in all the ways that `losses` asks for.
  func crash(
    at points: ClosedRange<Int>,
    stride: Int,
    tornCount: Int,
    _ counts: inout Counts,
    progress: (Int) -> Void
  ) throws {
    let replay = try TraceReplay(trace, folder: fresh("base"))
    var check = ImageCheck(workload)
    for point in Swift.stride(from: points.lowerBound, through: points.upperBound, by: stride) {
      // Opening a file changes nothing: the point before it was the same.
      if point > 0, point < trace.operations.count,
        [.open, .openToRead].contains(trace.operations[point - 1].kind)
      {
        continue
      }
      try replay.advance(to: point)
      var losses: [Loss] = [.process]
      if replay.isUncertain {
        losses += [.processWithin, .everything]
        losses += (0..<tornCount).map { .random(seed &+ UInt64($0)) }
      }
      for loss in losses {
        try crash(at: point, loss, replay, &check, &counts)
      }
      progress(point)
    }
    counts.confirmedBlocks += check.confirmedCount
    counts.evictedBlocks += check.evictedCount
  }

  /// One crash again; its folder stays, for a look at it.
  func replay(point: Int, _ loss: Loss, _ counts: inout Counts) throws -> String {
    let replay = try TraceReplay(trace, folder: fresh("base"))
    try replay.advance(to: point)
    var check = ImageCheck(workload)
    try crash(at: point, loss, replay, &check, &counts)
    try replay.makeImage(loss, at: fresh("image"))
    return folder + "/image"
  }

  private func crash(
    at point: Int,
    _ loss: Loss,
    _ replay: TraceReplay,
    _ check: inout ImageCheck,
    _ counts: inout Counts
  ) throws {
    let image = try fresh("image")
    try replay.makeImage(loss, at: image)
    examine(image + "/store", point, loss, mark(at: point), &check, &counts)
  }

  private func examine(
    _ store: String,
    _ point: Int,
    _ loss: Loss,
    _ mark: Mark,
    _ check: inout ImageCheck,
    _ counts: inout Counts
  ) {
    let name = "\(seed):\(point):\(loss)"
    iorecorder_set_label("died while checking the crash \(name)\n")
    let problems = check.check(store, mark)
    counts.images += 1
    counts.imagesByLoss["\(loss)".hasPrefix("torn") ? "torn" : "\(loss)", default: 0] += 1
    if !problems.isEmpty {
      counts.failures.append(Failure(seed: seed, point: point, loss: loss, problems: problems))
      say("FAIL \(name) (\(scenario), in \(mark.label))")
      for problem in problems.prefix(8) { say("     \(problem)") }
    }
  }

  /// What is promised while operation `point` is under way.
  func mark(at point: Int) -> Mark {
    workload.marks.last { $0.operationCount <= point } ?? workload.marks[0]
  }

  private func fresh(_ name: String) throws -> String {
    let path = folder + "/" + name
    try? FileManager.default.removeItem(atPath: path)
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    return path
  }

  // MARK: Real deaths

  /// Beside the recorded folder: writing it is no point.
  private static let markFile = "/marks"

  /// Runs the workload again in processes that are killed at a point: nothing is simulated, mapped files included.
  func kill(at points: ClosedRange<Int>, stride: Int, _ counts: inout Counts) throws {
    var check = ImageCheck(workload)
    for point in Swift.stride(from: points.lowerBound, to: points.upperBound, by: stride) {
      let loss: Loss = point % 2 == 0 ? .process : .processWithin
      let killed = try fresh("killed")
      let child = Process()
      child.executableURL = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
      child.arguments = [
        "--seed", "\(seed)", "--steps", "\(stepCount)", "--folder", killed,
        "--die-at", "\(point)",
      ]
      if loss == .processWithin { child.arguments?.append("--die-within") }
      try child.run()
      child.waitUntilExit()
      // Batches of the writer depend on the moment: a run may need some operations less than the recorded one.
      if child.terminationReason == .exit, child.terminationStatus == 0,
        point > points.upperBound * 9 / 10
      {
        say("  seed \(seed): a run ended before point \(point) of \(points.upperBound)")
        continue
      }
      guard child.terminationReason == .uncaughtSignal, child.terminationStatus == SIGKILL else {
        counts.failures.append(
          Failure(seed: seed, point: point, loss: loss, problems: ["was not killed"])
        )
        say("FAIL \(seed):\(point): the process was not killed: \(child.terminationStatus)")
        continue
      }
      guard let mark = MarkFile.last(of: killed + Self.markFile) else {
        counts.failures.append(
          Failure(seed: seed, point: point, loss: loss, problems: ["left no marks"])
        )
        say("FAIL \(seed):\(point): the killed process left no marks")
        continue
      }
      counts.kills += 1
      examine(killed + "/recorded/store", point, loss, mark, &check, &counts)
    }
    counts.confirmedBlocks += check.confirmedCount
    counts.evictedBlocks += check.evictedCount
  }

  /// The killed process.
  func die(at point: Int, within: Bool) throws {
    let recorded = folder + "/recorded"
    try FileManager.default.createDirectory(atPath: recorded, withIntermediateDirectories: true)
    iorecorder_start(recorded)
    iorecorder_die(point, within ? 1 : 0)
    workload.markFile = folder + Self.markFile
    try workload.run(stepCount: stepCount)
  }

  // MARK: The bound

  /// The disk is bounded after each operation, not only at the end: the catalog by its map, slot files as allocated, all others by their size.
  private func boundProblems() -> [String] {
    var sizes: [UInt32: UInt64] = [:]
    var names: [String: UInt32] = [:]
    var problems: [String] = []
    for (number, operation) in trace.operations.enumerated() {
      switch operation.kind {
      case .write, .resize:
        let end = operation.offset + operation.byteCount
        sizes[operation.file] = max(sizes[operation.file] ?? 0, end)
      case .create: names[operation.path] = operation.file
      case .remove: if let file = names.removeValue(forKey: operation.path) { sizes[file] = nil }
      case .rename: names[operation.newPath] = names.removeValue(forKey: operation.path)
      default: continue
      }
      let catalogs = Set(names.filter { $0.key.contains("/catalog.") }.values)
      let sum = sizes.filter { !catalogs.contains($0.key) }.values
        .reduce(UInt64(workload.configuration.effectiveCatalogBytes), +)
      if sum > UInt64(workload.configuration.capacityBytes + workload.configuration.archiveBytes) {
        problems.append(
          "operation \(number) (\(operation.kind)): \(sum) bytes on disk, more than the capacity"
        )
        return problems
      }
    }
    return problems
  }
}
