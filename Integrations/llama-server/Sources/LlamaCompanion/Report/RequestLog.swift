import Synchronization

/// The last requests, the newest last, and the conversations that they belong to.
final class RequestLog: Sendable {
  static let capacity = 256
  static let conversationCapacity = 256
  /// Of all conversations together.
  static let tokenCapacity = 4 << 20

  struct Conversation: Sendable {
    var id: UInt64
    var tenant: String
    /// By which its requests name it.
    var name: String?
    var tokens: [Int32]
    var requestCount = 0
    var tokenCount: UInt64 = 0
    var reusedTokenCount: UInt64 = 0
    var lastMilliseconds: Double = 0
    var lastTokenCount = 0
  }

  private struct State {
    var next: UInt64 = 1
    var exchanges: [Exchange] = []
    var conversations: [Conversation] = []
    /// Kept of all conversations.
    var tokenCount = 0
  }

  private let state = Mutex(State())

  func nextID() -> UInt64 {
    state.withLock { state in
      defer { state.next += 1 }
      return state.next
    }
  }

  /// The conversation that a prompt names, else the one that it goes on with, or a new one.
  func conversation(of tokens: [Int32], tenant: String, name: String?) -> UInt64 {
    state.withLock { state in
      var best: (index: Int, common: Int)?
      for (index, conversation) in state.conversations.enumerated()
      where conversation.tenant == tenant {
        if name != nil {
          if conversation.name == name { best = (index, tokens.count) }
          continue
        }
        let common = commonPrefix(conversation.tokens[...], tokens[...])
        // A step keeps nearly all of the one before: a template may write its end differently.
        if common + 32 >= conversation.tokens.count, common > best?.common ?? 0 {
          best = (index, common)
        }
      }
      if let best {
        state.tokenCount += tokens.count - state.conversations[best.index].tokens.count
        state.conversations[best.index].tokens = tokens
        return state.conversations[best.index].id
      }
      state.tokenCount += tokens.count
      while state.conversations.count >= Self.conversationCapacity
        || state.tokenCount > Self.tokenCapacity,
        let oldest = state.conversations.indices.min(by: {
          state.conversations[$0].lastMilliseconds < state.conversations[$1].lastMilliseconds
        })
      {
        state.tokenCount -= state.conversations.remove(at: oldest).tokens.count
      }
      let id = UInt64.random(in: 1...UInt64.max)
      state.conversations.append(
        Conversation(
          id: id,
          tenant: tenant,
          name: name,
          tokens: tokens,
          lastMilliseconds: wallMilliseconds()
        )
      )
      return id
    }
  }

  func add(_ exchange: Exchange) {
    state.withLock { state in
      if state.exchanges.count >= Self.capacity { state.exchanges.removeFirst() }
      state.exchanges.append(exchange)
      guard let index = state.conversations.firstIndex(where: { $0.id == exchange.conversation })
      else { return }
      state.conversations[index].requestCount += 1
      state.conversations[index].tokenCount += UInt64(exchange.tokenCount)
      state.conversations[index].reusedTokenCount += UInt64(
        max(exchange.memoryTokenCount, exchange.restoredTokenCount)
      )
      state.conversations[index].lastMilliseconds = exchange.timeMilliseconds
      state.conversations[index].lastTokenCount = exchange.tokenCount
    }
  }

  /// What was stored for a request, once that is known.
  func addNewBlocks(_ count: Int, to id: UInt64) {
    state.withLock { state in
      guard let index = state.exchanges.lastIndex(where: { $0.id == id }) else { return }
      state.exchanges[index].newBlockCount += count
    }
  }

  var exchanges: [Exchange] { state.withLock { $0.exchanges } }
  var conversations: [Conversation] { state.withLock { $0.conversations } }
}
