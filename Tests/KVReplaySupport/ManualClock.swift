import KVCore

/// A clock that goes when it is told to.
package final class ManualClock: StoreClock {
  private struct Times {
    var real: UInt64
    var boot: UInt64
  }

  private let times: Monitor<Times>

  /// Real time begins in 2026, so that no time is 0.
  package init() {
    times = Monitor(Times(real: 1_800_000_000_000_000_000, boot: 1_000_000_000_000))
  }

  package func realTimeNanoseconds() -> UInt64 { times.withLock { $0.real } }
  package func bootTimeNanoseconds() -> UInt64 { times.withLock { $0.boot } }

  /// Time passes.
  package func advance(seconds: Double) { advance(nanoseconds: UInt64(seconds * 1e9)) }

  /// Time passes.
  package func advance(nanoseconds: UInt64) {
    times.withLock { times in
      times.real += nanoseconds
      times.boot += nanoseconds
    }
  }

  /// Somebody sets the clock of the wall.
  package func step(seconds: Int64) {
    times.withLock { times in
      times.real = UInt64(Int64(times.real) + seconds * 1_000_000_000)
    }
  }
}
