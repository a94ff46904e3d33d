internal import KVCore
internal import KVIndex
internal import KVPolicy
internal import KVTiers

// Unsafe: lends the ids of a request to the index by pointer.

/// One tier of the store under a trace, as `PathCache`, with the eviction order by hit density.
///
/// New blocks that are worth less than all that would have to leave for them do not come in, but for requests of which a few blocks are new.
package final class DensityCache: ReplayCache {
  private static let namespace = NamespaceID(rawValue: 1)
  /// A trace's id is two words of the index.
  private static let wordsPerBlock = 2

  private let index = PrefixIndex(fingerprintSeed: 0x6B76_7374_6F72_65)
  private var pool = SlotPool()
  private var order: DensityOrder
  private let learner = UseLearner(requestCountMax: 1 << 16)
  /// nil = unlimited.
  private let capacity: Int?
  private var segments: [IndexSegment] = []
  package private(set) var counts = ReplayCounts()

  /// An empty cache.
  ///
  /// - Parameter capacity: Blocks at most; nil = no bound.
  package init(capacity: Int?) {
    self.capacity = capacity
    order = DensityOrder(learner, capacity: capacity)
    if let capacity { learner.noteCapacity(capacity) }
    index.addNamespace(Self.namespace, wordsPerBlock: Self.wordsPerBlock)
  }

  package func handle(_ request: TraceRequest) -> Int {
    learner.advance(to: request.timestampMilliseconds)
    guard !request.blockIDs.isEmpty else { return 0 }
    return unsafe request.blockIDs.span.withUnsafeBytes { bytes in
      unsafe handle(
        request.blockIDs,
        words: bytes.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt32.self)
      )
    }
  }

  /// The leading blocks that are resident, without a use of them.
  package func residentCount(_ blockIDs: [UInt64]) -> Int {
    guard !blockIDs.isEmpty else { return 0 }
    return unsafe blockIDs.span.withUnsafeBytes { bytes in
      unsafe match(
        bytes.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt32.self),
        blockIDs.count
      ).matchedBlockCount
    }
  }

  private func match(_ words: UnsafePointer<UInt32>, _ blockCount: Int) -> PrefixMatch {
    unsafe index.match(
      Self.namespace,
      words: words,
      blockCount: blockCount,
      touch: false,
      segments: &segments
    )
  }

  private func handle(_ blockIDs: [UInt64], words: UnsafePointer<UInt32>) -> Int {
    let match = unsafe match(words, blockIDs.count)
    let hitCount = match.matchedBlockCount
    let parts = learner.note(found(blockIDs[..<hitCount]), stored: blockIDs[hitCount...])
    order.begin(newBlockCount: blockIDs.count - hitCount)
    if !match.location.isRoot { order.stamp(match.location, parts.repeatedStamp) }

    // Head first; all that is resident belongs to the first part.
    var coming: [(blockCount: Int, stamp: UInt64)] = [
      (parts.repeatedCount - hitCount, parts.repeatedStamp),
      (parts.newCount, parts.newStamp),
      (parts.lastCount, parts.lastStamp),
    ]
    coming.removeAll { $0.blockCount == 0 }
    makeRoom(for: &coming, after: match.location)
    var parent = match.location
    var end = hitCount
    for part in coming {
      unsafe insert(
        words: words + end * Self.wordsPerBlock,
        part.blockCount,
        after: &parent,
        stamp: part.stamp
      )
      end += part.blockCount
    }
    counts.insertedBlockCount += blockIDs.count - hitCount
    counts.evictedBlockCount += blockIDs.count - end
    counts.writtenBlockCount = (counts.writtenBlockCount ?? 0) + end - hitCount
    counts.residentBlockCount = index.statistics.blockCount
    counts.peakBlockCount = max(counts.peakBlockCount, counts.residentBlockCount)
    return hitCount
  }

  private func found(_ path: ArraySlice<UInt64>) -> UseHistory.Found? {
    path.last.map { UseHistory.Found(key: $0, blockCount: path.count, path: path) }
  }

  // MARK: Blocks come

  private func insert(
    words: UnsafePointer<UInt32>,
    _ blockCount: Int,
    after parent: inout IndexLocation,
    stamp newStamp: UInt64
  ) {
    let end = unsafe index.append(
      Self.namespace,
      after: parent,
      words: words,
      blockCount: blockCount,
      slotsOf: &pool
    )
    guard let end else { return assertionFailure("the parent is gone") }
    if !parent.isRoot, end.node != parent.node { order.addChild(after: parent) }
    order.stamp(end, newStamp)
    parent = end
  }

  /// Sees to it that slots are free for what comes; what is worth less than what would have to leave is taken off.
  private func makeRoom(
    for coming: inout [(blockCount: Int, stamp: UInt64)],
    after parent: IndexLocation
  ) {
    var neededCount = coming.reduce(0) { $0 + $1.blockCount }
    let isSmall = neededCount <= capacity.map(RecentUses.blockCountMax) ?? 0
    while pool.freeCount < neededCount, let last = coming.last {
      if pool.grow(for: neededCount, capacity: capacity) { continue }
      let missingCount = neededCount - pool.freeCount
      let first = order.first(in: index, held: parent)
      if let first, isSmall || first.worth < order.worth(last.stamp) {
        counts.evictedBlockCount += remove(first.victim, missingCount)
      } else {
        let count = min(missingCount, last.blockCount)
        coming[coming.count - 1].blockCount -= count
        neededCount -= count
        if count == last.blockCount { coming.removeLast() }
      }
    }
  }

  // MARK: Blocks go

  /// Removes blocks of a path from its end upwards, `blockCount` at most; returns how many.
  private func remove(_ victim: PathEndOrder.Victim, _ blockCount: Int) -> Int {
    let removed = index.cut(victim, blockCount, slotsOf: &pool)
    order.remove(victim, from: removed.first, parent: removed.parent)
    return removed.count
  }

  // MARK: Invariants

  /// What is wrong with index and pool, one line each.
  package func checkInvariants() -> [String] {
    var faults = pool.checkInvariants() + index.checkInvariants()
    if pool.cachedCount != index.statistics.blockCount {
      faults.append("\(pool.cachedCount) slots for \(index.statistics.blockCount) blocks")
    }
    if let capacity, index.statistics.blockCount > capacity { faults.append("over capacity") }
    return faults
  }
}
