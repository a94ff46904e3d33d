import Glibc
import KVCore

/// One line on stderr that says what is going on; silent when stderr is no terminal and in the first two seconds.
final class ProgressLine {
  private let isTerminal = isatty(2) == 1
  private let start = monotonicNanoseconds()
  private var shownAt: UInt64 = 0
  private var isShown = false

  private static let quietNanoseconds: UInt64 = 2_000_000_000
  private static let intervalNanoseconds: UInt64 = 100_000_000

  func show(_ text: String) {
    let now = monotonicNanoseconds()
    guard isTerminal, now - start >= Self.quietNanoseconds,
      now - shownAt >= Self.intervalNanoseconds
    else { return }
    shownAt = now
    isShown = true
    writeError("\r\u{1B}[K\(text)")
  }

  /// Takes the line away, before something else is printed.
  func clear() {
    guard isShown else { return }
    isShown = false
    writeError("\r\u{1B}[K")
  }
}

/// Writes to stderr, without a line break.
func writeError(_ text: String) {
  let bytes = Array(text.utf8)
  // Where stderr is closed there is nobody to tell.
  _ = unsafe Glibc.write(2, bytes, bytes.count)
}
