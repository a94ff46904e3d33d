internal import KVCatalog
internal import KVCodec
internal import KVCore

/// Owns every catalog write of this process: a thread, and flushes that wait for it anyway and find it idle.
///
/// Takes what is queued, in order, and turns it into as few synced commits as it can. One at a time does so (`isTaken`). See
/// docs/internals/transfer.md.
final class Writer: Sendable {
  unowned let core: StoreCore
  let queue: Monitor<WriterQueue>
  let batches: WriterBatches
  private let thread = Monitor<ServiceThread?>(nil)

  init(core: StoreCore) {
    self.core = core
    queue = core.writerQueue
    batches = WriterBatches(core: core)
  }

  // MARK: Queueing

  /// Blocks of one window of an offload, to be published in their order.
  func enqueue(_ blocks: [WriterOperation], slotByteCount: Int) {
    guard !blocks.isEmpty else { return }
    let mustWake = queue.withLock { queue in
      let wasDue = queue.dueSince != nil && !queue.operations.isEmpty
      let hadMuch = queue.hasMuchUnwritten
      for block in blocks { queue.append(block) }
      queue.unwrittenByteCount += blocks.count * slotByteCount
      queue.dueSince = queue.dueSince ?? monotonicNanoseconds()
      if queue.unwrittenByteCount + queue.writtenByteCount >= core.effectiveHostBytes / 4 {
        queue.hurryCount = queue.enqueuedCount
        return true
      }
      return !wasDue || (queue.hasMuchUnwritten && !hadMuch)
    }
    if mustWake { queue.notifyAll() }
  }

  func enqueueTouch(
    _ namespace: NamespaceCore,
    _ target: LeaseTable.Target,
    use: PathUse = .unknown
  ) {
    let wasIdle = queue.withLock { queue in
      if case .touch(let last, let lastTarget, let lastUse)? = queue.operations.last,
        last === namespace, lastTarget == target, lastUse == use
      {
        return false
      }
      guard queue.operations.count < WriterQueue.touchCountMax else { return false }
      queue.append(.touch(namespace, target, use: use))
      return queue.operations.count == 1
    }
    // An idle writer sleeps without an end: its second begins with the first touch.
    if wasIdle { queue.notifyAll() }
  }

  func enqueueExtension(
    _ namespace: NamespaceCore,
    _ target: LeaseTable.Target,
    until deadline: UInt64
  ) {
    enqueueKept(.extend(namespace, target, until: deadline))
  }

  func enqueueRenewal(
    _ namespace: NamespaceCore,
    _ target: LeaseTable.Target,
    _ offered: OfferedExpiry
  ) {
    enqueueKept(.renew(namespace, target, offered))
  }

  /// Waits as touches do, but is never dropped.
  private func enqueueKept(_ operation: WriterOperation) {
    let mustWake = queue.withLock { queue in
      queue.append(operation)
      guard queue.operations.count >= WriterQueue.touchCountMax else {
        return queue.operations.count == 1
      }
      queue.hurryCount = queue.enqueuedCount
      return true
    }
    if mustWake { queue.notifyAll() }
  }

  func enqueueQuarantine(
    _ namespace: NamespaceCore,
    _ position: BlockPosition,
    _ place: BlockPlace?,
    _ range: RemovedRange
  ) {
    enqueue(
      WriterCall { [core] () throws(StoreError) in
        try core.removeQuarantined(namespace, position, place, range)
      }
    )
  }

  func enqueue(_ call: WriterCall) {
    queue.withLock { queue in
      queue.append(.call(call))
      queue.hurryCount = queue.enqueuedCount
    }
    queue.notifyAll()
  }

  /// Queues a call that may wait for other work, or for a second; not while the store closes.
  func enqueueUnhurried(_ call: WriterCall) {
    queue.withLock { queue in
      if !queue.isStopping { queue.append(.call(call)) }
    }
    queue.notifyAll()
  }

  /// Queues a call and waits for it until the deadline, which another process may let pass (`WriterCall.wait`).
  func perform(
    deadline: UInt64,
    _ work: @escaping @Sendable () throws(StoreError) -> Int
  ) throws(StoreError) -> Int {
    let call = WriterCall(work)
    enqueue(call)
    return try call.wait(until: deadline)
  }

  /// What is queued is wanted now.
  func hurry() {
    queue.withLock { $0.hurryCount = $0.enqueuedCount }
    queue.notifyAll()
  }

  /// Returns when what is queued is done.
  ///
  /// Without a deadline the caller does it itself if nobody is at it: to wake a thread and be woken by it takes longer than a small
  /// commit where the machine is busy. With one it has to wait, since LMDB's lock knows no end.
  func flush(deadline: UInt64?) throws(StoreError) {
    enum Part {
      case step(Step)
      case wait(until: UInt64)
    }
    let part = queue.withLock { queue -> Part in
      queue.hurryCount = queue.enqueuedCount
      if deadline == nil, !queue.isTaken, !queue.isIdle {
        return .step(Step(&queue, mustCommit: true))
      }
      queue.waitingCount += 1
      return .wait(until: queue.enqueuedCount)
    }
    switch part {
    case .step(let step):
      perform(step)
      release(leavingHouse: batches.isHouseDue)
    case .wait(let target):
      queue.notifyAll()
      let isDone: Bool? = queue.wait(until: deadline) { queue in
        queue.doneCount >= target ? true : nil
      }
      queue.withLock { $0.waitingCount -= 1 }
      if isDone == nil { throw .busy }
    }
  }

  // MARK: The thread

  func start() throws(StoreError) {
    // Unowned: `stop` joins the thread before the writer goes.
    guard let started = ServiceThread.start({ [unowned self] in run() }) else {
      throw .outOfMemory
    }
    thread.withLock { $0 = started }
  }

  /// Ends the thread once it has done what is queued.
  func stop() {
    queue.withLock { $0.isStopping = true }
    queue.notifyAll()
    thread.withLock { $0 }?.join()
    thread.withLock { $0 = nil }
  }

  private func run() {
    core.removeLeftOvers()
    enqueueShrinking()
    release()
    while let next = nextStep() {
      switch next {
      case .commit(let step):
        perform(step)
        if step.mustCommit { batches.keepHouse() }
      case .house:
        batches.keepHouse()
      }
      release()
    }
  }

  /// Operations that were taken: their payloads are written, and all that was taken may go into the catalog.
  private struct Step {
    let operations: [WriterOperation]
    /// Operations ever taken.
    let takenCount: UInt64
    let mustCommit: Bool

    /// Takes all that is queued; `release` must follow.
    init(_ queue: inout WriterQueue, mustCommit: Bool) {
      operations = queue.takeAll(willCommit: mustCommit)
      takenCount = queue.takenCount
      self.mustCommit = mustCommit
      queue.isTaken = true
    }
  }

  private func perform(_ step: Step) {
    core.pendingParents.take(step.operations)
    var segment: [WriterOperation] = []
    for operation in step.operations {
      guard case .call(let call) = operation else {
        segment.append(operation)
        continue
      }
      batches.write(segment, willCommit: true)
      batches.commit()
      segment = []
      call.run()
    }
    batches.write(segment, willCommit: step.mustCommit)
    guard step.mustCommit else { return }
    batches.commit()
    core.pendingParents.endTaken()
    let isAwaited = queue.withLock { queue in
      queue.doneCount = step.takenCount
      return queue.waitingCount > 0
    }
    if isAwaited { queue.notifyAll() }
  }

  /// Lets the next one at the queue.
  private func release(leavingHouse isHouseDue: Bool = false) {
    let isOverCapacity = batches.isOverCapacity
    let mustWake = queue.withLock { queue in
      queue.isTaken = false
      queue.isOverCapacity = isOverCapacity
      if isHouseDue { queue.isHouseDue = true }
      return queue.isHouseDue || queue.isStopping || !queue.isIdle
    }
    if mustWake { queue.notifyAll() }
  }

  private enum Next {
    case commit(Step)
    case house
  }

  /// Waits until there is something to do; nil when it is time to stop.
  private func nextStep() -> Next? {
    while true {
      enum Look {
        case next(Next?)
        case sleep(UInt64?)
      }
      let interval = core.configuration.commitIntervalNanoseconds
      let look = queue.withLock { queue -> Look in
        // Whoever is at it wakes this thread when he leaves something.
        if queue.isTaken { return .sleep(nil) }
        if queue.isHouseDue {
          queue.isHouseDue = false
          queue.isTaken = true
          return .next(.house)
        }
        if queue.isIdle { return queue.isStopping ? .next(nil) : .sleep(nil) }
        let now = monotonicNanoseconds()
        let due = queue.dueSince.map { $0 &+ interval }
        let isDue =
          queue.isStopping || queue.hurryCount > queue.doneCount || due.map({ $0 <= now }) == true
        guard isDue || queue.hasMuchUnwritten else {
          return .sleep(due ?? now &+ WriterQueue.touchDelay)
        }
        return .next(.commit(Step(&queue, mustCommit: isDue)))
      }
      switch look {
      case .next(let next): return next
      case .sleep(let until):
        if until == nil, mayNeedHousekeeping {
          let deadline = deadline(after: WriterBatches.housekeepingInterval)
          let isSoon: Bool? = queue.wait(until: deadline) { queue in
            if queue.isTaken { return nil }
            return queue.isStopping || queue.isHouseDue || !queue.isIdle ? true : nil
          }
          if isSoon == nil { queue.withLock { $0.isHouseDue = true } }
          continue
        }
        // Ends early when something is queued that is due sooner.
        let isTouchWait = queue.withLock { $0.dueSince == nil && !$0.operations.isEmpty }
        let woke: Bool? = queue.wait(until: until) { queue in
          if queue.isTaken { return nil }
          if queue.isStopping || queue.isHouseDue || queue.hurryCount > queue.doneCount {
            return true
          }
          if until == nil { return queue.isIdle ? nil : true }
          if queue.hasMuchUnwritten { return true }
          return isTouchWait && queue.dueSince != nil ? true : nil
        }
        if woke == nil, isTouchWait { queue.withLock { $0.hurryCount = $0.enqueuedCount } }
      }
    }
  }

  private var mayNeedHousekeeping: Bool {
    queue.withLock { $0.isOverCapacity } || core.state.withLock { $0.namespaces.mayExpire }
  }
}
