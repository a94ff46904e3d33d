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
