import KVRequests
import Synchronization

/// The last requests in their own words, to tell where one left what the ones before it had.
///
/// In memory only, within a bound; a tenant's requests are compared with that tenant's.
final class RequestTexts: Sendable {
  private struct Entry: Sendable {
    var id: UInt64
    var tenant: String
    var conversation: UInt64
    var byteCount: Int
    var request: PromptRequest
  }

  private static let byteCapacity = 32 << 20
  private static let capacity = 64
  /// Of other conversations, how many are looked at.
  private static let otherCountMax = 8

  private let entries = Mutex<[Entry]>([])

  /// Notes a request; what in it differs from the one before it that is most like it, in the order of the prompt.
  func changes(_ exchange: Exchange, body: [UInt8], compares: Bool) -> [RequestChange] {
    guard body.count <= Self.byteCapacity / 4, let request = try? PromptRequest(json: body) else {
      return []
    }
    let own = Entry(
      id: exchange.id,
      tenant: exchange.tenant,
      conversation: exchange.conversation,
      byteCount: body.count,
      request: request
    )
    let others = entries.withLock { entries in
      let others = entries.filter { $0.tenant == own.tenant && $0.id < own.id }
      entries.removeAll { $0.conversation == own.conversation && $0.id < own.id }
      entries.append(own)
      var total = entries.reduce(0) { $0 + $1.byteCount }
      while entries.count > Self.capacity || total > Self.byteCapacity {
        total -= entries.removeFirst().byteCount
      }
      return others
    }
    guard compares else { return [] }
    let same = others.last { $0.conversation == own.conversation }
    let candidates = same.map { [$0] } ?? Array(others.suffix(Self.otherCountMax).reversed())
    let comparisons = candidates.map { RequestComparison(from: $0.request, to: request) }
    // Of those that have about as much of it, the one that agrees for longest: what it says is what the store has seen.
    let most = comparisons.map(\.sharedTokenCount).max() ?? 0
    var best: RequestComparison?
    for comparison in comparisons where comparison.sharedTokenCount * 10 >= most * 9 && most > 0 {
      if best.map({ comparison.commonTokenCount > $0.commonTokenCount }) ?? true {
        best = comparison
      }
    }
    return best?.changes ?? []
  }
}

extension RequestChange {
  /// In a sentence: the field, the characters, what is there and what was, and what it costs.
  var sentence: String {
    func short(_ text: String) -> String {
      text.count > 80 ? "\(text.prefix(80))…" : text
    }
    let place = start == end ? "character \(start)" : "characters \(start)–\(end)"
    let found = now.isEmpty ? "nothing" : "“\(short(now))”"
    let before = was.isEmpty ? "was not there" : "was “\(short(was))”"
    return "\(path), \(place): \(found) \(before); costs about \(tokensLost) tokens. \(remedy)"
  }

  var json: String {
    """
    {"kind":"\(kind.rawValue)","cause":"\(cause)","path":\(JSON.quoted(path)),"start":\(start),"end":\(end),\
    "now":\(JSON.quoted(now)),"was":\(JSON.quoted(was)),"tokens":\(tokensLost),"remedy":\(JSON.quoted(remedy))}
    """
  }
}
