internal import KVCatalog
internal import KVCore

/// What this process counts and measures of its calls.
///
/// The only place where the counters of `StoreStatistics` change.
struct StoreMeters {
  private(set) var statistics = StoreStatistics()
  private(set) var bandwidth = RestoreBandwidth()
  private var hits = HitLog()

  // MARK: Look-ups

  mutating func noteMatch(_ result: MatchResult, askedTokenCount: Int) {
    statistics.matchCalls += 1
    statistics.matchTokensAsked += UInt64(askedTokenCount)
    statistics.matchTokensFound += UInt64(result.tokenCount)
    statistics.matchBlocksFound += UInt64(result.blockCount)
    statistics.matchBlocksHost += UInt64(result.hostBlockCount)
    statistics.matchBlocksDisk += UInt64(result.diskBlockCount)
    statistics.matchBlocksArchive += UInt64(result.archiveBlockCount)
  }

  /// A match ended at a block; goes into the catalog with the next commit.
  mutating func noteHit(_ namespace: NamespaceID, _ end: LeaseTable.Target, tokenCount: Int) {
    hits.note(namespace, end, tokenCount: tokenCount)
  }

  /// Hits on blocks that have positions by now; told once.
  mutating func takeHits(_ published: [UInt64: BlockPosition]) -> [PrefixHits] {
    hits.take(published)
  }

  mutating func noteHashes(_ count: UInt64) { statistics.hashesComputed += count }

  mutating func noteCollisions(_ count: UInt64) { statistics.keyCollisions += count }

  // MARK: Offloads

  mutating func noteOffload(byteCount: Int) {
    statistics.blocksOffloaded += 1
    statistics.offloadedBytes += UInt64(byteCount)
  }

  mutating func noteDeduplicated(_ count: Int) { statistics.blocksDeduplicated += UInt64(count) }

  mutating func noteDeclined(_ count: Int) { statistics.blocksDeclined += UInt64(count) }

  mutating func noteRefusedFull(_ count: Int) { statistics.blocksRefusedFull += UInt64(count) }

  /// Blocks that the writer has settled.
  mutating func noteDropped(_ counts: FlushResult) {
    statistics.blocksDroppedFull += UInt64(counts.droppedFullBlockCount)
    statistics.blocksDroppedParent += UInt64(counts.droppedParentBlockCount)
    statistics.blocksDroppedError += UInt64(counts.droppedErrorBlockCount)
  }

  // MARK: Restores

  /// Counts what was restored, and holds it against what the averages said of it before.
  mutating func noteRestore(_ result: TransferResult, _ meter: RestoreMeter) {
    statistics.blocksRestoredHost += UInt64(result.hostBlockCount)
    statistics.blocksRestoredDisk += UInt64(result.diskBlockCount - meter.archiveBlockCount)
    statistics.restoredBytes += UInt64(result.byteCount)
    statistics.missesAbsent += UInt64(result.outcomes.count { $0 == .miss })
    meter.enter(&bandwidth, &statistics)
  }

  mutating func noteView(_ result: TransferResult) {
    statistics.blocksRestoredHost += UInt64(result.hostBlockCount)
    statistics.blocksRestoredDisk += UInt64(result.diskBlockCount)
  }

  mutating func notePrefetch(_ result: TransferResult) {
    statistics.blocksPrefetched += UInt64(result.diskBlockCount)
  }

  /// Why a block that the catalog has could not be restored.
  enum Miss {
    case unreadable, corrupt, stale
  }

  mutating func noteMiss(_ miss: Miss) {
    switch miss {
    case .unreadable: statistics.missesUnreadable += 1
    case .corrupt: statistics.missesCorrupt += 1
    case .stale: statistics.missesStale += 1
    }
  }

  // MARK: Removals and moves

  mutating func noteRemoval(_ reason: RemovalReason, blockCount: Int) {
    switch reason {
    case .corrupt: statistics.blocksQuarantined += UInt64(blockCount)
    default: statistics.blocksForgotten += UInt64(blockCount)
    }
  }

  mutating func noteEviction(blockCount: Int, expiredBlockCount: Int) {
    statistics.blocksExpired += UInt64(expiredBlockCount)
    statistics.blocksEvicted += UInt64(blockCount - expiredBlockCount)
  }

  mutating func noteErased(_ slotCount: UInt64) { statistics.slotsErased += slotCount }

  /// A block has gone from one tier to another.
  mutating func noteMove(to place: BlockPlace, payloadByteCount: Int) {
    if place.tier == .archive {
      statistics.blocksDemoted += 1
      statistics.demotedBytes += UInt64(payloadByteCount)
      statistics.demotedBytesStored += UInt64(place.storedByteCount)
    } else {
      statistics.blocksPromoted += 1
      statistics.promotedBytes += UInt64(payloadByteCount)
    }
  }
}
