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
  /// What the remote tier has behind the prefix is being looked up or fetched: a later match finds more.
  ///
  /// It ends in any case, with more blocks or without, after the time limits of `RemoteConfiguration` at the latest.
  public var isBeingFetched = false
  /// Blocks behind the prefix that were found there and are on their way; 0 as long as that is not known.
  public var remoteBlockCount = 0
  /// How long they are expected to take; 0 as long as that is not known.
  public var fetchNanosecondsEstimated: UInt64 = 0

  /// Nothing matched.
  public init() {}
}
