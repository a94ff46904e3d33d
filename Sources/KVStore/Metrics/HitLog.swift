internal import KVCatalog
internal import KVCore

/// Matches since the last commit, by the run that they ended in.
struct HitLog {
  private struct Key: Hashable {
    var namespace: NamespaceID
    /// A run, or the ticket of a block that has none yet.
    var number: UInt64
    var isTicket: Bool
  }

  private var counts: [Key: (hitCount: UInt64, tokenCount: UInt64)]

  /// Of more runs in a second nothing is noted.
  private static let countMax = 1024

  init() { counts = Dictionary(minimumCapacity: 64) }

  mutating func note(_ namespace: NamespaceID, _ end: LeaseTable.Target, tokenCount: Int) {
    let key =
      switch end {
      case .published(let position):
        Key(namespace: namespace, number: position.run.rawValue, isTicket: false)
      case .pending(let ticket): Key(namespace: namespace, number: ticket, isTicket: true)
      }
    guard counts.count < Self.countMax || counts[key] != nil else { return }
    counts[key, default: (0, 0)].hitCount += 1
    counts[key, default: (0, 0)].tokenCount += UInt64(tokenCount)
  }

  /// Those whose run is known; the others wait, unless they are many.
  mutating func take(_ published: [UInt64: BlockPosition]) -> [PrefixHits] {
    guard !counts.isEmpty else { return [] }
    var hits: [PrefixHits] = []
    var waiting: [(Key, (hitCount: UInt64, tokenCount: UInt64))] = []
    for (key, count) in counts {
      let run = key.isTicket ? published[key.number]?.run : RunID(rawValue: key.number)
      guard let run else {
        waiting.append((key, count))
        continue
      }
      hits.append(
        PrefixHits(
          namespace: key.namespace,
          run: run,
          hitCount: count.hitCount,
          tokenCount: count.tokenCount
        )
      )
    }
    // A match must not allocate for it.
    counts.removeAll(keepingCapacity: true)
    if waiting.count < Self.countMax / 4 { for (key, count) in waiting { counts[key] = count } }
    return hits.sorted { ($0.tokenCount, $1.run.rawValue) > ($1.tokenCount, $0.run.rawValue) }
  }
}
