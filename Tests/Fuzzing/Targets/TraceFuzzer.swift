import Glibc
import KVSimulation
import Synchronization

/// A trace, plain or compressed, from bytes: through a file in memory, since a trace is read from a file.
enum TraceFuzzer {
  private static let descriptor = Mutex(openFile())

  static func run(_ bytes: [UInt8]) {
    descriptor.withLock { descriptor in
      guard descriptor >= 0, ftruncate(descriptor, 0) == 0,
        unsafe pwrite(descriptor, bytes, bytes.count, 0) == bytes.count
      else { fatalError("no file for a trace: \(errno)") }
      parse("/proc/self/fd/\(descriptor)")
    }
  }

  private static func parse(_ path: String) {
    do {
      let reader = try TraceReader(file: path, tokensPerBlock: 4, skipsBadLines: true)
      var request = TraceRequest()
      var lineCount = 0
      while lineCount < 1000, try reader.next(into: &request) { lineCount += 1 }
      FuzzTarget.keep(lineCount ^ reader.badLineCount)
    } catch {
      // Refused.
    }
  }

  private static func openFile() -> Int32 {
    let path = fuzzingFolder() + "/trace-\(getpid())"
    let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    // It lives as long as it is open.
    unlink(path)
    return descriptor
  }
}

/// Where short-lived files go: memory, where there is some.
func fuzzingFolder() -> String { unsafe access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp" }
