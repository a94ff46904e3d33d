import KVStore
import Synchronization

/// The store's sessions of the conversations that go on: what each step asked for, found and computed, kept in the catalog.
final class SessionBook: Sendable {
  private struct Entry: Sendable {
    var session: Session
    /// Of which start of the server.
    var prefixes: PrefixStore
    var uses: UInt64
  }

  private struct State: Sendable {
    var entries: [UInt64: Entry] = [:]
    var uses: UInt64 = 0
  }

  private static let capacity = 256
  private let state = Mutex(State())

  /// Notes what is stored of a step's prompt, before anything of it is computed.
  func match(
    _ conversation: UInt64,
    _ name: String?,
    _ prefixes: PrefixStore,
    _ tokens: [Int32]
  ) throws {
    try prefixes.match(try session(conversation, name, prefixes), tokens)
  }

  /// Ends the step.
  func step(_ conversation: UInt64, computedTokenCount: Int?) throws {
    let session = state.withLock { $0.entries[conversation]?.session }
    _ = try session?.step(computedTokenCount: computedTokenCount)
  }

  /// Ends the session of a conversation that is over.
  func end(_ conversation: UInt64) throws {
    try state.withLock { $0.entries.removeValue(forKey: conversation)?.session }?.end()
  }

  private func session(
    _ conversation: UInt64,
    _ name: String?,
    _ prefixes: PrefixStore
  ) throws -> Session {
    let known = state.withLock { state -> Session? in
      state.uses += 1
      guard let entry = state.entries[conversation], entry.prefixes === prefixes else { return nil }
      state.entries[conversation]?.uses = state.uses
      return entry.session
    }
    if let known { return known }
    let session = try prefixes.beginSession(
      name ?? "llama-server " + String(conversation, radix: 16)
    )
    let left = state.withLock { state -> [Session] in
      var left: [Session] = []
      let entry = Entry(session: session, prefixes: prefixes, uses: state.uses)
      if let old = state.entries.updateValue(entry, forKey: conversation) {
        left.append(old.session)
      }
      if state.entries.count > Self.capacity,
        let oldest = state.entries.min(by: { $0.value.uses < $1.value.uses })?.key,
        let entry = state.entries.removeValue(forKey: oldest)
      {
        left.append(entry.session)
      }
      return left
    }
    for session in left { try? session.end() }
    return session
  }
}
