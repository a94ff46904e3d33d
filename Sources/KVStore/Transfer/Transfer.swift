public import KVCore

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
  package var spans: UnsafeMutableBufferPointer<TransferSpan>

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
