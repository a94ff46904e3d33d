import Foundation
import Testing

/// Short forms of the crash matrix and of the refusals of the disk (`Scripts/crash-test` is the long one).
///
/// By the program `crash-test` (Tests/CrashTest), which takes the place of libc's file functions and so cannot run in here.
@Suite struct CrashTests {
  struct Run: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let arguments: String
  }

  static let crashes = [
    Run(testDescription: "slot files full", arguments: "--seed 16 --stride 97 --kill-stride 400"),
    Run(testDescription: "catalog full", arguments: "--seed 17 --stride 97 --kill-stride 400"),
    Run(testDescription: "archive full", arguments: "--seed 13 --stride 97 --kill-stride 400"),
    Run(
      testDescription: "less room than it had",
      arguments: "--seed 19 --stride 97 --kill-stride 400"
    ),
    Run(
      testDescription: "more room than data",
      arguments: "--seed 20 --stride 97 --kill-stride 400"
    ),
    // A process that died while it made the catalog left a file that every later open refused.
    Run(testDescription: "first open", arguments: "--seed 4 --points 0-36 --stride 3"),
  ]

  static let refusals = [
    // LMDB gives up an environment whose meta page it could not write; that ended the store until it was opened again.
    Run(testDescription: "one refusal of LMDB's meta page", arguments: "--replay ioError:6:1"),
    // A slot file that could not be opened for writing was opened for reading only, for good.
    Run(testDescription: "one refusal to open", arguments: "--replay ioError:75:1"),
    Run(testDescription: "all kinds, and a disk that hangs", arguments: "--stride 29"),
  ]

  @Test(arguments: crashes) func whatFlushConfirmedSurvives(_ run: Run) throws {
    try check("crashes --iterations 1 --torn 1 " + run.arguments)
  }

  @Test(arguments: refusals) func aRefusalIsAStatusAndPasses(_ run: Run) throws {
    try check("faults " + run.arguments)
  }

  private func check(_ arguments: String) throws {
    let program = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
      .deletingLastPathComponent().appending(path: "crash-test")
    let process = Process()
    let output = Pipe()
    process.executableURL = program
    process.arguments = arguments.split(separator: " ").map(String.init)
    process.standardOutput = output
    process.standardError = output
    try process.run()
    let text = String(
      decoding: try output.fileHandleForReading.readToEnd() ?? Data(),
      as: UTF8.self
    )
    process.waitUntilExit()
    #expect(process.terminationStatus == 0 && process.terminationReason == .exit, "\(text)")
    // With a sanitizer it says that it cannot run.
    #expect(text.contains(" 0 failures") || text.contains("sanitizer"), "\(text)")
  }
}
