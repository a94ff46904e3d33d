import LlamaSlots
import NIOPosix
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
    await complete(passage)
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

  private func isComing(_ tokens: [Int32], _ tenant: String, beyond count: Int) -> Bool {
    coming.withLock { coming in
      coming.values.contains {
        $0.tenant == tenant
          && commonPrefix($0.tokens[...], tokens[...]) >= count + 2 * PrefixStore.tokensPerBlock
      }
    }
  }

  /// Waits for what others have computed of this prompt beyond what its slot and the store have.
  ///
  /// Nothing is held meanwhile that the others need: not the gate, through which their slots are saved.
  func waitForComing(_ passage: Passage) async throws {
    let (slot, tenant, isNew) = passage.state.withLock {
      ($0.slot, $0.exchange.tenant, $0.rest != nil)
    }
    if isNew { return }
    let tokens = passage.tokens
    let common = commonPrefix(slot.tokens[...], tokens[...])
    guard isComing(tokens, tenant, beyond: common) else { return }
    let start = nowNanoseconds()
    let found = try await threads.runIfActive { [prefixes = passage.prefixes] in
      guard let found = try prefixes.find(tokens).usable else { return 0 }
      prefixes.release(found.leases)
      return found.tokenCount
    }
    let count = max(common, found)
    while milliseconds(since: start) < 5000, isComing(tokens, tenant, beyond: count) {
      try await Task.sleep(for: .milliseconds(2))
    }
    passage.state.withLock { $0.exchange.step("wait for the store", since: start) }
  }
}
