package import KVCore

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
