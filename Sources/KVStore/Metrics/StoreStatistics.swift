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
  /// The remote tier; nil where there is none.
  public var remote: RemoteStatistics?

  /// Zero everywhere.
  public init() {}
}
