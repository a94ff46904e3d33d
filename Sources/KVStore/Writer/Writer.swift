internal import KVCatalog
internal import KVCodec
internal import KVCore

/// The thread that owns every catalog write of this process.
///
/// Takes what is queued, in order, and turns it into as few synced commits as it can. See
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

  /// Waits until what is queued is done.
  func flush(deadline: UInt64?) throws(StoreError) {
    let target = queue.withLock { queue in
      queue.hurryCount = queue.enqueuedCount
      return queue.enqueuedCount
    }
    queue.notifyAll()
    let isDone: Bool? = queue.wait(until: deadline) { queue in
      queue.doneCount >= target ? true : nil
    }
    if isDone == nil { throw .busy }
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
    while let next = nextStep() {
      core.pendingParents.take(next.operations)
      var segment: [WriterOperation] = []
      for operation in next.operations {
        guard case .call(let call) = operation else {
          segment.append(operation)
          continue
        }
        batches.write(segment, willCommit: true)
        batches.commit()
        segment = []
        call.run()
      }
      batches.write(segment, willCommit: next.mustCommit)
      guard next.mustCommit else { continue }
      batches.commit()
      core.pendingParents.endTaken()
      queue.withLock { $0.doneCount = next.takenCount }
      queue.notifyAll()
      // Nobody waits for this.
      batches.keepHouse()
    }
  }

  /// What the thread does next: it takes operations, whose payloads it writes, and may put all that it took into the catalog.
  private struct Step {
    var operations: [WriterOperation] = []
    /// Operations ever taken.
    var takenCount: UInt64
    var mustCommit: Bool
  }

  /// Waits until there is something to do; nil when it is time to stop.
  private func nextStep() -> Step? {
    while true {
      enum Next {
        case step(Step)
        case stop
        case sleep(UInt64?)
      }
      let interval = core.configuration.commitIntervalNanoseconds
      let look: (inout WriterQueue) -> Next = { queue in
        let isIdle = queue.operations.isEmpty && queue.takenCount == queue.doneCount
        if isIdle { return queue.isStopping ? .stop : .sleep(nil) }
        let now = monotonicNanoseconds()
        let due = queue.dueSince.map { $0 &+ interval }
        let isDue =
          queue.isStopping || queue.hurryCount > queue.doneCount || due.map({ $0 <= now }) == true
        guard isDue || queue.hasMuchUnwritten else {
          return .sleep(due ?? now &+ WriterQueue.touchDelay)
        }
        return .step(
          Step(
            operations: queue.takeAll(willCommit: isDue),
            takenCount: queue.takenCount,
            mustCommit: isDue
          )
        )
      }
      switch queue.withLock(look) {
      case .step(let step): return step
      case .stop: return nil
      case .sleep(let until):
        if until == nil, batches.needsHousekeeping {
          let deadline = deadline(after: WriterBatches.housekeepingInterval)
          let isSoon: Bool? = queue.wait(until: deadline) { queue in
            queue.isStopping || !queue.operations.isEmpty ? true : nil
          }
          if isSoon == nil {
            batches.keepHouse()
          }
          continue
        }
        // Ends early when something is queued that is due sooner.
        let isTouchWait = queue.withLock { $0.dueSince == nil && !$0.operations.isEmpty }
        let woke: Bool? = queue.wait(until: until) { queue in
          if queue.isStopping || queue.hurryCount > queue.doneCount { return true }
          if until == nil { return queue.operations.isEmpty ? nil : true }
          if queue.hasMuchUnwritten { return true }
          return isTouchWait && queue.dueSince != nil ? true : nil
        }
        if woke == nil, isTouchWait { queue.withLock { $0.hurryCount = $0.enqueuedCount } }
      }
    }
  }
}
