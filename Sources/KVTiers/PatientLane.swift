internal import Glibc
internal import KVCore
internal import KVFile

/// Runs, one after the other on a thread of its own, what may not come back: the work of a disk that may hang while everything else is fine.
///
/// Who wants something done waits for a bounded time. From then on the lane is *stuck*: everything else is refused at once, until that one thing
/// is over.
final class PatientLane: Sendable {
  private enum Outcome<Value: Sendable>: Sendable {
    case running
    case ended(Result<Value, FileError>)
    case abandoned
  }

  private let pool = ServicePool(threadCount: 1)
  private let stuck = Monitor(false)
  private let limitNanoseconds: UInt64

  init(limitNanoseconds: UInt64) { self.limitNanoseconds = limitNanoseconds }

  var isStuck: Bool { stuck.withLock { $0 } }

  /// Does something of the lane.
  ///
  /// - Parameters:
  ///   - operation: what a refusal is told to be one of.
  ///   - late: gets what comes when nobody waits any more, before the lane takes something else.
  ///   - body: keeps what it works with alive.
  /// - Returns: what it answers.
  /// - Throws: its error; `ETIMEDOUT` when it takes too long, or the lane is stuck.
  func run<Value: Sendable>(
    _ operation: FileOperation,
    late: @escaping @Sendable (Value) -> Void = { _ in },
    _ body: @escaping @Sendable () throws(FileError) -> Value
  ) throws(FileError) -> Value {
    let timedOut = FileError(operation, errno: ETIMEDOUT)
    if isStuck { throw timedOut }
    let outcome = Monitor(Outcome<Value>.running)
    let refusal = pool.submit { [stuck] in
      let result: Result<Value, FileError>
      do throws(FileError) { result = .success(try body()) } catch { result = .failure(error) }
      let isAbandoned = outcome.withLock { outcome in
        if case .abandoned = outcome { return true }
        outcome = .ended(result)
        return false
      }
      outcome.notifyAll()
      guard isAbandoned else { return }
      if case .success(let value) = result { late(value) }
      stuck.withLock { $0 = false }
    }
    // Without a thread to spare it is done here, and may wait.
    guard refusal == nil else { return try body() }
    let result: Result<Value, FileError>? = outcome.wait(
      until: deadline(after: limitNanoseconds)
    ) { outcome in
      if case .ended(let result) = outcome { return result }
      return nil
    }
    if let result { return try result.get() }
    let justEnded: Result<Value, FileError>? = outcome.withLock { outcome in
      if case .ended(let result) = outcome { return result }
      stuck.withLock { $0 = true }
      outcome = .abandoned
      return nil
    }
    guard let justEnded else { throw timedOut }
    return try justEnded.get()
  }

  /// Waits for what is under way, and ends the thread.
  func stop() { pool.stop() }
}
