import KVCore
import KVStore
import Logging
import NIOPosix
import Synchronization

extension Companion {
  /// Does what a request's hints say of its conversation, once everything of the request is stored.
  ///
  /// - Parameter tokens: of prompt and answer, as far as they are known.
  func end(_ passage: Passage, _ tokens: [Int32]) {
    let hints = passage.hints
    guard hints.session != nil || hints.ends else { return }
    let exchange = passage.state.withLock { $0.exchange }
    var dead: [NamedSessions.Last] = []
    let last = NamedSessions.Last(prefixes: passage.prefixes, tokens: tokens)
    if let name = hints.session {
      let before = namedSessions.replace(
        name,
        tenant: exchange.tenant,
        by: hints.ends ? nil : last
      )
      if hints.isCompacted, let before { dead.append(before) }
    }
    if hints.ends { dead.append(last) }
    guard !dead.isEmpty else { return }
    work.withLock { $0.storing += 1 }
    Task { [dead] in
      for store in passage.state.withLock({ $0.stores }) { await store.value }
      do {
        try await threads.runIfActive { [self] in
          for one in dead { _ = try one.prefixes.forgetTail(one.tokens) }
          if hints.ends { try sessions.end(exchange.conversation) }
        }
      } catch {
        logger.debug("not removed: \((error as? StoreError)?.message ?? "\(error)")")
      }
      work.withLock { $0.storing -= 1 }
    }
  }
}
