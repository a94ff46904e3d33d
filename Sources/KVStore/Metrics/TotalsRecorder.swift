internal import KVCatalog
internal import KVCore
internal import KVTiers

/// This process's counters go into the catalog along with each commit, so that who looks at the store sees what all processes did,
/// also those that have ended.
///
/// On the writer's thread.
final class TotalsRecorder: Sendable {
  private let state: Monitor<StoreState>
  private let diskTier: DiskTier
  private let catalog: Catalog
  private let recorded = Monitor(Recorded())

  /// What of the counters is in the catalog.
  private struct Recorded {
    var totals = StoreTotals()
    /// Hits that were taken from the state, and whose commit failed.
    var hits: [PrefixHits] = []
  }

  /// What goes into the catalog with a commit.
  struct Record {
    fileprivate let totals: StoreTotals
    fileprivate let before: StoreTotals
    fileprivate let hits: [PrefixHits]

    /// Whether there was anything to record.
    func put(in transaction: WriteTransaction) throws(CatalogError) -> Bool {
      try transaction.record(totals, since: before, hits)
    }
  }

  init(_ state: Monitor<StoreState>, _ diskTier: DiskTier, _ catalog: Catalog) {
    self.state = state
    self.diskTier = diskTier
    self.catalog = catalog
  }

  /// As long as commits fail, later hits are not noted.
  private static let hitsWaitingMax = 4096

  /// The counters as they are; hits on blocks that have positions by now are taken from the state.
  func record(commits: UInt64, _ published: [UInt64: BlockPosition]) -> Record {
    let (now, hits) = state.withLock { ($0.meters.statistics, $0.meters.takeHits(published)) }
    let before = recorded.withLock { recorded in
      if recorded.hits.count < Self.hitsWaitingMax { recorded.hits += hits }
      return recorded
    }
    return Record(totals: totals(now, commits), before: before.totals, hits: before.hits)
  }

  /// The commit went through.
  func committed(_ record: Record) {
    recorded.withLock { recorded in
      recorded.totals = record.totals
      recorded.hits = []
    }
  }

  private func totals(_ now: StoreStatistics, _ commits: UInt64) -> StoreTotals {
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
