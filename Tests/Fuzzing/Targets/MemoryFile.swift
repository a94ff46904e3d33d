import Glibc
import Synchronization

/// A file in memory, for parsers that read a file: its bytes are replaced for each run.
final class MemoryFile: Sendable {
  private let descriptor: Mutex<Int32>

  init(_ name: String) {
    let path = fuzzingFolder() + "/\(name)-\(getpid())"
    descriptor = Mutex(unsafe open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600))
    // It lives as long as it is open.
    unlink(path)
  }

  /// Lends its path while it holds these bytes.
  func with(_ bytes: [UInt8], _ body: (String) -> Void) {
    descriptor.withLock { descriptor in
      guard descriptor >= 0, ftruncate(descriptor, 0) == 0,
        unsafe pwrite(descriptor, bytes, bytes.count, 0) == bytes.count
      else { fatalError("no file to parse: \(errno)") }
      body("/proc/self/fd/\(descriptor)")
    }
  }
}

/// Where short-lived files go: memory, where there is some.
func fuzzingFolder() -> String { unsafe access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp" }
