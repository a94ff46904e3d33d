internal import KVCore
internal import KVTiers

/// When a transfer gives up: at a deadline, or when it is cancelled.
struct TransferLimit: Sendable {
  /// In nanoseconds of `monotonicNanoseconds()`; nil waits as long as it takes.
  var deadline: UInt64?
  var cancellation: Cancellation?

  /// As long as it takes.
  static let none = TransferLimit(deadline: nil, cancellation: nil)

  /// So many nanoseconds from now; 0 is as long as it takes.
  static func after(_ nanoseconds: UInt64) -> TransferLimit {
    TransferLimit(
      deadline: nanoseconds == 0 ? nil : KVCore.deadline(after: nanoseconds),
      cancellation: nil
    )
  }

  /// Whether the transfer may end before its reads do.
  var isBounded: Bool { deadline != nil || cancellation != nil }

  var isCancelled: Bool { cancellation?.isCancelled == true }

  var isOver: Bool {
    if isCancelled { return true }
    guard let deadline else { return false }
    return monotonicNanoseconds() >= deadline
  }

  /// Waits for a read of a batch that was given to the cancellation to watch.
  func wait(_ batch: ReadBatch, _ index: Int) -> ReadWait {
    guard let cancellation else { return batch.wait(index, until: deadline) }
    return batch.wait(index, until: deadline) { cancellation.isCancelled }
  }
}

/// Ends a transfer on another thread before its time.
final class Cancellation: Sendable {
  private let flag = AtomicFlag(false)
  /// The reads that the transfer waits for now.
  private let batch = Monitor<ReadBatch?>(nil)
  /// That of a transfer of which this one is a part.
  private let whole = Monitor<Cancellation?>(nil)

  var isCancelled: Bool { flag.value }

  /// Who waits for reads is woken; who waits for the state is the caller's to wake.
  func cancel() {
    flag.exchange(true)
    batch.withLock { $0 }?.wake()
    whole.withLock { $0 }?.cancel()
  }

  /// From now on, this one ends that transfer too; nil: no longer.
  func forward(to whole: Cancellation?) {
    self.whole.withLock { $0 = whole }
    if isCancelled { whole?.cancel() }
  }

  func watch(_ batch: ReadBatch?) { self.batch.withLock { $0 = batch } }
}
