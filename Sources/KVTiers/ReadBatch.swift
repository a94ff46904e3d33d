internal import KVCore
package import KVFile

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
