internal import KVCore
internal import KVIndex
package import KVPolicy
internal import KVTiers

// Unsafe: lends the ids of a request to the index by pointer.

/// One tier of the store under a trace: its own index and slot pool, with the eviction order of path ends.
///
/// A request's blocks are handled in runs: what is resident is compared as memory, and only blocks that come or go cost
/// a step each.
package final class PathCache: ReplayCache {
  private static let namespace = NamespaceID(rawValue: 1)
  /// A trace's id is two words of the index.
  private static let wordsPerBlock = 2

  private let index = PrefixIndex(fingerprintSeed: 0x6B76_7374_6F72_65)
  private var pool = SlotPool()
  private var order = PathEndOrder()
  /// nil = unlimited.
  private let capacity: Int?
  private let ttlMilliseconds: Int64?
  /// The use counter.
  private var nextStamp: UInt64 = 1
  private var now: Int64 = 0
  /// Of the request, where its admission is to be decided.
  private var blockIDs: [UInt64] = []
  private var segments: [IndexSegment] = []
  private var admission: Admission
  private let blockByteCount: Int
  package private(set) var counts = ReplayCounts()
  /// Blocks that came to stay, if only for a while: without those of a request larger than the tier.
  package private(set) var writtenBlockCount = 0

  /// An empty cache.
  ///
  /// - Parameters:
  ///   - capacity: Blocks at most; nil = no bound.
  ///   - ttlMilliseconds: A block expires this long after its last use; exactly as long is still valid.
  ///   - admission: Which new blocks come in.
  ///   - blockByteCount: Of a block, for a bound of what is written.
  package init(
    capacity: Int?,
    ttlMilliseconds: Int64? = nil,
    admission: Admission = Admission(.always),
    blockByteCount: Int = 0
  ) {
    self.admission = admission
    self.blockByteCount = blockByteCount
    self.capacity = capacity
    self.ttlMilliseconds = ttlMilliseconds
    index.addNamespace(Self.namespace, wordsPerBlock: Self.wordsPerBlock)
  }

  package func handle(_ request: TraceRequest) -> Int {
    // A trace whose clock goes back now and then does not make blocks younger.
    now = max(now, request.timestampMilliseconds)
    if let ttlMilliseconds { expire(before: now - ttlMilliseconds) }
    let blockCount = request.blockIDs.count
    guard blockCount > 0 else { return 0 }
    blockIDs = admission.isTrivial ? [] : request.blockIDs
    return unsafe request.blockIDs.span.withUnsafeBytes { bytes in
      unsafe handle(
        words: bytes.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt32.self),
        blockCount
      )
    }
  }

  private func handle(words: UnsafePointer<UInt32>, _ blockCount: Int) -> Int {
    let match = unsafe index.match(
      Self.namespace,
      words: words,
      blockCount: blockCount,
      touch: false,
      segments: &segments
    )
    let hitCount = match.matchedBlockCount
    // Of a request larger than the tier only the head would stay: the rest comes and goes at once.
    let fittingCount = min(blockCount, capacity ?? .max)
    let keptCount = min(fittingCount, hitCount + admittedCount(after: hitCount))
    // Before anything leaves, so that the hit blocks stay.
    if !match.location.isRoot { stamp(match.location) }
    if hitCount < keptCount {
      makeRoom(for: keptCount - hitCount)
      unsafe insert(
        words: words + hitCount * Self.wordsPerBlock,
        keptCount - hitCount,
        after: match.location
      )
    }
    // What does not fit comes and goes at once, unless it was declined.
    let comingCount = keptCount < fittingCount ? max(keptCount, hitCount) : blockCount
    counts.insertedBlockCount += comingCount - hitCount
    counts.declinedBlockCount += blockCount - comingCount
    writtenBlockCount += max(0, keptCount - hitCount)
    counts.writtenBlockCount = writtenBlockCount
    counts.evictedBlockCount += comingCount - max(keptCount, hitCount)
    counts.residentBlockCount = index.statistics.blockCount
    counts.peakBlockCount = max(counts.peakBlockCount, counts.residentBlockCount)
    return hitCount
  }

  private func admittedCount(after hitCount: Int) -> Int {
    guard !admission.isTrivial, hitCount < blockIDs.count else { return Int.max / 2 }
    let keys = Array(blockIDs[hitCount...])
    let isFull = capacity.map { index.statistics.blockCount + keys.count > $0 } ?? false
    return admission.admit(
      keys,
      Admission.Offer(
        blockByteCount: blockByteCount,
        storedBlockCount: hitCount,
        storedKeys: blockIDs[..<hitCount].filter(Admission.isSampled),
        isFull: isFull,
        tierBlockCount: capacity ?? .max
      ),
      now: UInt64(clamping: now) &* 1_000_000
    )
  }

  private func stamp(_ location: IndexLocation) {
    order.stamp(location, nextStamp, time: now)
    nextStamp += 1
  }

  // MARK: Blocks come

  private func insert(words: UnsafePointer<UInt32>, _ blockCount: Int, after parent: IndexLocation)
  {
    let end = unsafe index.append(
      Self.namespace,
      after: parent,
      words: words,
      blockCount: blockCount,
      slotsOf: &pool
    )
    guard let end else { return assertionFailure("the parent is gone") }
    if !parent.isRoot {
      if end.node != parent.node { order.addChild(after: parent) }
      order.dropStamp(at: parent)
    }
    stamp(end)
  }

  /// Sees to it that `blockCount` slots are free.
  private func makeRoom(for blockCount: Int) {
    while pool.freeCount < blockCount {
      if pool.grow(for: blockCount, capacity: capacity) { continue }
      guard let victim = order.oldest(in: index) else { return }
      counts.evictedBlockCount += remove(victim, blockCount - pool.freeCount)
    }
  }

  // MARK: Blocks go

  private func expire(before oldest: Int64) {
    while let victim = order.oldest(in: index), victim.time < oldest {
      counts.expiredBlockCount += remove(victim, .max)
    }
  }

  /// Removes blocks of a path from its end upwards, `blockCount` at most; returns how many.
  private func remove(_ victim: PathEndOrder.Victim, _ blockCount: Int) -> Int {
    let removed = index.cut(victim, blockCount, slotsOf: &pool)
    order.remove(victim, from: removed.first, parent: removed.parent)
    return removed.count
  }

  // MARK: Invariants

  /// What is wrong with index, pool and order, one line each.
  package func checkInvariants() -> [String] {
    var faults = pool.checkInvariants()
    if pool.cachedCount != index.statistics.blockCount {
      faults.append("\(pool.cachedCount) slots for \(index.statistics.blockCount) blocks")
    }
    if let capacity, index.statistics.blockCount > capacity { faults.append("over capacity") }
    return faults
  }
}
