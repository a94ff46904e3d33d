internal import Glibc
internal import Synchronization

/// Counts the calls that are under way, so that a close waits for them and later ones are refused.
final class CallGate: Sendable {
  private let isOpen = Atomic<Bool>(true)
  private let callCount = Atomic<Int>(0)

  /// False when the gate is closed; otherwise `leave` must follow.
  func enter() -> Bool {
    callCount.add(1, ordering: .sequentiallyConsistent)
    if isOpen.load(ordering: .sequentiallyConsistent) { return true }
    leave()
    return false
  }

  func leave() { callCount.subtract(1, ordering: .sequentiallyConsistent) }

  /// Refuses new calls; false when it was closed already.
  func close() -> Bool { isOpen.exchange(false, ordering: .sequentiallyConsistent) }

  /// Waits for the calls under way, each of which has a deadline of its own.
  func drain() {
    while callCount.load(ordering: .sequentiallyConsistent) > 0 { usleep(200) }
  }
}
