package import KVCore

/// A clock that goes when it is told to.
package final class ManualClock: StoreClock {
  private struct Times {
    var real: UInt64
    var boot: UInt64
    /// Which start of the machine it is; nil = not known, as where /proc is not mounted.
    var bootNumber: UInt64?
  }

  private let times: Monitor<Times>

  /// Real time begins in 2026, so that no time is 0.
  package init(knowsBoot: Bool = false) {
    times = Monitor(
      Times(
        real: 1_800_000_000_000_000_000,
        boot: 1_000_000_000_000,
        bootNumber: knowsBoot ? 1 : nil
      )
    )
  }

  package func realTimeNanoseconds() -> UInt64 { times.withLock { $0.real } }
  package func bootTimeNanoseconds() -> UInt64 { times.withLock { $0.boot } }

  package func bootID() -> BootID? {
    times.withLock { $0.bootNumber }.map { BootID(key: BlockKey(high: 7, low: $0)) }
  }

  /// The machine starts anew: its boot time begins again.
  package func restart() {
    times.withLock { times in
      times.boot = 5_000_000_000
      times.bootNumber = times.bootNumber.map { $0 + 1 }
    }
  }

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
