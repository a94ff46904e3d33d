import ArgumentParser
import Glibc

/// What the commands print, and whether it could be written.
///
/// `print` here takes the place of Swift's own, which says nothing of a full disk.
enum Output {
  /// The first reason why something could not be written.
  ///
  /// A command prints from one thread.
  private nonisolated(unsafe) static var failure: Int32?

  /// Writes to stdout, at once; what fails is remembered for `finish`, and nothing is written after it.
  fileprivate static func write(_ text: String) {
    guard unsafe failure == nil else { return }
    var rest = ArraySlice(Array(text.utf8))
    while !rest.isEmpty {
      let count = unsafe rest.withUnsafeBytes { unsafe Glibc.write(1, $0.baseAddress, $0.count) }
      if count > 0 {
        rest = rest.dropFirst(count)
      } else if count < 0, errno == EAGAIN {
        // Whoever reads has made the pipe one that does not wait.
        var waiting = pollfd(fd: 1, events: Int16(POLLOUT), revents: 0)
        _ = unsafe poll(&waiting, 1, -1)
      } else if count == 0 || errno != EINTR {
        unsafe failure = errno
        return
      }
    }
  }

  /// Throws unless all that was printed has been written.
  static func finish() throws {
    guard let failure = unsafe failure else { return }
    throw CommandFailure("cannot write the output: \(errorText(failure)); it is not whole")
  }

  /// Opens what of the three standard files is closed, for failing: the next file that is opened, a catalog say, would
  /// become the output, and be written over.
  static func holdStandardFiles() {
    for descriptor in Int32(0)...2 where fcntl(descriptor, F_GETFD) < 0 {
      // The lowest free number is this one.
      _ = unsafe open("/dev/null", descriptor == 0 ? O_WRONLY : O_RDONLY)
    }
  }
}

/// Prints a line of the command's output.
func print(_ text: String, terminator: String = "\n") { Output.write(text + terminator) }

extension KVStoreCommand {
  /// Runs the command that the arguments name, and sees to it that its output has arrived before it reports success.
  static func main() {
    Output.holdStandardFiles()
    do {
      do {
        do {
          var command = try parseAsRoot()
          try command.run()
        } catch {
          if let hint = SubcommandHint.text(for: Array(CommandLine.arguments.dropFirst())) {
            throw ValidationError(hint)
          }
          throw error
        }
      } catch  where exitCode(for: error) == .success {
        // Help, the version, a completion script.
        print(fullMessage(for: error))
      }
      try Output.finish()
    } catch {
      // The exit status is that of the error; that the output is not whole is worth a word beside it.
      do { try Output.finish() } catch let failure {
        if exitCode(for: error) != .failure { writeError("kvstore: \(failure)\n") }
      }
      if let text = jsonErrorText(error) {
        writeError(text + "\n")
        Glibc.exit(exitCode(for: error).rawValue)
      }
      exit(withError: error)
    }
  }

  /// With --json an error is a document as well, in one line; nil without, and where a document says all.
  private static func jsonErrorText(_ error: any Error) -> String? {
    let message = Self.message(for: error)
    guard !message.isEmpty, CommandLine.arguments.prefix(while: { $0 != "--" }).contains("--json")
    else { return nil }
    let document = ErrorDocument(message: message, exitStatus: exitCode(for: error).rawValue)
    return try? jsonText(document, isPretty: false)
  }
}

/// What a command that fails writes to stderr with --json.
struct ErrorDocument: CommandDocument {
  static let schema = "error"

  var message: String
  var exitStatus: Int32
}
