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
  /// Runs on the thread that has read, before anybody is told: what is stored encoded is decoded there, several blocks at once.
  ///
  /// Answers what the read then counts as: nil, or `FileError.unsound`.
  package let completion: (@Sendable () -> FileError?)?

  package init(
    address: SlotAddress,
    slotByteCount: Int,
    offset: Int,
    buffer: UnsafeMutableRawBufferPointer,
    completion: (@Sendable () -> FileError?)? = nil
  ) {
    self.completion = completion
    self.address = address
    self.slotByteCount = slotByteCount
    self.offset = offset
    unsafe self.buffer = unsafe buffer
  }
}

/// How a wait for a read ended.
package enum ReadWait: Sendable, Equatable {
  /// The read is over; nil when it went well.
  case finished(FileError?)
  /// The deadline or a cancellation came first: the read may still be going on.
  case unfinished
}

/// Reads that were started together; each is either waited for until it is finished, or abandoned.
package final class ReadBatch: Sendable {
  private enum Progress {
    case queued
    case reading
    case done(FileError?)
    /// Abandoned before it began: never read.
    case skipped
  }

  private struct State {
    var progress: [Progress]
    /// What gives the memory of an abandoned read back, once the read is over.
    var releases: [Int: @Sendable () -> Void] = [:]
  }

  private let state: Monitor<State>

  init(count: Int) { state = Monitor(State(progress: Array(repeating: .queued, count: count))) }

  /// Waits for one read as long as it takes; nil when it went well.
  package func wait(_ index: Int) -> FileError? {
    guard case .finished(let error) = wait(index, until: nil) else { return nil }
    return error
  }

  /// Waits for one read.
  ///
  /// - Parameters:
  ///   - index: of its request.
  ///   - deadline: in nanoseconds of `monotonicNanoseconds()`; nil waits as long as it takes.
  ///   - isCancelled: looked at when `wake` is called.
  /// - Returns: whether it is over, and how it went.
  package func wait(
    _ index: Int,
    until deadline: UInt64?,
    unless isCancelled: () -> Bool = { false }
  ) -> ReadWait {
    let outcome: ReadWait? = state.wait(until: deadline) { state in
      if case .done(let error) = state.progress[index] { return .finished(error) }
      return isCancelled() ? .unfinished : nil
    }
    return outcome ?? .unfinished
  }

  /// Lets those who wait look at their cancellation again.
  package func wake() {
    // Through the lock: who has just found nothing cancelled is waiting by now.
    state.withLock { _ in }
    state.notifyAll()
  }

  /// Gives a read up: one that has not begun never will, and `release` runs as soon as nothing writes into its memory any more.
  package func abandon(_ index: Int, release: @escaping @Sendable () -> Void) {
    let isOver = state.withLock { state in
      switch state.progress[index] {
      case .reading:
        state.releases[index] = release
        return false
      case .queued:
        state.progress[index] = .skipped
        return true
      case .done, .skipped: return true
      }
    }
    if isOver { release() }
  }

  /// False when the read was abandoned before it began.
  func begin(_ index: Int) -> Bool {
    state.withLock { state in
      guard case .queued = state.progress[index] else { return false }
      state.progress[index] = .reading
      return true
    }
  }

  func finish(_ index: Int, _ error: FileError?) {
    let release = state.withLock { state in
      state.progress[index] = .done(error)
      return state.releases.removeValue(forKey: index)
    }
    state.notifyAll()
    release?()
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

    func run() {
      if batch.begin(index) { batch.finish(index, tier.perform(request)) }
    }
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
