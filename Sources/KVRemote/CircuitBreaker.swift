/// Whether a remote is asked at all: after three failures of transport in a row it is left alone, and tried with one question after a while.
///
/// A value; time is given to it, in nanoseconds of `monotonicNanoseconds()`.
package struct CircuitBreaker: Sendable {
  package enum State: Sendable, Equatable {
    case closed
    /// Nobody asks.
    case open
    /// It is time for a probe, or one is under way.
    case probing
  }

  package static let failureCountMax = 3
  /// The longest pause is so many of the first.
  package static let pauseFactorMax: UInt64 = 30

  private var failureCount = 0
  private var pauseNanoseconds: UInt64 = 0
  private var pauseEndsAt: UInt64 = 0
  private var isOpen = false
  private var isProbing = false
  /// How often it has opened.
  package private(set) var openCount: UInt64 = 0

  private let firstPause: UInt64

  /// - Parameter pauseNanoseconds: before the first probe; a second but in tests.
  package init(pauseNanoseconds: UInt64 = 1_000_000_000) { firstPause = pauseNanoseconds }

  package func state(now: UInt64) -> State {
    guard isOpen else { return .closed }
    return isProbing || now >= pauseEndsAt ? .probing : .open
  }

  /// Whether calls may be made.
  package var isClosed: Bool { !isOpen }

  /// Whether the caller is the one who probes now; it must tell how that went.
  package mutating func beginProbe(now: UInt64) -> Bool {
    guard isOpen, !isProbing, now >= pauseEndsAt else { return false }
    isProbing = true
    return true
  }

  package mutating func noteSuccess() {
    failureCount = 0
    pauseNanoseconds = 0
    isOpen = false
    isProbing = false
  }

  package mutating func noteFailure(now: UInt64) {
    failureCount += 1
    let probeFailed = isProbing
    isProbing = false
    guard failureCount >= Self.failureCountMax, !isOpen || probeFailed else { return }
    if !isOpen { openCount += 1 }
    isOpen = true
    pauseNanoseconds = min(
      max(pauseNanoseconds * 2, firstPause),
      firstPause * Self.pauseFactorMax
    )
    pauseEndsAt = now &+ pauseNanoseconds
  }
}
