public import KVCore

/// The longest stored prefix of a prompt.
public struct MatchResult: Sendable, Equatable {
  /// Leading blocks that are stored.
  public var blockCount = 0
  /// Those times tokensPerBlock.
  public var tokenCount = 0
  /// Of the blocks: a copy is in RAM.
  public var hostBlockCount = 0
  /// Of the blocks: only on disk.
  public var diskBlockCount = 0
  /// Of the blocks: only in the archive.
  public var archiveBlockCount = 0
  /// The lease on the prefix, 0 if none was taken.
  public var lease: UInt64 = 0
  /// A lease was wanted, and none was free.
  public var leaseRefused = false
  /// How long restoring it is expected to take, from the bandwidth measured so far.
  ///
  /// 0 as long as that is not known.
  public var restoreNanosecondsEstimated: UInt64 = 0

  /// Nothing matched.
  public init() {}
}

/// One piece of caller memory.
///
/// Has the layout of `kvstore_span_t`, which the C layer checks.
@safe public struct TransferSpan {
  /// Where the bytes are, or go.
  public var data: UnsafeMutableRawPointer?
  /// Restore: bytes that fit.
  public var capacity: Int
  /// Offload: bytes to store.
  ///
  /// Restore: set to the bytes that the region has.
  public var length: Int

  /// A piece of memory.
  public init(data: UnsafeMutableRawPointer?, capacity: Int, length: Int) {
    unsafe self.data = unsafe data
    self.capacity = capacity
    self.length = length
  }
}

/// Which blocks and regions to move, and from or to where.
@safe public struct Transfer {
  /// Blocks of the prompt; the upper bound may be nil for "to the last full block".
  public var firstBlock: Int
  /// 0 = to the last full block.
  public var blockCount: Int
  /// First region of each block.
  public var firstRegion: Int
  /// 0 = to the last one.
  public var regionCount: Int
  /// 0: a restore takes as long as it takes, an offload waits as the store is configured to.
  ///
  /// Else the transfer ends with `busy` outcomes when it is over, and nothing touches the spans' memory after that.
  public var timeoutNanoseconds: UInt64
  /// Offload: how long the blocks live; nil = the namespace's default.
  ///
  /// A block that is stored already never gets a shorter life from it.
  public var timeToLive: TimeToLive?
  /// Offload: 0 to 100, blocks of lower priority are evicted first; nil = 50, or what a stored block has.
  public var priority: UInt8?
  /// Restore: blocks of the prefix that the engine goes on from, where the last window of a group ends; 0 = to the transfer's last block.
  public var prefixBlockCount = 0
  /// Restore: whatever the namespace's groups say, all regions of all blocks.
  public var ignoresWindows = false
  package let spans: UnsafeMutableBufferPointer<TransferSpan>

  /// All blocks and regions by default; `spans` holds blockCount × regionCount pieces, block by block.
  @unsafe public init(
    firstBlock: Int = 0,
    blockCount: Int = 0,
    firstRegion: Int = 0,
    regionCount: Int = 0,
    timeoutNanoseconds: UInt64 = 0,
    spans: UnsafeMutableBufferPointer<TransferSpan>
  ) {
    self.firstBlock = firstBlock
    self.blockCount = blockCount
    self.firstRegion = firstRegion
    self.regionCount = regionCount
    self.timeoutNanoseconds = timeoutNanoseconds
    unsafe self.spans = unsafe spans
  }
}

/// How one block of a transfer fared.
public enum BlockOutcome: Sendable, Equatable {
  /// Moved, or there already.
  case done
  /// Not stored, or its check failed.
  case miss
  /// A region does not fit its span.
  case bufferTooSmall
  /// No room.
  case full
  /// The block before it is not stored.
  case parentMissing
  /// The deadline passed before its turn.
  case busy
  /// Offload: not admitted, and so not taken.
  case declined
}

/// What a restore or an offload did.
public struct TransferResult: Sendable, Equatable {
  /// Of each block of the range.
  public var outcomes: [BlockOutcome] = []
  /// Leading blocks that are done.
  public var doneBlockCount = 0
  /// Restore: from RAM.
  ///
  /// Offload: taken now.
  public var hostBlockCount = 0
  /// Restore: from disk.
  ///
  /// Offload: stored already.
  public var diskBlockCount = 0
  /// Bytes copied to or from the caller.
  public var byteCount = 0

  /// Nothing done.
  public init() {}

  /// Nothing done yet of so many blocks.
  package init(_ outcome: BlockOutcome, blockCount: Int) {
    // Array(repeating:count:) looks its storage's type up each time, which is much of a short call.
    outcomes.reserveCapacity(blockCount)
    for _ in 0..<blockCount { outcomes.append(outcome) }
  }

  /// The first outcome that is not `done`, if any.
  public var firstProblem: BlockOutcome? { outcomes.first { $0 != .done } }

  package mutating func countLeading() {
    doneBlockCount = outcomes.firstIndex { $0 != .done } ?? outcomes.count
  }
}

/// What a flush made durable, since the one before.
public struct FlushResult: Sendable, Equatable {
  /// Safe now.
  public var durableBlockCount = 0
  /// Not kept: nothing could be evicted for them.
  public var droppedFullBlockCount = 0
  /// Not kept: their parent left first.
  public var droppedParentBlockCount = 0
  /// Not kept: writing failed.
  public var droppedErrorBlockCount = 0
  /// Not kept: their namespace is over its quota.
  public var droppedQuotaBlockCount = 0
  /// Evicted again since, to make room.
  public var droppedEvictedBlockCount = 0
  /// Not kept: some of their regions never came.
  public var droppedIncompleteBlockCount = 0
  /// Why writing failed, of the last block.
  package var error: StoreError?

  /// Nothing.
  public init() {}

  mutating func add(_ other: FlushResult) {
    durableBlockCount += other.durableBlockCount
    droppedFullBlockCount += other.droppedFullBlockCount
    droppedParentBlockCount += other.droppedParentBlockCount
    droppedErrorBlockCount += other.droppedErrorBlockCount
    droppedQuotaBlockCount += other.droppedQuotaBlockCount
    droppedEvictedBlockCount += other.droppedEvictedBlockCount
    droppedIncompleteBlockCount += other.droppedIncompleteBlockCount
    error = other.error ?? error
  }
}

/// Which way slot files are read and written.
public enum IOPath: UInt32, Sendable {
  /// No slot file has been opened yet.
  case none = 0
  /// O_DIRECT.
  case direct = 1
  /// Through the page cache.
  case buffered = 2
}

/// Counters since the open in this process, and sizes of this moment.
public struct StoreStatistics: Sendable, Equatable {
  /// The path really in use.
  public var ioPath: IOPath = .none
  /// Calls of match that were not peeks.
  public var matchCalls: UInt64 = 0
  /// Tokens that those calls asked for.
  public var matchTokensAsked: UInt64 = 0
  /// Tokens that were found.
  public var matchTokensFound: UInt64 = 0
  /// Blocks that were found.
  public var matchBlocksFound: UInt64 = 0
  /// Block keys derived.
  public var hashesComputed: UInt64 = 0
  /// Nodes of the index.
  public var indexNodes: UInt64 = 0
  /// Blocks in the index.
  public var indexBlocks: UInt64 = 0
  /// RAM of the index.
  public var indexBytes: UInt64 = 0
  /// Blocks restored from RAM.
  public var blocksRestoredHost: UInt64 = 0
  /// Blocks restored from disk.
  public var blocksRestoredDisk: UInt64 = 0
  /// Bytes restored.
  public var restoredBytes: UInt64 = 0
  /// Blocks asked for that are not stored.
  public var missesAbsent: UInt64 = 0
  /// Reads of a slot that had moved on.
  public var missesStale: UInt64 = 0
  /// Reads that failed a check.
  public var missesCorrupt: UInt64 = 0
  /// Reads that failed: the file was cut or removed, or the disk gave an error.
  public var missesUnreadable: UInt64 = 0
  /// Blocks taken.
  public var blocksOffloaded: UInt64 = 0
  /// Blocks offered that were there.
  public var blocksDeduplicated: UInt64 = 0
  /// Bytes taken.
  public var offloadedBytes: UInt64 = 0
  /// Blocks dropped because nothing could be evicted for them.
  public var blocksDroppedFull: UInt64 = 0
  /// Blocks dropped because their parent left first.
  public var blocksDroppedParent: UInt64 = 0
  /// Blocks dropped because writing failed.
  public var blocksDroppedError: UInt64 = 0
  /// Keys that found another block.
  public var keyCollisions: UInt64 = 0
  /// Blocks in the catalog.
  public var blocksStored: UInt64 = 0
  /// Their payload.
  public var payloadBytesStored: UInt64 = 0
  /// The configured bound.
  public var diskBytesCapacity: UInt64 = 0
  /// Physical bytes in use, metadata included.
  public var diskBytesUsed: UInt64 = 0
  /// The catalog's map size.
  public var catalogBytesCapacity: UInt64 = 0
  /// Bytes of the map in use.
  public var catalogBytesUsed: UInt64 = 0
  /// Bytes of the arena.
  public var hostBytesCapacity: UInt64 = 0
  /// Bytes of the arena in use.
  public var hostBytesUsed: UInt64 = 0
  /// Blocks evicted by this process.
  public var blocksEvicted: UInt64 = 0
  /// Blocks removed by this process because their life was over.
  public var blocksExpired: UInt64 = 0
  /// Blocks refused by offloads at once, because nothing could be evicted for others just before.
  public var blocksRefusedFull: UInt64 = 0
  /// Pins that hold.
  public var pinsActive: UInt64 = 0
  /// Blocks forgotten by this process.
  public var blocksForgotten: UInt64 = 0
  /// Blocks quarantined by this process.
  public var blocksQuarantined: UInt64 = 0
  /// Purged slots overwritten by this process.
  public var slotsErased: UInt64 = 0
  /// Purged slots of the store that are still to be overwritten.
  public var slotsErasePending: UInt64 = 0
  /// Leases that hold.
  public var leasesActive: UInt64 = 0
  /// Bytes written to slot files.
  public var diskBytesWritten: UInt64 = 0
  /// Bytes read from slot files.
  public var diskBytesRead: UInt64 = 0
  /// Syncs of slot files.
  public var syncs: UInt64 = 0
  /// Synced commits of the catalog.
  public var catalogCommits: UInt64 = 0
  /// A failed invariant: misses only.
  public var poisoned: Bool = false
  /// Blocks found by matches that had a copy in RAM.
  public var matchBlocksHost: UInt64 = 0
  /// Blocks found by matches that were only on disk.
  public var matchBlocksDisk: UInt64 = 0
  /// Bytes restored from RAM, of calls or windows of them that went through.
  public var restoredBytesHost: UInt64 = 0
  /// Bytes restored from disk, likewise.
  public var restoredBytesDisk: UInt64 = 0
  /// Measured bandwidth of restores from RAM, in bytes a second; 0 before the first.
  public var bytesPerSecondHost: UInt64 = 0
  /// Measured bandwidth of restores from disk, in bytes a second; 0 before the first.
  public var bytesPerSecondDisk: UInt64 = 0
  /// What was expected of all restores whose bandwidth was known before them.
  public var restoreNanosecondsEstimated: UInt64 = 0
  /// What those same restores took.
  public var restoreNanosecondsMeasured: UInt64 = 0
  /// Blocks that prefetches brought into RAM.
  public var blocksPrefetched: UInt64 = 0
  /// Bytes of the arena that views and reservations hold.
  public var hostBytesLent: UInt64 = 0
  /// Blocks that were not admitted.
  public var blocksDeclined: UInt64 = 0
  /// The archive's bound; 0 where nothing is moved there.
  public var archiveBytesCapacity: UInt64 = 0
  /// Physical bytes of the archive's slot files.
  public var archiveBytesUsed: UInt64 = 0
  /// Bytes written to the archive's slot files.
  public var archiveBytesWritten: UInt64 = 0
  /// Bytes read from them.
  public var archiveBytesRead: UInt64 = 0
  /// Blocks that this process moved from disk to the archive.
  public var blocksDemoted: UInt64 = 0
  /// Their payload.
  public var demotedBytes: UInt64 = 0
  /// What that takes as stored.
  public var demotedBytesStored: UInt64 = 0
  /// Blocks that this process moved back.
  public var blocksPromoted: UInt64 = 0
  /// Their payload.
  public var promotedBytes: UInt64 = 0
  /// Blocks restored from the archive.
  public var blocksRestoredArchive: UInt64 = 0
  /// Blocks found by matches that were only in the archive.
  public var matchBlocksArchive: UInt64 = 0
  /// Bytes restored from the archive, of calls or windows of them that went through.
  public var restoredBytesArchive: UInt64 = 0
  /// Measured bandwidth of restores from the archive, in bytes of payload a second; 0 before the first.
  public var bytesPerSecondArchive: UInt64 = 0
  /// Slots of the attached devices.
  public var deviceSlotsCapacity: UInt64 = 0
  /// Of those, in use by sequences and copies.
  public var deviceSlotsUsed: UInt64 = 0
  /// Of those, with a block that no sequence has now.
  public var deviceSlotsCached: UInt64 = 0
  /// Blocks that restores found on the device.
  public var deviceBlocksShared: UInt64 = 0
  /// Shared last blocks that were copied before a sequence grew.
  public var deviceCopiesOnWrite: UInt64 = 0
  /// Bytes copied to devices.
  public var deviceBytesIn: UInt64 = 0
  /// Bytes copied from devices.
  public var deviceBytesOut: UInt64 = 0

  /// Zero everywhere.
  public init() {}
}
