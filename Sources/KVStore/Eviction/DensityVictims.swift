internal import KVCatalog
internal import KVCore
internal import KVPolicy

/// The order of victims by hit density: path ends of the catalog, and which use gave each its stamp.
///
/// Kept in RAM by the thread that writes the catalog. What a transaction changed is taken back when it fails. Path ends of whose use
/// nothing is known (of earlier processes, and of others) count by their age alone.
final class DensityVictims: VictimOrder, @unchecked Sendable {
  // Unchecked: the writer's thread alone, or whoever closes the store after it.
  /// What lies in the catalog at a path end.
  private struct Listed {
    var stamp: UInt64
    /// The use that gave the stamp; 0 = not known.
    var use: UInt64
  }

  private struct Candidate: Comparable {
    var density: Double
    var stamp: UInt64
    var at: BlockPosition

    static func < (a: Self, b: Self) -> Bool { (a.density, a.stamp) < (b.density, b.stamp) }
  }

  private struct Recent: Comparable {
    var stamp: UInt64
    var at: BlockPosition
    static func < (a: Self, b: Self) -> Bool { a.stamp < b.stamp }
  }

  private struct Ends {
    var listed: [BlockPosition: Listed] = [:]
    /// A candidate is stale once its path end has another stamp, or none.
    var heap = MinHeap<Candidate>()
    /// Of recent uses, as far as their turn had come.
    var recent = MinHeap<Recent>()
  }

  private let learner: UseLearner
  private let time: StoreTime
  private let openedAt: Int64

  private var ends: [NamespaceID: Ends] = [:]
  private var listedCount = 0
  private var candidateCount = 0
  /// Of more path ends those that are worth most are dropped; the look through the catalog finds them again.
  private var listedCountMax = DensityVictims.listedCountMin
  private var pace = StampPace()
  var lookedThrough: [UInt32: StampOrder] = [:]

  private var share = UseShare()
  /// In the transaction under way.
  private var useCount = 0
  private var recentUses = RecentUses()
  /// New blocks that came with a use that has no stamp yet.
  private var newBlockCounts: [UInt64: Int] = [:]
  private static let newBlockCountMax = 1 << 12
  /// Blocks that there is room for; nil = not known yet.
  private var capacity: Int?

  /// Uses by the catalog's stamps, as far as the transaction under way has had to do with them.
  private var uses: [UInt64: UInt64] = [:]
  private var takenEnds: [(end: ListedPathEnd, use: UInt64)] = []

  /// Uses between two looks at what each path end is worth by now, at most; as in the replay, 256 path ends a use.
  private static let refreshedPerUse = 256
  private var refreshCredit = 0
  private static let listedCountMin = 1 << 14
  /// Stored blocks for each path end that is listed, at least.
  private static let blocksPerEnd = 8

  init(_ learner: UseLearner, time: StoreTime) {
    self.learner = learner
    self.time = time
    openedAt = Int64(clamping: time.now() / 1_000_000)
  }

  // MARK: Transactions

  func begin() {
    uses = [:]
    useCount = 0
    takenEnds = []
    if refreshCredit >= listedCount || listedCount > listedCountMax
      || candidateCount > 2 * listedCount + 1024
    {
      refresh()
    }
  }

  /// The transaction was committed, which found the use counter at `begin` and left it at `end`.
  func committed(from begin: UInt64, to end: UInt64) {
    share.note(from: begin, to: end, useCount: useCount)
  }

  /// What the transaction changed did not happen.
  func takeBack() {
    let taken = takenEnds
    // Those of the transaction itself are found out when their turn comes.
    for (end, use) in taken {
      uses[end.stamp] = use
      stamped(end.namespace, end.at, stamp: end.stamp)
    }
  }

  // MARK: VictimOrder

  var isInUse: Bool { learner.usesDensity && share.isNearlyAll }

  /// New blocks are on their way, with these uses.
  func noteStored(_ blockCount: Int, uses: [UInt64]) {
    recentUses.noteStored(blockCount, capacity: capacity)
    if newBlockCounts.count > Self.newBlockCountMax { newBlockCounts = [:] }
    for use in uses { newBlockCounts[use] = blockCount }
  }

  func noteCapacity(_ blockCount: Int) {
    capacity = blockCount
    learner.noteCapacity(blockCount)
    listedCountMax = max(Self.listedCountMin, blockCount / Self.blocksPerEnd)
  }

  func noteUse(_ use: UInt64, stamp: UInt64) {
    uses[stamp] = use
    useCount += 1
    refreshCredit += Self.refreshedPerUse
    recentUses.note(
      stamp,
      newBlockCount: newBlockCounts.removeValue(forKey: use) ?? 0,
      capacity: capacity
    )
    pace.note(stamp, at: Int64(clamping: time.now() / 1_000_000))
  }

  func stamped(_ namespace: NamespaceID, _ at: BlockPosition, stamp: UInt64) {
    let former = ends[namespace]?.listed[at]
    guard former?.stamp != stamp else { return }
    if former == nil { listedCount += 1 }
    let listed = Listed(stamp: stamp, use: uses[stamp] ?? 0)
    ends[namespace, default: Ends()].listed[at] = listed
    learner.withHistory(timeNanoseconds: time.now()) { history, now in
      insert(namespace, at, listed, &history, now)
    }
  }

  func unstamped(_ namespace: NamespaceID, _ at: BlockPosition) {
    guard let listed = ends[namespace]?.listed.removeValue(forKey: at) else { return }
    take(ListedPathEnd(namespace: namespace, at: at, stamp: listed.stamp), listed.use)
  }

  func takeLeast(_ namespaces: [NamespaceID]) -> ListedPathEnd? {
    learner.withHistory(timeNanoseconds: time.now()) { history, now in
      var least: (namespace: NamespaceID, candidate: Candidate)?
      for namespace in namespaces {
        guard let first = first(of: namespace, &history, now) else { continue }
        if least.map({ first < $0.candidate }) ?? true { least = (namespace, first) }
      }
      guard let (namespace, candidate) = least else { return takeOldestRecent(namespaces) }
      removeFirst(of: namespace)
      return take(namespace, candidate.at, candidate.stamp)
    }
  }

  private func takeOldestRecent(_ namespaces: [NamespaceID]) -> ListedPathEnd? {
    var oldest: (namespace: NamespaceID, end: Recent)?
    for namespace in namespaces {
      while let first = ends[namespace]?.recent.first {
        if ends[namespace]?.listed[first.at]?.stamp == first.stamp {
          if oldest.map({ first < $0.end }) ?? true { oldest = (namespace, first) }
          break
        }
        _ = ends[namespace]?.recent.removeFirst()
      }
    }
    guard let (namespace, end) = oldest else { return nil }
    _ = ends[namespace]?.recent.removeFirst()
    return take(namespace, end.at, end.stamp)
  }

  private func take(
    _ namespace: NamespaceID,
    _ at: BlockPosition,
    _ stamp: UInt64
  ) -> ListedPathEnd {
    let listed = ends[namespace]?.listed.removeValue(forKey: at)
    let end = ListedPathEnd(namespace: namespace, at: at, stamp: stamp)
    take(end, listed?.use ?? 0)
    return end
  }

  /// Whoever gets the stamp next gets the use.
  private func take(_ end: ListedPathEnd, _ use: UInt64) {
    listedCount -= 1
    uses[end.stamp] = use
    takenEnds.append((end, use))
  }

  // MARK: Heaps

  /// The least of a namespace, by what it is worth now.
  private func first(
    of namespace: NamespaceID,
    _ history: inout UseHistory,
    _ now: Int64
  ) -> Candidate? {
    while let end = ends[namespace]?.recent.first, !recentUses.isRecent(end.stamp) {
      _ = ends[namespace]?.recent.removeFirst()
      guard let listed = ends[namespace]?.listed[end.at], listed.stamp == end.stamp else {
        continue
      }
      insert(namespace, end.at, listed, &history, now)
    }
    while let first = ends[namespace]?.heap.first {
      guard let listed = ends[namespace]?.listed[first.at], listed.stamp == first.stamp else {
        removeFirst(of: namespace)
        continue
      }
      if recentUses.isRecent(first.stamp) {
        removeFirst(of: namespace)
        ends[namespace]?.recent.insert(Recent(stamp: first.stamp, at: first.at))
        continue
      }
      let density = density(listed, &history, now)
      if density <= first.density { return first }
      removeFirst(of: namespace)
      insert(namespace, first.at, listed, &history, now)
    }
    return nil
  }

  private func removeFirst(of namespace: NamespaceID) {
    candidateCount -= 1
    _ = ends[namespace]?.heap.removeFirst()
  }

  private func insert(
    _ namespace: NamespaceID,
    _ at: BlockPosition,
    _ listed: Listed,
    _ history: inout UseHistory,
    _ now: Int64
  ) {
    let density = density(listed, &history, now)
    let candidate = Candidate(density: density, stamp: listed.stamp, at: at)
    ends[namespace]?.heap.insert(candidate)
    candidateCount += 1
  }

  private func density(_ listed: Listed, _ history: inout UseHistory, _ now: Int64) -> Double {
    if listed.use > 0 { return history.density(listed.use, time: now) }
    return history.densityOfUnknown(
      ageMilliseconds: now - (pace.time(of: listed.stamp) ?? openedAt)
    )
  }

  /// Looks at what each path end is worth by now.
  private func refresh() {
    refreshCredit = 0
    candidateCount = 0
    learner.withHistory(timeNanoseconds: time.now()) { history, now in
      for namespace in Array(ends.keys) {
        guard let listed = ends[namespace]?.listed else { continue }
        ends[namespace]?.heap = MinHeap()
        ends[namespace]?.recent = MinHeap()
        for (at, end) in listed { insert(namespace, at, end, &history, now) }
      }
    }
    if listedCount > listedCountMax { dropDensest() }
  }

  private func dropDensest() {
    let densities = ends.values.flatMap { $0.heap.elements.map(\.density) }.sorted()
    let keptCount = listedCountMax * 3 / 4
    let limit = densities[keptCount]
    var equalCount = keptCount - densities.prefix { $0 < limit }.count
    for (namespace, former) in ends {
      var kept = Ends()
      for candidate in former.heap.elements where candidate.density <= limit {
        if candidate.density == limit {
          guard equalCount > 0 else { continue }
          equalCount -= 1
        }
        kept.listed[candidate.at] = former.listed[candidate.at]
        kept.heap.insert(candidate)
      }
      ends[namespace] = kept
    }
    listedCount = ends.values.reduce(0) { $0 + $1.listed.count }
    candidateCount = listedCount
  }

  /// Bytes that the lists take, about.
  var byteCount: Int {
    ends.values.reduce(0) { sum, ends in
      sum + ends.listed.capacity * (MemoryLayout<(BlockPosition, Listed)>.stride + 1) * 4 / 3
        + ends.heap.elements.capacity * MemoryLayout<Candidate>.stride
    }
  }
}

/// When stamps were given, about.
struct StampPace {
  private static let interval: Int64 = 1000
  private static let countMax = 1 << 16
  private var entries: [(stamp: UInt64, time: Int64)] = []

  /// Milliseconds.
  mutating func note(_ stamp: UInt64, at time: Int64) {
    if let last = entries.last, time - last.time < Self.interval || stamp <= last.stamp { return }
    if entries.count >= Self.countMax {
      entries = entries.enumerated().filter { $0.offset % 2 == 0 }.map(\.element)
    }
    entries.append((stamp, time))
  }

  /// When the stamp was given at the earliest; nil = before the first that was noted.
  func time(of stamp: UInt64) -> Int64? {
    var low = 0
    var high = entries.count
    while low < high {
      let middle = (low + high) / 2
      if entries[middle].stamp <= stamp { low = middle + 1 } else { high = middle }
    }
    return low > 0 ? entries[low - 1].time : nil
  }
}
