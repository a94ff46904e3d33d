import LlamaSlots
import Synchronization

/// What was computed and is on its way into the store: who asks for the same next waits for it instead of computing it again.
extension Companion {
  struct Coming: Sendable {
    var tenant: String
    var tokens: [Int32]
    /// The settling of the answer, and each saved file.
    var parts = 1
  }

  /// The answer is all but out: a client that sends its next request at once finds the slot and what will be stored.
  func answering(_ passage: Passage) async {
    let (slot, id, tenant, isFirst) = passage.state.withLock { state in
      defer { state.isComing = true }
      return (state.slot.id, state.exchange.id, state.exchange.tenant, !state.isComing)
    }
    guard isFirst else { return }
    comes(id, tenant, passage.tokens)
    await slots.settle(slot, epoch: passage.epoch, tokens: passage.tokens, tenant: tenant)
  }

  func comes(_ id: UInt64, _ tenant: String, _ tokens: [Int32]) {
    coming.withLock { $0[id, default: Coming(tenant: tenant, tokens: tokens, parts: 0)].parts += 1 }
  }

  func hasCome(_ id: UInt64) {
    coming.withLock { coming in
      guard let parts = coming[id]?.parts else { return }
      if parts > 1 { coming[id]?.parts = parts - 1 } else { coming[id] = nil }
    }
  }

  /// Waits for what others have computed of this prompt beyond what is there; false if there is no such thing.
  func waitForComing(_ tokens: [Int32], _ tenant: String, beyond count: Int) async throws -> Bool {
    let start = nowNanoseconds()
    var hasWaited = false
    while milliseconds(since: start) < 5000 {
      let isComing = coming.withLock { coming in
        coming.values.contains {
          $0.tenant == tenant
            && commonPrefix($0.tokens[...], tokens[...]) >= count + 2 * PrefixStore.tokensPerBlock
        }
      }
      guard isComing else { break }
      hasWaited = true
      try await Task.sleep(for: .milliseconds(2))
    }
    return hasWaited
  }
}
