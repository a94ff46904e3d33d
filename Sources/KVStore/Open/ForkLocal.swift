package import KVCore
internal import KVFile
internal import Synchronization

// Unsafe: boxes live for ever, so a pointer to one is good as long as the process is.

/// What a process has one of, behind a lock, and a forked child begins anew.
///
/// A thread that did not come along may have held the lock at the fork, or be in the middle of a change: the child never touches the parent's.
@safe package final class ForkLocal<State>: @unchecked Sendable {
  // Unchecked: `make` is called with nothing shared; the state is behind its monitor.
  private final class Box {
    let generation = ForkGeneration.noted()
    let monitor: Monitor<State>
    init(_ state: State) { monitor = Monitor(state) }
  }

  private let make: () -> State
  private let box: Atomic<UInt>

  package init(_ make: @escaping @Sendable () -> State) {
    self.make = make
    box = unsafe Atomic(UInt(bitPattern: Unmanaged.passRetained(Box(make())).toOpaque()))
  }

  /// This process's.
  package var monitor: Monitor<State> {
    while true {
      let known = box.load(ordering: .acquiring)
      if let own = own(known) { return own }
      let new = unsafe UInt(bitPattern: Unmanaged.passRetained(Box(make())).toOpaque())
      // Of two threads of the child the second takes what the first made; its own is left, as is the parent's.
      _ = box.compareExchange(expected: known, desired: new, ordering: .acquiringAndReleasing)
    }
  }

  private func own(_ bits: UInt) -> Monitor<State>? {
    guard let pointer = unsafe UnsafeRawPointer(bitPattern: bits) else { return nil }
    let box = unsafe Unmanaged<Box>.fromOpaque(pointer).takeUnretainedValue()
    return box.generation == ForkGeneration.current ? box.monitor : nil
  }

  package func withLock<Result, Failure>(
    _ body: (inout State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try monitor.withLock(body)
  }
}

/// How many forks away from the first process of the library this one is.
package enum ForkCount {
  package static var current: UInt64 { ForkGeneration.current.count }
}
