import Synchronization

/// What the last request of each conversation that has a name left in the store.
final class NamedSessions: Sendable {
  struct Last: Sendable {
    var prefixes: PrefixStore
    /// Of prompt and answer.
    var tokens: [Int32]
  }

  private struct Key: Hashable {
    var name: String
    var tenant: String
  }

  private struct State: Sendable {
    var entries: [Key: (last: Last, uses: UInt64)] = [:]
    var uses: UInt64 = 0
    /// Of all entries together.
    var tokenCount = 0
  }

  private static let capacity = 1024
  private static let tokenCapacity = 4 << 20
  private let state = Mutex(State())

  /// Notes what a conversation's last request left, nil once it is over; what the one before it did.
  func replace(_ name: String, tenant: String, by last: Last?) -> Last? {
    let key = Key(name: name, tenant: tenant)
    return state.withLock { state in
      state.uses += 1
      let before = state.entries.removeValue(forKey: key)?.last
      state.tokenCount -= before?.tokens.count ?? 0
      if let last {
        state.entries[key] = (last, state.uses)
        state.tokenCount += last.tokens.count
      }
      while state.entries.count > Self.capacity || state.tokenCount > Self.tokenCapacity,
        let oldest = state.entries.min(by: { $0.value.uses < $1.value.uses })?.key
      {
        state.tokenCount -= state.entries.removeValue(forKey: oldest)?.last.tokens.count ?? 0
      }
      return before
    }
  }
}
