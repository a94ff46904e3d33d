internal import KVCore

/// A bounded queue and the few threads that work it off: what callers start and do not wait for.
///
/// The threads start with the first job and are joined by `stop`.
final class ServiceQueue: Sendable {
  typealias Job = @Sendable () -> Void

  private struct State {
    var jobs: [Job] = []
    /// Of `jobs`, so many have been taken.
    var takenCount = 0
    var threads: [ServiceThread] = []
    var isStopping = false
  }

  private let state = Monitor(State())
  private let threadCount: Int
  private let jobCountMax: Int

  init(threadCount: Int, jobCountMax: Int) {
    self.threadCount = threadCount
    self.jobCountMax = jobCountMax
  }

  /// Queues a job; throws when the queue is full, or no thread is to be had.
  func submit(_ job: @escaping Job) throws(StoreError) {
    let error: StoreError? = state.withLock { state in
      if state.isStopping { return .closed }
      if state.threads.isEmpty { startThreads(&state) }
      if state.threads.isEmpty { return .outOfMemory }
      guard state.jobs.count - state.takenCount < jobCountMax else { return .busy }
      state.jobs.append(job)
      return nil
    }
    if let error { throw error }
    state.notifyAll()
  }

  private func startThreads(_ state: inout State) {
    for _ in 0..<threadCount {
      // Unowned: `stop` joins the threads before the queue goes.
      if let thread = ServiceThread.start({ [unowned self] in work() }) {
        state.threads.append(thread)
      }
    }
  }

  private func work() {
    while true {
      let job: Job?? = state.wait(until: nil) { state in
        if state.takenCount < state.jobs.count {
          let job = state.jobs[state.takenCount]
          state.takenCount += 1
          // The array keeps no job alive that has been taken by all.
          if state.takenCount == state.jobs.count || state.takenCount > 1024 {
            state.jobs.removeFirst(state.takenCount)
            state.takenCount = 0
          }
          return .some(job)
        }
        return state.isStopping ? .some(nil) : nil
      }
      guard let job = job ?? nil else { return }
      job()
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
