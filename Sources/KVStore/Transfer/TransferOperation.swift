public import KVCore

/// A restore or an offload that runs on a thread of the store's own.
///
/// Thread-safe. The memory of its transfer stays borrowed until `poll` or `wait` has reported the end.
public final class TransferOperation: Sendable {
  private enum Stage {
    case queued
    case running
    case ended(Result<TransferResult, StoreError>)
  }

  private let core: StoreCore
  private let stage = Monitor(Stage.queued)
  let cancellation = Cancellation()
  private let blockCount: Int
  /// Called once it has ended, on whichever thread ended it.
  private let onEnd: @Sendable (TransferOperation) -> Void

  init(
    core: StoreCore,
    blockCount: Int,
    onEnd: @escaping @Sendable (TransferOperation) -> Void
  ) {
    self.core = core
    self.blockCount = blockCount
    self.onEnd = onEnd
  }

  /// Whether the process was forked since: then every call throws `.forked`.
  public var isForked: Bool { core.isForked }

  /// What it did, once it has ended; nil as long as it runs.
  ///
  /// Never blocks.
  public func poll() throws(StoreError) -> TransferResult? {
    guard !core.isForked else { throw .forked }
    guard case .ended(let result) = stage.withLock({ $0 }) else { return nil }
    return try result.get()
  }

  /// Waits for the end; nil when the timeout came first: then it goes on, and its memory stays borrowed.
  ///
  /// - Parameter timeoutNanoseconds: 0 waits as long as it takes.
  /// - Returns: what it did.
  /// - Throws: `StoreError`, what kept it from being done.
  public func wait(timeoutNanoseconds: UInt64 = 0) throws(StoreError) -> TransferResult? {
    guard !core.isForked else { throw .forked }
    let deadline = timeoutNanoseconds == 0 ? nil : KVCore.deadline(after: timeoutNanoseconds)
    let result: Result<TransferResult, StoreError>? = stage.wait(until: deadline) { stage in
      guard case .ended(let result) = stage else { return nil }
      return result
    }
    return try result?.get()
  }

  /// Asks it to end before its time, with `busy` outcomes for what is not done.
  ///
  /// Returns at once; the memory stays borrowed until the end is reported.
  public func cancel() {
    cancellation.cancel()
    // Who waits for arena room looks again; through the lock, as it may be about to wait.
    core.state.withLock { _ in }
    core.state.notifyAll()
    // One that nobody has begun never will be.
    let isQueued = stage.withLock { stage in
      guard case .queued = stage else { return false }
      return true
    }
    if isQueued { end(.success(untouched), from: .queued) }
  }

  /// Runs the transfer, unless it has been cancelled already.
  func run(_ transfer: () throws(StoreError) -> TransferResult) {
    if begin() { finish(transfer) }
  }

  /// False when it has been cancelled already; else `finish` is to follow.
  func begin() -> Bool {
    stage.withLock { stage in
      guard case .queued = stage else { return false }
      stage = .running
      return true
    }
  }

  /// Takes back that it has begun: it ends at once if it is cancelled, as one that waits does.
  func putBack() {
    stage.withLock { stage in
      if case .running = stage { stage = .queued }
    }
    if cancellation.isCancelled { end(.success(untouched), from: .queued) }
  }

  /// Ends what has begun with what the transfer did.
  func finish(_ transfer: () throws(StoreError) -> TransferResult) {
    let result: Result<TransferResult, StoreError>
    do throws(StoreError) {
      result = .success(try transfer())
    } catch {
      result = .failure(error)
    }
    end(result, from: .running)
  }

  /// What a transfer has done that was never begun.
  private var untouched: TransferResult {
    TransferResult(.busy, blockCount: blockCount)
  }

  private func end(_ result: Result<TransferResult, StoreError>, from expected: Stage) {
    let isMine = stage.withLock { stage in
      switch (stage, expected) {
      case (.queued, .queued), (.running, .running):
        stage = .ended(result)
        return true
      default: return false
      }
    }
    guard isMine else { return }
    stage.notifyAll()
    onEnd(self)
  }
}
