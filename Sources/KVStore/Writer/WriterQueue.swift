internal import KVCatalog
internal import KVCore

typealias RemovedRange = RemovedSummary.Range

/// What the writer has to do, in order.
enum WriterOperation {
  /// A path end was used.
  ///
  /// `use` says which use it was where eviction learns from uses.
  case touch(NamespaceCore, LeaseTable.Target, use: PathUse = .unknown)
  /// A use has put off the expiry of the blocks down to one.
  case extend(NamespaceCore, LeaseTable.Target, until: UInt64)
  /// A stored block was offered again.
  case renew(NamespaceCore, LeaseTable.Target, OfferedExpiry)
  /// A block has been offloaded.
  case publish(PendingBlock)
  /// Something that needs a write transaction of its own, after all before it.
  case call(WriterCall)
}

/// A closure for the writer's thread, and the wait for it.
final class WriterCall: Sendable {
  let work: @Sendable () throws(StoreError) -> Int
  private let outcome = Monitor<Result<Int, StoreError>?>(nil)

  init(_ work: @escaping @Sendable () throws(StoreError) -> Int) { self.work = work }

  func run() {
    let result: Result<Int, StoreError>
    do throws(StoreError) {
      result = .success(try work())
    } catch {
      result = .failure(error)
    }
    outcome.withLock { $0 = result }
    outcome.notifyAll()
  }

  /// Throws `.busy` at the deadline; the call is made all the same, as soon as the writer gets to it.
  func wait(until deadline: UInt64) throws(StoreError) -> Int {
    guard let result = outcome.wait(until: deadline, { $0 }) else { throw .busy }
    return try result.get()
  }
}

/// The writer's queue (docs/internals/concurrency.md, lock 3).
struct WriterQueue {
  var operations: [WriterOperation] = []
  /// Operations ever queued, taken by the writer, and done.
  var enqueuedCount: UInt64 = 0
  var takenCount: UInt64 = 0
  var doneCount: UInt64 = 0
  /// Everything up to here is wanted soon.
  var hurryCount: UInt64 = 0
  /// Slot bytes of the queued blocks; the writer does not wait for the next commit to write many.
  var unwrittenByteCount = 0
  /// Slot bytes of the blocks that the writer took and has not committed.
  var writtenByteCount = 0
  /// When the oldest operation that needs a commit was queued; nil when there is none.
  var dueSince: UInt64?
  var isStopping = false
  /// Somebody is at it: the writer's thread, which begins with what it has to do first, or a flush that found nobody at it.
  var isTaken = true
  /// Flushes that wait to be woken at the end of a step.
  var waitingCount = 0
  /// A flush leaves the thread what nobody waits for.
  var isHouseDue = false
  /// The store was larger than its capacity at the end of the last step.
  var isOverCapacity = false

  /// Touches alone wait for company this long, in nanoseconds (design: a crash loses a second of them at most).
  static let touchDelay: UInt64 = 1_000_000_000
  /// Payload is written as it comes, in pieces of at least so many bytes, so that the disk works while more is copied in.
  static let unwrittenByteCountMax = 4 << 20
  var hasMuchUnwritten: Bool { unwrittenByteCount >= Self.unwrittenByteCountMax }
  /// Nothing is queued, and all that was taken is committed.
  var isIdle: Bool { operations.isEmpty && takenCount == doneCount }
  /// Touches that are kept for the next commit; older ones are dropped first.
  ///
  /// They only order evictions.
  static let touchCountMax = 65_536

  mutating func append(_ operation: WriterOperation) {
    operations.append(operation)
    enqueuedCount += 1
  }

  /// All that is queued, for the writer.
  mutating func takeAll(willCommit: Bool) -> [WriterOperation] {
    defer { operations = [] }
    takenCount = enqueuedCount
    writtenByteCount = willCommit ? 0 : writtenByteCount + unwrittenByteCount
    unwrittenByteCount = 0
    if willCommit { dueSince = nil }
    return operations
  }
}
