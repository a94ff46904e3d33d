/// A queue and the few threads that work it off: what callers start and do not wait for.
///
/// The threads start with the first job and are joined by `stop`.
package final class ServicePool: Sendable {
  package typealias Job = @Sendable () -> Void

  /// Why a job was not taken.
  package enum Refusal: Sendable {
    case full
    case noThread
    case stopping
  }

  private struct State {
    var jobs: [Job] = []
    /// Of `jobs`, so many have been taken.
    var takenCount = 0
    /// Of those, the ones that threads are at.
    var runningCount = 0
    var threads: [ServiceThread] = []
    var isStopping = false
  }

  private let state = Monitor(State())
  private let threadCount: Int
  private let jobCountMax: Int

  package init(threadCount: Int, jobCountMax: Int = .max) {
    self.threadCount = threadCount
    self.jobCountMax = jobCountMax
  }

  /// Jobs that are not done: those that wait, and those that threads are at.
  package var unfinishedCount: Int {
    state.withLock { $0.jobs.count - $0.takenCount + $0.runningCount }
  }

  /// Queues a job; nil when it was taken.
  package func submit(_ job: @escaping Job) -> Refusal? {
    let refusal: Refusal? = state.withLock { state in
      if state.isStopping { return .stopping }
      if state.threads.isEmpty { startThreads(&state) }
      if state.threads.isEmpty { return .noThread }
      guard state.jobs.count - state.takenCount < jobCountMax else { return .full }
      state.jobs.append(job)
      return nil
    }
    if refusal == nil { state.notifyAll() }
    return refusal
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
        if state.takenCount < state.jobs.count {
          let job = state.jobs[state.takenCount]
          state.takenCount += 1
          state.runningCount += 1
          // The array keeps no job alive that has been taken by all.
          if state.takenCount == state.jobs.count {
            state.jobs.removeAll(keepingCapacity: true)
            state.takenCount = 0
          } else if state.takenCount > 1024 {
            state.jobs.removeFirst(state.takenCount)
            state.takenCount = 0
          }
          return .some(job)
        }
        return state.isStopping ? .some(nil) : nil
      }
      guard let job = job ?? nil else { return }
      job()
      state.withLock { $0.runningCount -= 1 }
    }
  }

  /// Ends the threads once the queue is empty.
  package func stop() {
    let threads = state.withLock { state in
      state.isStopping = true
      return state.threads
    }
    state.notifyAll()
    for thread in threads { thread.join() }
    state.withLock { $0.threads = [] }
  }
}
