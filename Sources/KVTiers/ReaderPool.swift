package import KVCore
package import KVFile

/// Part of a slot that is to be read.
///
/// The buffer belongs to the reader until the batch has reported it.
@safe package struct ReadRequest {
  package let address: SlotAddress
  package let slotByteCount: Int
  /// From the slot's start; a multiple of 4096 for direct I/O, as are the buffer's size and address.
  package let offset: Int
  package let buffer: UnsafeMutableRawBufferPointer

  package init(
    address: SlotAddress,
    slotByteCount: Int,
    offset: Int,
    buffer: UnsafeMutableRawBufferPointer
  ) {
    self.address = address
    self.slotByteCount = slotByteCount
    self.offset = offset
    unsafe self.buffer = unsafe buffer
  }
}

/// Reads that were started together; each is waited for by its index, and every one must be.
package final class ReadBatch: Sendable {
  private struct State {
    var isDone: [Bool]
    var errors: [Int: FileError] = [:]
  }

  private let state: Monitor<State>

  init(count: Int) { state = Monitor(State(isDone: Array(repeating: false, count: count))) }

  /// Waits for one read; nil when it went well.
  package func wait(_ index: Int) -> FileError? {
    let outcome: FileError?? = state.wait(until: nil) { state in
      state.isDone[index] ? .some(state.errors[index]) : nil
    }
    return outcome ?? nil
  }

  func finish(_ index: Int, _ error: FileError?) {
    state.withLock { state in
      state.isDone[index] = true
      state.errors[index] = error
    }
    state.notifyAll()
  }
}

/// A few threads that read, so that the disk works while the caller verifies and copies.
final class ReaderPool: Sendable {
  /// Unchecked: the request's buffer is lent to the pool until the batch reports it.
  @safe struct Job: @unchecked Sendable {
    let batch: ReadBatch
    let index: Int
    let request: ReadRequest
    unowned let tier: DiskTier

    init(batch: ReadBatch, index: Int, request: ReadRequest, tier: DiskTier) {
      self.batch = batch
      self.index = index
      self.request = request
      self.tier = tier
    }

    func run() { batch.finish(index, tier.perform(request)) }
  }

  @safe private struct State {
    var jobs: [Job] = []
    var next = 0
    var threads: [ServiceThread] = []
    var isStopping = false
  }

  private let state = Monitor(State())
  private let threadCount: Int

  init(threadCount: Int) { self.threadCount = threadCount }

  /// Queues a read.
  ///
  /// Without any thread to be had, it is done here and now.
  func submit(_ job: Job) {
    let canRun = state.withLock { state in
      // What is queued after the stop would never be read.
      guard !state.isStopping else { return false }
      if state.threads.isEmpty { startThreads(&state) }
      guard !state.threads.isEmpty else { return false }
      state.jobs.append(job)
      return true
    }
    if canRun { state.notifyAll() } else { job.run() }
  }

  private func startThreads(_ state: inout State) {
    for _ in 0..<threadCount {
      // Unowned: `stop` joins the threads before the pool goes.
      if let thread = ServiceThread.start({ [unowned self] in work() }) {
        state.threads.append(thread)
      }
    }
  }

  private func work() {
    while true {
      let job: Job?? = state.wait(until: nil) { state in
        if state.next < state.jobs.count {
          let job = state.jobs[state.next]
          state.next += 1
          if state.next == state.jobs.count {
            state.jobs.removeAll(keepingCapacity: true)
            state.next = 0
          }
          return .some(job)
        }
        return state.isStopping ? .some(nil) : nil
      }
      guard let job = job ?? nil else { return }
      job.run()
    }
  }

  /// Ends the threads once the queue is empty.
  func stop() {
    let threads = state.withLock { state in
      state.isStopping = true
      return state.threads
    }
    state.notifyAll()
    for thread in threads { thread.join() }
    state.withLock { $0.threads = [] }
  }
}
