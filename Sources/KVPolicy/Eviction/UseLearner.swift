/// What a store learns of the uses of its blocks, all of it in RAM.
///
/// Belongs to the thread that writes the catalog. Some 500 bytes for each request that is remembered, and two for each of its new blocks.
package final class UseLearner {
  private var history = UseHistory(blockCountMax: UseLearner.blockCountMin)
  private var choice = EvictionChoice()
  private var now: Int64 = 0

  private static let blockCountMin = 1 << 18
  /// Blocks that are remembered for each that is stored, at most.
  private static let rememberedPerBlock = 8
  private static let requestCountMin = 1 << 13
  private static let requestCountMax = 1 << 20
  /// Stored blocks for each request that is remembered, at least: bounds what is remembered by bytes for each block.
  private static let blocksPerRequest = 24

  package init() {}

  private func advance(to timeNanoseconds: UInt64) {
    now = max(now, Int64(clamping: timeNanoseconds / 1_000_000))
  }

  // MARK: Uses

  /// Notes that a prompt was asked for, and how much of it was there; answers the stamp of that part.
  package func noteRequest(_ found: UseHistory.Found, timeNanoseconds: UInt64) -> UInt64 {
    advance(to: timeNanoseconds)
    let recencyHitCount = history.recencyHitCount
    let parts = history.begin(found, time: now)
    noteHits(found.blockCount, missCount: 0, since: recencyHitCount)
    return parts.repeatedStamp
  }

  /// Notes that blocks were stored behind the block `parent`, which is `depth` blocks from the root; answers the parts of the
  /// request that they belong to.
  package func noteStored(
    _ keys: ArraySlice<UInt64>,
    after parent: UInt64?,
    depth: Int,
    timeNanoseconds: UInt64
  ) -> UseHistory.Parts {
    advance(to: timeNanoseconds)
    let recencyHitCount = history.recencyHitCount
    let parts = history.extend(keys, after: parent, depth: depth, time: now)
    noteHits(0, missCount: keys.count, since: recencyHitCount)
    return parts
  }

  private func noteHits(_ hitCount: Int, missCount: Int, since recencyHitCount: Int) {
    choice.note(
      hitCount: hitCount,
      recencyHitCount: history.recencyHitCount - recencyHitCount,
      missCount: missCount,
      capacity: history.capacity
    )
  }

  /// The use that a block was used by last with which a path ended.
  package func stamp(ofEnd key: UInt64) -> UInt64? { history.stamp(ofEnd: key) }

  // MARK: Victims

  package var usesDensity: Bool { choice.usesDensity && history.hasLearned }

  package func noteCapacity(_ blockCount: Int) {
    history.capacity = blockCount
    history.blockCountMax = max(Self.blockCountMin, Self.rememberedPerBlock * blockCount)
    history.requestCountMax = min(
      Self.requestCountMax,
      max(Self.requestCountMin, blockCount / Self.blocksPerRequest)
    )
  }

  /// Bytes that all of it takes, about.
  package var byteCount: Int { history.byteCount }

  /// Lends the history, and the time in its measure.
  package func withHistory<Result>(
    timeNanoseconds: UInt64,
    _ body: (inout UseHistory, Int64) -> Result
  ) -> Result {
    advance(to: timeNanoseconds)
    return body(&history, now)
  }
}
