import Foundation

/// Another program that the bench runs and talks to line by line.
final class ChildProcess {
  private let process = Process()
  private let input = Pipe()
  private let output = Pipe()
  private let program: String

  init(_ program: String, _ arguments: [String]) throws {
    self.program = program
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = arguments
    process.standardInput = input
    process.standardOutput = output
    do { try process.run() } catch {
      throw CommandFailure("\(program): cannot run: \(error.localizedDescription)")
    }
  }

  /// A process that is not waited for any more must not go on.
  deinit { if process.isRunning { process.terminate() } }

  func writeLine(_ text: String) throws {
    do { try input.fileHandleForWriting.write(contentsOf: Data((text + "\n").utf8)) } catch {
      throw CommandFailure("\(program) ended early")
    }
  }

  /// The next line of its output; its end is an error.
  func readLine() throws -> String {
    var line = Data()
    while true {
      let byte = output.fileHandleForReading.readData(ofLength: 1)
      guard let first = byte.first else {
        process.waitUntilExit()
        throw CommandFailure("\(program) ended with status \(process.terminationStatus)")
      }
      if first == UInt8(ascii: "\n") { return String(decoding: line, as: UTF8.self) }
      line.append(first)
    }
  }

  func waitForEnd() throws {
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw CommandFailure("\(program) ended with status \(process.terminationStatus)")
    }
  }
}
