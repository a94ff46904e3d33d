internal import Glibc

/// Where the store gets its time from; injected, so that tests can step it.
public protocol StoreClock: Sendable {
  /// Unix time in nanoseconds, for expiry and for people.
  func realTimeNanoseconds() -> UInt64
  /// Time that never steps, in nanoseconds, also counting suspend; for deadlines and leases.
  func bootTimeNanoseconds() -> UInt64
  /// Names the start of the machine from which `bootTimeNanoseconds` counts; nil where it is not known.
  func bootID() -> BootID?
}

extension StoreClock {
  /// Not known.
  public func bootID() -> BootID? { nil }
}

/// The kernel's clocks.
public struct SystemClock: StoreClock {
  /// The system's clock.
  public init() {}

  /// CLOCK_REALTIME.
  public func realTimeNanoseconds() -> UInt64 { read(CLOCK_REALTIME) }

  /// CLOCK_BOOTTIME.
  public func bootTimeNanoseconds() -> UInt64 { read(CLOCK_BOOTTIME) }

  /// The kernel's id of this start, and the time namespace, in which CLOCK_BOOTTIME may be shifted.
  public func bootID() -> BootID? { .ofThisMachine() }

  private func read(_ clock: clockid_t) -> UInt64 {
    var time = timespec()
    guard unsafe clock_gettime(clock, &time) == 0 else { return 0 }
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
