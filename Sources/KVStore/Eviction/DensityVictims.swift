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

  /// Of one namespace.
  private final class Ends {
    var listed: [BlockPosition: Listed] = [:]
    var ranking = EndRanking<BlockPosition>()
  }

  private let learner: UseLearner
  private let time: StoreTime
  private let openedAt: Int64

  private var ends: [NamespaceID: Ends] = [:]
  private var listedCount = 0
  private var entryCount = 0
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

  private var refreshCredit = 0
  private static let listedCountMin = 1 << 14
  /// Stored blocks for each path end that is listed, at least.
  private static let blocksPerEnd = 8

  init(_ learner: UseLearner, time: StoreTime) {
    self.learner = learner
    self.time = time
    openedAt = time.milliseconds()
  }

  // MARK: Transactions

  func begin() {
    uses = [:]
    useCount = 0
    takenEnds = []
    if refreshCredit >= listedCount || listedCount > listedCountMax
      || entryCount > 2 * listedCount + 1024
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
    refreshCredit += EndRanking<BlockPosition>.refreshedPerUse
    recentUses.note(
      stamp,
      newBlockCount: newBlockCounts.removeValue(forKey: use) ?? 0,
      capacity: capacity
    )
    pace.note(stamp, at: time.milliseconds())
  }

  func stamped(_ namespace: NamespaceID, _ at: BlockPosition, stamp: UInt64) {
    let ends = ends(of: namespace)
    let former = ends.listed[at]
    guard former?.stamp != stamp else { return }
    if former == nil { listedCount += 1 }
    let listed = Listed(stamp: stamp, use: uses[stamp] ?? 0)
    ends.listed[at] = listed
    learner.advance(to: time.milliseconds())
    ends.ranking.insert(at, stamp: stamp, worth: density(listed))
    entryCount += 1
  }

  private func ends(of namespace: NamespaceID) -> Ends {
    if let known = ends[namespace] { return known }
    let new = Ends()
    ends[namespace] = new
    return new
  }

  func unstamped(_ namespace: NamespaceID, _ at: BlockPosition) {
    guard let listed = ends[namespace]?.listed.removeValue(forKey: at) else { return }
    take(ListedPathEnd(namespace: namespace, at: at, stamp: listed.stamp), listed.use)
  }

  func takeLeast(_ namespaces: [NamespaceID]) -> ListedPathEnd? {
    learner.advance(to: time.milliseconds())
    var first: (namespace: NamespaceID, ends: Ends, entry: EndRanking<BlockPosition>.Entry)?
    for namespace in namespaces {
      guard let ends = ends[namespace], let entry = self.first(of: ends) else { continue }
      if first.map({ entry < $0.entry }) ?? true { first = (namespace, ends, entry) }
    }
    guard let (namespace, ends, entry) = first else { return nil }
    ends.ranking.removeFirst(entry)
    if !entry.isRecent { entryCount -= 1 }
    let end = ListedPathEnd(namespace: namespace, at: entry.end, stamp: entry.stamp)
    take(end, ends.listed.removeValue(forKey: entry.end)?.use ?? 0)
    return end
  }

  private func first(of ends: Ends) -> EndRanking<BlockPosition>.Entry? {
    let before = ends.ranking.entries.count
    defer { entryCount += ends.ranking.entries.count - before }
    return ends.ranking.first(
      isRecent: recentUses.isRecent,
      isListed: { ends.listed[$0]?.stamp == $1 },
      worth: { [self] at, _ in ends.listed[at].map(density) ?? 0 }
    )
  }

  /// Whoever gets the stamp next gets the use.
  private func take(_ end: ListedPathEnd, _ use: UInt64) {
    listedCount -= 1
    uses[end.stamp] = use
    takenEnds.append((end, use))
  }

  // MARK: Worth

  private func density(_ listed: Listed) -> Double {
    if listed.use > 0 { return learner.density(listed.use) }
    return learner.densityOfUnknown(usedAt: pace.time(of: listed.stamp) ?? openedAt)
  }

  /// Looks at what each path end is worth by now.
  private func refresh() {
    refreshCredit = 0
    learner.advance(to: time.milliseconds())
    for ends in ends.values {
      ends.ranking.refresh(ends.listed.lazy.map { ($0.key, $0.value.stamp) }) { [self] at, _ in
        ends.listed[at].map(density) ?? 0
      }
    }
    entryCount = listedCount
    if listedCount > listedCountMax { dropDensest() }
  }

  private func dropDensest() {
    let densities = ends.values.flatMap { $0.ranking.entries.map(\.worth) }.sorted()
    let keptCount = listedCountMax * 3 / 4
    let limit = densities[keptCount]
    var equalCount = keptCount - densities.prefix { $0 < limit }.count
    for (namespace, former) in ends {
      let kept = Ends()
      for entry in former.ranking.entries where entry.worth <= limit {
        if entry.worth == limit {
          guard equalCount > 0 else { continue }
          equalCount -= 1
        }
        kept.listed[entry.end] = former.listed[entry.end]
        kept.ranking.insert(entry.end, stamp: entry.stamp, worth: entry.worth)
      }
      ends[namespace] = kept
    }
    listedCount = ends.values.reduce(0) { $0 + $1.listed.count }
    entryCount = listedCount
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

extension StoreTime {
  func milliseconds() -> Int64 { Int64(clamping: now() / 1_000_000) }
}
