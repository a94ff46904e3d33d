import KVCore
import KVStore
import LlamaSlots
import Logging
import NIOHTTP1
import NIOPosix
import Synchronization

/// Prompts that begin like none that is known: they are asked of the server at once, and looked at while it computes them.
extension Companion {
  /// Tokens of a prompt that must be like another's for anything of it to be gone on from.
  static let frontTokenCount = 128

  /// How a long JSON string begins, as a JSON string; nil where it is short, or has no place to be cut at.
  static func front(of text: ArraySlice<UInt8>) -> ArraySlice<UInt8>? {
    guard text.count >= 4096 else { return nil }
    // In front of a blank, which is part of no escape.
    let start = text.startIndex
    guard let end = text[(start + 1024)..<(start + 2048)].firstIndex(of: UInt8(ascii: " ")) else {
      return nil
    }
    return text[..<end] + [UInt8(ascii: "\"")]
  }

  /// Whether nothing that is stored, in a slot, or on its way begins like this.
  func isNew(
    _ front: [Int32],
    _ tenant: String,
    _ prefixes: PrefixStore,
    _ attachment: Attachment
  ) async -> Bool {
    // There it must be known how much of a slot is gone on from.
    if attachment.hasFullWindow { return false }
    let isComing = coming.withLock { coming in
      coming.values.contains {
        $0.tenant == tenant && commonPrefix($0.tokens[...], front[...]) >= 32
      }
    }
    if isComing { return false }
    if await slots.hasBeginning(of: front, tenant: tenant) { return false }
    let stored = try? await threads.runIfActive { try prefixes.storedBlockCount(front) }
    return stored == 0
  }

  /// Waits for the tokens of a prompt that was new, and notes what was put off until they are known.
  func complete(_ passage: Passage) async {
    guard let rest = passage.state.withLock({ $0.rest.take() }) else { return }
    do {
      let tokens = try await rest.value
      let tenant = passage.state.withLock { $0.exchange.tenant }
      let name = passage.hints.session
      let conversation = log.conversation(of: tokens, tenant: tenant, name: name)
      passage.state.withLock { state in
        state.tokens = tokens
        state.exchange.tokenCount = tokens.count
        state.exchange.conversation = conversation
      }
      try await threads.runIfActive { [self, prefixes = passage.prefixes] in
        note(conversation, name, prefixes, tokens)
      }
    } catch {
      // What the server has in its slot is stored all the same; but where the prompt ended in it is not known.
      passage.state.withLock { $0.lastEnd = .max / 2 }
      logger.debug("the tokens of a prompt are not known: \(error)")
    }
  }

  /// Notes a step of a conversation in its session.
  func note(
    _ conversation: UInt64,
    _ name: String?,
    _ prefixes: PrefixStore,
    _ tokens: [Int32]
  ) {
    do {
      try sessions.match(conversation, name, prefixes, tokens)
    } catch {
      logger.debug("no session: \((error as? StoreError)?.message ?? "\(error)")")
    }
  }
}
