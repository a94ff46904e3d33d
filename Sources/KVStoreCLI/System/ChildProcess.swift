import Glibc

/// Another program that the bench runs and talks to line by line.
final class ChildProcess {
  private let program: String
  private let process: pid_t
  private let input: Int32
  private let output: Int32
  private var buffer: ArraySlice<UInt8> = []
  private var status: Int32?

  /// What it sees as its own name is the program's path unless there is a name.
  init(_ program: String, name: String? = nil, _ arguments: [String]) throws {
    self.program = program
    let toChild = try Self.pipe()
    let fromChild = try Self.pipe()
    input = toChild.write
    output = fromChild.read
    defer {
      close(toChild.read)
      close(fromChild.write)
    }
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_adddup2(&actions, toChild.read, 0)
    unsafe posix_spawn_file_actions_adddup2(&actions, fromChild.write, 1)
    // The bench ignores what would end it, and a child inherits that.
    var attributes = posix_spawnattr_t()
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    for number in [SIGINT, SIGTERM, SIGPIPE] { unsafe sigaddset(&signals, number) }
    unsafe posix_spawnattr_setsigdefault(&attributes, &signals)
    unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF))
    var words = unsafe ([name ?? program] + arguments).map { unsafe strdup($0) } + [nil]
    defer { unsafe words.forEach { unsafe free($0) } }
    var id = pid_t()
    let code = unsafe posix_spawn(&id, program, &actions, &attributes, &words, environ)
    process = id
    guard code == 0 else {
      status = code
      close(input)
      close(output)
      throw CommandFailure("\(program): cannot run: \(errorText(code))")
    }
  }

  private static func pipe() throws -> (read: Int32, write: Int32) {
    var ends: [Int32] = [-1, -1]
    guard unsafe Glibc.pipe(&ends) == 0 else {
      throw CommandFailure("cannot make a pipe: \(errorText(errno))")
    }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    return (ends[0], ends[1])
  }

  /// A process that is not waited for any more must not go on.
  deinit {
    guard status == nil else { return }
    close(input)
    close(output)
    kill(process, SIGTERM)
    _ = waitUntilExit()
  }

  func writeLine(_ text: String) throws {
    // A child that is gone is an answer, and not the end of this process.
    let before = signal(SIGPIPE, SIG_IGN)
    defer { _ = signal(SIGPIPE, before) }
    guard writeAll(text + "\n", to: input) else { throw CommandFailure("\(program) ended early") }
  }

  /// The next line of its output; its end is an error.
  func readLine() throws -> String {
    while true {
      if let end = buffer.firstIndex(of: UInt8(ascii: "\n")) {
        defer { buffer = buffer[(end + 1)...] }
        return String(decoding: buffer[..<end], as: UTF8.self)
      }
      guard let piece = readSome(output, byteCountMax: 4096), !piece.isEmpty else {
        throw CommandFailure("\(program) ended with status \(waitUntilExit())")
      }
      buffer += piece
    }
  }

  func waitForEnd() throws {
    let status = waitUntilExit()
    guard status == 0 else { throw CommandFailure("\(program) ended with status \(status)") }
  }

  /// Its exit status, or 128 and the signal that ended it.
  private func waitUntilExit() -> Int32 {
    if let status { return status }
    var word: Int32 = 0
    while unsafe waitpid(process, &word, 0) < 0, errno == EINTR {}
    let ending = word & 0x7f
    let result = ending == 0 ? (word >> 8) & 0xff : 128 + ending
    if status == nil {
      status = result
      close(input)
      close(output)
    }
    return result
  }
}
