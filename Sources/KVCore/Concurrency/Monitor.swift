public import Glibc

/// State behind a lock, with one condition to wait on.
///
/// Every wait has a deadline or a peer that ends it.
///
/// `Mutex` of the Synchronization module has no condition variable, and the thread sanitizer does not see it; hence pthreads. Unsafe: the lock object lives at
/// a fixed address that this class owns; the state is touched with the lock held only.
@safe @usableFromInline package final class Monitor<State>: @unchecked Sendable {
  @usableFromInline let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let condition: UnsafeMutablePointer<pthread_cond_t>
  @usableFromInline var state: State

  package init(_ state: State) {
    self.state = state
    unsafe mutex = .allocate(capacity: 1)
    unsafe condition = .allocate(capacity: 1)
    unsafe pthread_mutex_init(mutex, nil)
    // Deadlines must not move when someone sets the clock.
    var attributes = pthread_condattr_t()
    unsafe pthread_condattr_init(&attributes)
    unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    unsafe pthread_cond_init(condition, &attributes)
    unsafe pthread_condattr_destroy(&attributes)
  }

  deinit {
    unsafe pthread_cond_destroy(condition)
    unsafe pthread_mutex_destroy(mutex)
    unsafe condition.deallocate()
    unsafe mutex.deallocate()
  }

  /// Runs `body` with the lock held.
  ///
  /// Inlinable, so that other modules' calls are made for their types: a short call locks several times.
  @inlinable package func withLock<Result, Failure>(
    _ body: (inout State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    unsafe pthread_mutex_lock(mutex)
    defer { unsafe pthread_mutex_unlock(mutex) }
    return try body(&state)
  }

  /// Wakes everyone who waits, to look again.
  package func notifyAll() { unsafe pthread_cond_broadcast(condition) }

  /// Waits, with the lock released, until `body` answers something; nil once the deadline has passed.
  ///
  /// - Parameters:
  ///   - deadline: in nanoseconds of `monotonicNanoseconds()`; nil waits as long as it takes.
  ///   - body: called with the lock held, first at once, then after each notification.
  /// - Returns: what `body` answered.
  package func wait<Result>(
    until deadline: UInt64?,
    _ body: (inout State) -> Result?
  ) -> Result? {
    unsafe pthread_mutex_lock(mutex)
    defer { unsafe pthread_mutex_unlock(mutex) }
    while true {
      if let result = body(&state) { return result }
      guard let deadline else {
        unsafe pthread_cond_wait(condition, mutex)
        continue
      }
      if monotonicNanoseconds() >= deadline { return nil }
      // timespec counts signed seconds; a century is as good as the end of time.
      let bounded = min(deadline, 1 << 61)
      var time = timespec(
        tv_sec: Int(bounded / 1_000_000_000),
        tv_nsec: Int(bounded % 1_000_000_000)
      )
      unsafe pthread_cond_timedwait(condition, mutex, &time)
    }
  }
}

/// Time that only moves forward, in nanoseconds; what deadlines count in.
package func monotonicNanoseconds() -> UInt64 {
  var time = timespec()
  guard unsafe clock_gettime(CLOCK_MONOTONIC, &time) == 0 else { return 0 }
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// So many nanoseconds from now, or the end of time.
package func deadline(after nanoseconds: UInt64) -> UInt64 {
  let (sum, overflow) = monotonicNanoseconds().addingReportingOverflow(nanoseconds)
  return overflow ? .max : sum
}
