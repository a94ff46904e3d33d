internal import Synchronization

/// A Bool that several threads read and set.
final class AtomicFlag: Sendable {
  private let flag: Atomic<Bool>

  init(_ value: Bool) { flag = Atomic(value) }

  var value: Bool { flag.load(ordering: .acquiring) }

  /// Sets it and answers what it was.
  @discardableResult
  func exchange(_ value: Bool) -> Bool { flag.exchange(value, ordering: .acquiringAndReleasing) }
}
