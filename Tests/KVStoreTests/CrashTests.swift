import Foundation
import Testing

/// A short form of the crash matrix (`Scripts/crash-test` is the long one).
///
/// By the program `crash-test` (Tests/CrashTest), which takes the place of libc's file functions and so cannot run in here.
@Suite struct CrashTests {
  struct Run: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let arguments: String
  }

  static let runs = [
    Run(testDescription: "slot files full", arguments: "--seed 13 --stride 83 --kill-stride 400"),
    Run(testDescription: "catalog full", arguments: "--seed 17 --stride 83 --kill-stride 400"),
    Run(
      testDescription: "more room than data",
      arguments: "--seed 18 --stride 83 --kill-stride 400"
    ),
    // A process that died while it made the catalog left a file that every later open refused.
    Run(testDescription: "first open", arguments: "--seed 3 --points 0-36 --stride 3"),
  ]

  @Test(arguments: runs) func whatFlushConfirmedSurvives(_ run: Run) throws {
    let program = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
      .deletingLastPathComponent().appending(path: "crash-test")
    let process = Process()
    let output = Pipe()
    process.executableURL = program
    process.arguments =
      ["--iterations", "1", "--torn", "1"] + run.arguments.split(separator: " ").map(String.init)
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
