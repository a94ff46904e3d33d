internal import KVCore

/// Whether an invariant of this process's copy of the store has failed: from then on it answers misses.
final class Health: Sendable {
  private let poisoned = AtomicFlag(false)

  var isPoisoned: Bool { poisoned.value }

  /// Asserts in debug builds; in release the store answers misses from now on.
  func poison(_ reason: StaticString) {
    assertionFailure("\(reason)")
    poisoned.exchange(true)
  }

  func poisonIfInternal(_ error: StoreError) {
    if error == .poisoned { poison("the catalog refused an argument of ours") }
  }
}
