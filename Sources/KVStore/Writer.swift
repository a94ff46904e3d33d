internal import KVCodec
internal import KVCore

/// The thread that owns every catalog write of this process.
///
/// Takes what is queued, in order, and turns it into as few synced commits as it can. See docs/architecture.md,
/// "How an offload flows".
final class Writer: Sendable {
  unowned let core: StoreCore
  let queue = Monitor(WriterQueue())
  let batches: WriterBatches
  private let thread = Monitor<ServiceThread?>(nil)

  init(core: StoreCore) {
    self.core = core
    batches = WriterBatches(core: core)
  }

  // MARK: Queueing

  func enqueue(_ block: PendingBlock) {
    queue.withLock { queue in
      queue.append(.publish(block))
      queue.dueSince = queue.dueSince ?? monotonicNanoseconds()
      queue.pendingByteCount += block.namespace.layout.slotByteCount
      if queue.pendingByteCount >= core.effectiveHostBytes / 4 {
        queue.hurryCount = queue.enqueuedCount
      }
    }
    queue.notifyAll()
  }

  func enqueueTouch(
    _ namespace: NamespaceCore,
    _ head: LeaseTable.Head,
    use: PathUse = .unknown
  ) {
    let wasIdle = queue.withLock { queue in
      if case .touch(let last, let lastHead, let lastUse)? = queue.operations.last,
        last === namespace, lastHead == head, lastUse == use
      {
        return false
      }
      guard queue.operations.count < WriterQueue.touchCountMax else { return false }
      queue.append(.touch(namespace, head, use: use))
      return queue.operations.count == 1
    }
    // An idle writer sleeps without an end: its second begins with the first touch.
    if wasIdle { queue.notifyAll() }
  }

  func enqueueExtension(
    _ namespace: NamespaceCore,
    _ head: LeaseTable.Head,
    until deadline: UInt64
  ) {
    enqueueKept(.extend(namespace, head, until: deadline))
  }

  func enqueueRenewal(
    _ namespace: NamespaceCore,
    _ head: LeaseTable.Head,
    _ offered: OfferedLife
  ) {
    enqueueKept(.renew(namespace, head, offered))
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
    _ range: RemovedRange
  ) {
    enqueue(
      WriterCall { [core] () throws(StoreError) in
        try core.removeQuarantined(namespace, position, range)
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

  func flush(deadline: UInt64?) throws(StoreError) -> FlushResult {
    let target = queue.withLock { queue in
      queue.hurryCount = queue.enqueuedCount
      return queue.enqueuedCount
    }
    queue.notifyAll()
    let outcome: Result<FlushResult, StoreError>? = queue.wait(until: deadline) { queue in
      guard queue.doneCount >= target else { return nil }
      if let error = queue.error {
        queue.error = nil
        return .failure(error)
      }
      defer { queue.flushed = FlushResult() }
      return .success(queue.flushed)
    }
    guard let outcome else { throw .busy }
    return try outcome.get()
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
    while true {
      guard let operations = nextOperations() else { return }
      batches.beginTaken(operations)
      var segment: [WriterOperation] = []
      for operation in operations {
        guard case .call(let call) = operation else {
          segment.append(operation)
          continue
        }
        batches.process(segment, queue)
        segment = []
        call.run()
      }
      batches.process(segment, queue)
      batches.endTaken()
      queue.withLock { $0.doneCount += UInt64(operations.count) }
      queue.notifyAll()
      // Nobody waits for this.
      batches.keepHouse()
    }
  }

  /// Waits until something is due and takes all that is queued; nil when it is time to stop.
  private func nextOperations() -> [WriterOperation]? {
    while true {
      enum Next {
        case take([WriterOperation])
        case stop
        case sleep(UInt64?)
      }
      let interval = core.configuration.commitIntervalNanoseconds
      let look: (inout WriterQueue) -> Next = { queue in
        if queue.operations.isEmpty { return queue.isStopping ? .stop : .sleep(nil) }
        let now = monotonicNanoseconds()
        let due = queue.dueSince.map { $0 &+ interval }
        guard
          queue.isStopping || queue.hurryCount > queue.doneCount || due.map({ $0 <= now }) == true
        else { return .sleep(due ?? now &+ WriterQueue.touchDelay) }
        defer {
          queue.operations = []
          queue.dueSince = nil
          queue.pendingByteCount = 0
        }
        return .take(queue.operations)
      }
      switch queue.withLock(look) {
      case .take(let operations): return operations
      case .stop: return nil
      case .sleep(let until):
        if until == nil, batches.needsHousekeeping {
          let deadline = deadline(after: WriterBatches.housekeepingInterval)
          let isSoon: Bool? = queue.wait(until: deadline) { queue in
            queue.isStopping || !queue.operations.isEmpty ? true : nil
          }
          if isSoon == nil { return [] }
          continue
        }
        // Ends early when something is queued that is due sooner.
        let isTouchWait = queue.withLock { $0.dueSince == nil && !$0.operations.isEmpty }
        let woke: Bool? = queue.wait(until: until) { queue in
          if queue.isStopping || queue.hurryCount > queue.doneCount { return true }
          if until == nil { return queue.operations.isEmpty ? nil : true }
          return isTouchWait && queue.dueSince != nil ? true : nil
        }
        if woke == nil, isTouchWait { queue.withLock { $0.hurryCount = $0.enqueuedCount } }
      }
    }
  }
}
