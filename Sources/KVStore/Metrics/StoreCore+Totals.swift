internal import KVCatalog
internal import KVCore
internal import KVTiers

/// What of this process's counters is in the catalog.
struct RecordedTotals {
  var totals = StoreTotals()
  /// Hits that were taken from the state, and whose commit failed.
  var hits: [PrefixHits] = []
}

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

  mutating func note(_ namespace: NamespaceID, _ end: LeaseTable.Head, tokenCount: Int) {
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

/// What goes into the catalog along with a commit.
final class TotalsRecord {
  let totals: StoreTotals
  private let before: RecordedTotals
  private(set) var isRecorded = false

  init(_ totals: StoreTotals, since before: RecordedTotals) {
    self.totals = totals
    self.before = before
  }

  func put(in transaction: WriteTransaction) throws(CatalogError) {
    isRecorded = try transaction.record(totals, since: before.totals, before.hits)
  }
}

extension StoreCore {
  /// This process's counters go into the catalog along with each commit, so that who looks at the store sees what all processes did, also
  /// those that have ended.
  ///
  /// Called by `catalogWrite` only.
  func totalsRecord() -> TotalsRecord {
    let published = writer?.batches.publishedPositions ?? [:]
    let (now, hits) = state.withLock { ($0.statistics, $0.hits.take(published)) }
    let before = recorded.withLock { recorded in
      if recorded.hits.count < Self.hitsWaitingMax { recorded.hits += hits }
      return recorded
    }
    return TotalsRecord(totals(now), since: before)
  }

  /// The commit went through.
  func committed(_ record: TotalsRecord) {
    guard record.isRecorded else { return }
    recorded.withLock { recorded in
      recorded.totals = record.totals
      recorded.hits = []
    }
  }

  /// As long as commits fail, later ones are not noted.
  private static let hitsWaitingMax = 4096

  private func totals(_ now: StoreStatistics) -> StoreTotals {
    var totals = StoreTotals()
    totals.blocksOffloaded = now.blocksOffloaded
    totals.payloadBytesOffloaded = now.offloadedBytes
    totals.diskBytesWritten = diskTier.bytesWritten(.disk)
    totals.archiveBytesWritten = diskTier.bytesWritten(.archive)
    totals.payloadBytesDemoted = now.demotedBytes
    totals.commits = commits
    totals.catalogBytesWritten = catalog.bytesWritten
    totals.matchCalls = now.matchCalls
    totals.tokensAsked = now.matchTokensAsked
    totals.tokensFound = now.matchTokensFound
    totals.blocksFoundHost = now.matchBlocksHost
    totals.blocksFoundDisk = now.matchBlocksDisk
    totals.blocksFoundArchive = now.matchBlocksArchive
    totals.blocksQuarantined = now.blocksQuarantined
    totals.blocksEvicted = now.blocksEvicted
    totals.blocksExpired = now.blocksExpired
    totals.ioPath = diskTier.isDirect.map { $0 ? 1 : 2 } ?? 0
    return totals
  }
}
