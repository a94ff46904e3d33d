import Synchronization

/// Takes what a parser answers, so that reading it is not optimised away.
final class Sink: Sendable {
  private let value = Atomic<Int>(0)

  func store(_ new: Int) { value.store(new, ordering: .relaxed) }
}
