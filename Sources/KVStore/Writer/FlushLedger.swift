internal import KVCatalog
internal import KVCore
internal import KVIndex

/// What has become of the blocks that one handle offloaded, until its flush asks.
///
/// Its lock is a leaf.
final class FlushLedger: Sendable {
  /// What a block came to.
  enum Fate {
    case durable(BlockPosition)
    case full
    case quota
    case parent
    case error(StoreError)
    case incomplete
  }

  fileprivate struct Entries {
    var result = FlushResult()
    /// The blocks that became durable since the last flush; the positions of each run in order.
    var published: [RunID: [Range<UInt32>]] = [:]
    var rangeCount = 0
  }

  private let entries = Monitor(Entries())

  /// Beyond so many pieces of runs a handle that never flushes is no longer told what was evicted.
  private static let rangeCountMax = 1 << 16

  func note(_ fate: Fate) {
    entries.withLock { entries in
      switch fate {
      case .durable(let position):
        entries.result.durableBlockCount += 1
        entries.add(position, rangeCountMax: Self.rangeCountMax)
      case .full: entries.result.droppedFullBlockCount += 1
      case .quota: entries.result.droppedQuotaBlockCount += 1
      case .parent: entries.result.droppedParentBlockCount += 1
      case .incomplete: entries.result.droppedIncompleteBlockCount += 1
      case .error(let error):
        entries.result.droppedErrorBlockCount += 1
        entries.result.error = error
      }
    }
  }

  /// Blocks have been evicted.
  func noteEviction(_ ranges: [RemovedRange]) {
    entries.withLock { entries in
      guard entries.rangeCount > 0 else { return }
      for range in ranges { entries.evict(range) }
    }
  }

  /// What is told once.
  func take() -> FlushResult {
    entries.withLock { entries in
      defer { entries = Entries() }
      return entries.result
    }
  }

  /// Counts that nobody has heard after all.
  func putBack(_ result: FlushResult) { entries.withLock { $0.result.add(result) } }
}

extension FlushLedger.Entries {
  fileprivate mutating func add(_ position: BlockPosition, rangeCountMax: Int) {
    let next = position.position..<position.position &+ 1
    guard !next.isEmpty else { return }
    let end = published[position.run]?.last?.upperBound
    if end == next.lowerBound, let last = published[position.run]?.indices.last {
      let first = published[position.run]?[last].lowerBound ?? next.lowerBound
      published[position.run]?[last] = first..<next.upperBound
      return
    }
    if rangeCount == rangeCountMax {
      published = [:]
      rangeCount = 0
    }
    published[position.run, default: []].append(next)
    rangeCount += 1
  }

  fileprivate mutating func evict(_ removed: RemovedRange) {
    guard let known = published[removed.run] else { return }
    let first = removed.firstPosition
    let (sum, overflow) = first.addingReportingOverflow(removed.blockCount)
    let gone = first..<(overflow ? UInt32.max : sum)
    var left: [Range<UInt32>] = []
    for range in known {
      let evicted = range.clamped(to: gone)
      result.durableBlockCount -= evicted.count
      result.droppedEvictedBlockCount += evicted.count
      if evicted.isEmpty {
        left.append(range)
      } else {
        if range.lowerBound < evicted.lowerBound {
          left.append(range.lowerBound..<evicted.lowerBound)
        }
        if evicted.upperBound < range.upperBound {
          left.append(evicted.upperBound..<range.upperBound)
        }
      }
    }
    rangeCount += left.count - known.count
    published[removed.run] = left.isEmpty ? nil : left
  }
}

/// The ledgers of the handles that are open.
struct FlushLedgers {
  private struct Reference {
    weak var ledger: FlushLedger?
  }
  private var references: [Reference] = []

  mutating func add(_ ledger: FlushLedger) {
    references.removeAll { $0.ledger == nil }
    references.append(Reference(ledger: ledger))
  }

  var all: [FlushLedger] { references.compactMap(\.ledger) }
}
