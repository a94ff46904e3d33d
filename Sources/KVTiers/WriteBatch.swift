internal import KVCore
internal import KVFile

/// One system call that writes neighbouring slots.
@safe struct WriteCall {
  let file: any StorageFile
  let buffers: [UnsafeRawBufferPointer]
  let offset: UInt64
  let tier: Tier
  let byteCount: Int
}

/// Writes that a few threads make together: one stream of them leaves a fast disk idle in between.
///
/// Unchecked: the memory is lent until `wait` returns.
final class WriteBatch: @unchecked Sendable {
  private struct State {
    var nextCall = 0
    var runningCount = 0
    var error: FileError?
  }

  private let calls: [WriteCall]
  private let state = Monitor(State())

  init(_ calls: [WriteCall]) { self.calls = calls }

  var callCount: Int { calls.count }

  /// Makes calls that no other thread has taken, until there is none left or one has failed.
  func run(_ perform: (WriteCall) throws(FileError) -> Void) {
    while let index = take() {
      var failure: FileError?
      do throws(FileError) { try perform(calls[index]) } catch { failure = error }
      state.withLock { [failure] state in
        state.runningCount -= 1
        state.error = state.error ?? failure
      }
      state.notifyAll()
    }
  }

  private func take() -> Int? {
    state.withLock { state in
      guard state.error == nil, state.nextCall < calls.count else { return nil }
      defer { state.nextCall += 1 }
      state.runningCount += 1
      return state.nextCall
    }
  }

  /// Waits until no thread writes any more, after `run` has returned; the first error if there was one.
  func wait() -> FileError? {
    let outcome: FileError?? = state.wait(until: nil) { state in
      state.runningCount == 0 ? .some(state.error) : nil
    }
    return outcome ?? nil
  }
}
