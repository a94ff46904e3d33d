import KVCore
import KVStore
import LlamaSlots
import Logging
import NIOHTTP1
import NIOPosix
import Synchronization

extension Companion {
  /// How many tokens come before each break point of a request that is long enough to be kept, as the server's template has them.
  func keptPrefixes(
    _ points: [CacheBreakPoint],
    of body: JSON,
    _ tokens: [Int32],
    _ headers: HTTPHeaders
  ) async -> [KeptPrefix] {
    var result: [KeptPrefix] = []
    for point in points {
      guard let part = AnthropicMessages.converted(body, endingAt: point.place),
        let front = try? await self.tokens(.messages(body: part), headers)
      else { continue }
      // Where the shorter prompt ends otherwise than the longer one goes on, only what they share is kept.
      let count = commonPrefix(front[...], tokens[...])
      if count >= CacheBreakPoint.tokenCountMin, count > result.last?.tokenCount ?? 0 {
        result.append(KeptPrefix(tokenCount: count, seconds: point.seconds))
      }
    }
    return result
  }

  /// Pins and prolongs what a request wants kept, as far as it is stored; on a thread for that.
  func keep(_ passage: Passage) {
    guard passage.wantsKeeping else { return }
    let tenant = passage.state.withLock { $0.exchange.tenant }
    var wanted = passage.kept
    if let seconds = passage.hints.pinSeconds {
      wanted.append(KeptPrefix(tokenCount: passage.tokens.count, seconds: seconds))
    }
    for prefix in wanted {
      let front = passage.tokens[..<prefix.tokenCount]
      do {
        let pins = try passage.prefixes.pin(Array(front), seconds: prefix.seconds)
        counters.change { $0.pins += UInt64(pins.isEmpty ? 0 : 1) }
        for (index, pin) in pins.enumerated() {
          // The blocks' pin first, then those of the end behind them.
          if let old = pinBook.note(pin, of: front, tenant: "\(tenant) \(index)") {
            passage.prefixes.unpin(old)
          }
        }
      } catch {
        logger.debug("not pinned: \((error as? StoreError)?.message ?? "\(error)")")
      }
    }
    if let seconds = passage.hints.keepAliveSeconds {
      _ = try? passage.prefixes.touch(passage.tokens, keepSeconds: seconds)
    }
  }
}
