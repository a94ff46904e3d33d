internal import KVCore

/// Runs what may wait for another process on a thread of its own, so that the caller waits no longer than it wants.
///
/// LMDB has no timed lock: a process that is stopped while it commits keeps every other writer waiting.
enum BoundedCall {
  private enum Outcome<Value: Sendable>: Sendable {
    case running
    case ended(Result<Value, StoreError>)
    /// Nobody waits any more.
    case abandoned
  }

  /// What `body` answers; throws `.busy` once the deadline has passed.
  ///
  /// The body goes on then, and `dispose` gets what it answers.
  static func run<Value: Sendable>(
    until deadline: UInt64,
    dispose: @escaping @Sendable (Value) -> Void = { _ in },
    _ body: @escaping @Sendable () throws(StoreError) -> Value
  ) throws(StoreError) -> Value {
    let outcome = Monitor(Outcome<Value>.running)
    let thread = ServiceThread.start {
      let result: Result<Value, StoreError>
      do throws(StoreError) { result = .success(try body()) } catch { result = .failure(error) }
      let isAbandoned = outcome.withLock { outcome in
        if case .abandoned = outcome { return true }
        outcome = .ended(result)
        return false
      }
      outcome.notifyAll()
      if isAbandoned, case .success(let value) = result { dispose(value) }
    }
    // Without a thread to spare it is done here, and may wait.
    guard let thread else { return try body() }
    let result: Result<Value, StoreError>? = outcome.wait(until: deadline) { outcome in
      if case .ended(let result) = outcome { return result }
      return nil
    }
    if let result {
      thread.join()
      return try result.get()
    }
    thread.detach()
    let late: Result<Value, StoreError>? = outcome.withLock { outcome in
      // It may have ended just now.
      if case .ended(let result) = outcome { return result }
      outcome = .abandoned
      return nil
    }
    guard let late else { throw .busy }
    return try late.get()
  }
}
