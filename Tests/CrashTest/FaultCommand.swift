import ArgumentParser
import CIORecorder
import Foundation
import KVTestSupport

/// Lets the disk refuse at each operation in turn.
struct FaultCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "faults",
    abstract: "Lets the disk refuse at each operation of a use of the store, LMDB's included.",
    discussion: """
      For each error and each operation: once, and from there on until the fault is over. Every call answers with a status, nothing that \
      was confirmed is lost, no other bytes are returned, and the store takes blocks again afterwards.
      """
  )

  @Option(help: "Refuse at every such operation.")
  var stride = 1
  @Option(help: "Only this fault: \(DiskFault.allCases.map(\.rawValue).joined(separator: ", ")).")
  var only: String?
  @Option(help: "Only once more: FAULT:OPERATION:COUNT, as a failure's line says.")
  var replay: String?

  func run() throws {
    guard iorecorder_is_available() != 0 else {
      return say("crash-test: not in a build with a sanitizer")
    }
    let place = try TemporaryFolder(
      in: FileManager.default.fileExists(atPath: "/dev/shm") ? "/dev/shm" : nil
    )
    var runCount = 0
    var failureCount = 0
    var reopenCount = 0
    var errors: Set<String> = []
    /// Whether the use got as far as the operation.
    func run(_ fault: DiskFault, _ number: Int, _ count: Int) throws -> Bool {
      let name = "\(fault):\(number):\(count)"
      iorecorder_set_label("died in the fault \(name)\n")
      let run = try FaultRun(fault, number: number, count: count, folder: place.path + "/fault")
      runCount += 1
      errors.formUnion(run.errors)
      if run.neededReopen {
        reopenCount += 1
        say("  \(name): the handles had to be opened again")
      }
      if !run.problems.isEmpty {
        failureCount += 1
        say("FAIL \(name)")
        for problem in run.problems { say("     \(problem)") }
      }
      return run.failedOperationCount > 0
    }
    if let replay {
      let parts = replay.split(separator: ":")
      guard parts.count == 3, let fault = DiskFault(rawValue: String(parts[0])),
        let number = Int(parts[1]), let count = Int(parts[2])
      else { throw ValidationError("--replay FAULT:OPERATION:COUNT, as a failure's line says") }
      _ = try run(fault, number, count)
      for (number, operation) in Trace.recorded().operations.enumerated() {
        say(
          "\(number) \(operation.kind) file \(operation.file) \(operation.path) \(operation.offset) + \(operation.byteCount)"
        )
      }
    } else {
      for fault in DiskFault.allCases where only == nil || only == fault.rawValue {
        for count in [1, 1_000_000] {
          var number = 0
          while try run(fault, number, count) { number += stride }
          say("\(fault), \(count == 1 ? "once" : "from there on"): \(number) operations")
        }
      }
    }
    if replay == nil {
      for (name, body) in [
        ("hang", OutageRun.hang), ("read-only file system", OutageRun.refuseWrites),
      ] {
        iorecorder_set_label("died in the outage \(name)\n")
        let outage = OutageRun(folder: place.path + "/outage")
        body(outage)()
        runCount += 1
        if outage.problems.isEmpty { continue }
        failureCount += 1
        say("FAIL \(name)")
        for problem in outage.problems { say("     \(problem)") }
      }
    }
    say("answers: \(errors.sorted().joined(separator: ", "))")
    say(
      "faults: \(runCount) uses of a store, \(reopenCount) of which needed new handles; "
        + "\(failureCount) failures"
    )
    if failureCount > 0 { throw ExitCode.failure }
  }
}
