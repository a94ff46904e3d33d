/// What a store learns of the uses of its blocks, all of it in RAM.
///
/// Belongs to the thread that writes the catalog. Some 500 bytes for each request that is remembered, and two for each of its new blocks.
package final class UseLearner {
  private var history = UseHistory(blockCountMax: UseLearner.blockCountMin)
  private var choice = EvictionChoice()
  private let fixedRequestCountMax: Int?
  /// Milliseconds; never goes back.
  package private(set) var now: Int64 = 0

  private static let blockCountMin = 1 << 18
  /// Blocks that are remembered for each that is stored, at most.
  private static let rememberedPerBlock = 8
  private static let requestCountMin = 1 << 13
  private static let requestCountMax = 1 << 20
  /// Stored blocks for each request that is remembered, at least: bounds what is remembered by bytes for each block.
  private static let blocksPerRequest = 24

  /// Has learned nothing.
  ///
  /// - Parameter requestCountMax: Requests that are remembered at most; nil = by what there is room for.
  package init(requestCountMax: Int? = nil) {
    fixedRequestCountMax = requestCountMax
    if let requestCountMax { history.requestCountMax = requestCountMax }
  }

  package func advance(to milliseconds: Int64) { now = max(now, milliseconds) }

  // MARK: Uses

  /// Notes that a prompt was asked for, how much of it was there, and the keys of what was stored behind it at once.
  package func note(
    _ found: UseHistory.Found?,
    stored keys: ArraySlice<UInt64> = []
  ) -> UseHistory.Parts {
    let recencyHitCount = history.recencyHitCount
    var parts = found.map { history.begin($0, time: now) } ?? UseHistory.Parts()
    let depth = found?.blockCount ?? 0
    if !keys.isEmpty {
      parts = history.extend(keys, after: found?.key, depth: depth, time: now)
    }
    noteHits(depth, missCount: keys.count, since: recencyHitCount)
    return parts
  }

  /// Notes that blocks were stored behind the block `parent`, which is `depth` blocks from the root; returns the parts of the
  /// request that they belong to.
  package func noteStored(
    _ keys: ArraySlice<UInt64>,
    after parent: UInt64?,
    depth: Int
  ) -> UseHistory.Parts {
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
    guard fixedRequestCountMax == nil else { return }
    history.requestCountMax = min(
      Self.requestCountMax,
      max(Self.requestCountMin, blockCount / Self.blocksPerRequest)
    )
  }

  /// Hits a second that are expected of keeping what was used last by a use.
  package func density(_ use: UInt64) -> Double { history.density(use, time: now) }

  /// As `density`, of what nothing is known of but when it was used.
  package func densityOfUnknown(usedAt time: Int64) -> Double {
    history.densityOfUnknown(ageMilliseconds: now - time)
  }

  /// Bytes that all of it takes, about.
  package var byteCount: Int { history.byteCount }
}
