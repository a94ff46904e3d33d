internal import KVCatalog
internal import KVCore
internal import KVPolicy

/// The order of victims by hit density: path ends of the catalog, and which use gave each its stamp.
///
/// Kept in RAM by the thread that writes the catalog. It proposes path ends, the catalog removes or refuses them. What a transaction did
/// to the stamps is learned before something is proposed in it, for what it stores competes with what is there, and when it is
/// committed; where it fails, path ends are listed as before. Those of whose use nothing is known (of earlier processes, and of others)
/// count by their age alone.
final class DensityVictims: @unchecked Sendable {
  // Unchecked: the writer's thread alone, or whoever closes the store after it.
  /// What lies in the catalog at a path end.
  private struct Listed {
    var stamp: UInt64
    /// The use that gave the stamp; 0 = not known.
    var use: UInt64
  }

  /// What the transaction under way has to do with.
  private struct Underway {
    /// Uses by the stamps that they got.
    var uses: [UInt64: UInt64] = [:]
    var useCount = 0
    /// Changes of stamps that are learned.
    var learnedCount = 0
    /// What was listed before them, in order.
    var former: [(namespace: NamespaceID, at: BlockPosition, listed: Listed?)] = []
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
  /// Where the look through the stamps of a pool has come to; nil = it begins anew.
  private var lookedThrough: [UInt32: StampOrder] = [:]

  private var share = UseShare()
  private var recentUses = RecentUses()
  /// New blocks that came with a use that has no stamp yet.
  private var newBlockCounts: [UInt64: Int] = [:]
  private static let newBlockCountMax = 1 << 12
  /// Blocks that there is room for; nil = not known yet.
  private var capacity: Int?

  private var underway = Underway()

  private var refreshCredit = 0
  private static let listedCountMin = 1 << 14
  /// Stamps that an eviction looks at in each pool.
  private static let lookCount = 64
  /// Stored blocks for each path end that is listed, at least.
  private static let blocksPerEnd = 8

  init(_ learner: UseLearner, time: StoreTime) {
    self.learner = learner
    self.time = time
    openedAt = time.milliseconds()
  }

  // MARK: Uses

  /// New blocks are on their way, with these uses.
  func noteStored(_ blockCount: Int, uses: [UInt64]) {
    recentUses.noteStored(blockCount, capacity: capacity)
    if newBlockCounts.count > Self.newBlockCountMax { newBlockCounts = [:] }
    for use in uses { newBlockCounts[use] = blockCount }
  }

  private func note(_ use: UInt64, stamp: UInt64) {
    refreshCredit += EndRanking<BlockPosition>.refreshedPerUse
    recentUses.note(
      stamp,
      newBlockCount: newBlockCounts.removeValue(forKey: use) ?? 0,
      capacity: capacity
    )
    pace.note(stamp, at: time.milliseconds())
  }

  // MARK: Transactions

  /// Learns what a transaction did to the stamps since it was asked last.
  private func learn(from transaction: WriteTransaction) {
    let changes = transaction.stampChanges ?? []
    defer { underway.learnedCount = changes.count }
    for change in changes.dropFirst(underway.learnedCount) {
      switch change {
      case .used(let use, let stamp):
        underway.uses[stamp] = use
        underway.useCount += 1
        note(use, stamp: stamp)
      case .stamped(let end): list(end)
      case .unstamped(let namespace, let at): unlist(namespace, at)
      }
    }
  }

  /// A transaction was committed, which found the use counter there.
  func committed(_ transaction: WriteTransaction, from useCounter: UInt64) {
    learn(from: transaction)
    share.note(from: useCounter, to: transaction.useCounter, useCount: underway.useCount)
    underway = Underway()
    if listedCount > listedCountMax || entryCount > 2 * listedCount + 1024 { refresh() }
  }

  /// A transaction failed: nothing of it happened.
  func aborted() {
    for former in underway.former.reversed() {
      guard let listed = former.listed else {
        unlist(former.namespace, former.at)
        continue
      }
      underway.uses[listed.stamp] = listed.use
      list(StampedEnd(namespace: former.namespace, at: former.at, stamp: listed.stamp))
    }
    underway = Underway()
  }

  private func list(_ end: StampedEnd) {
    let ends = ends(of: end.namespace)
    let former = ends.listed[end.at]
    guard former?.stamp != end.stamp else { return }
    underway.former.append((end.namespace, end.at, former))
    if former == nil { listedCount += 1 }
    let listed = Listed(stamp: end.stamp, use: underway.uses[end.stamp] ?? 0)
    ends.listed[end.at] = listed
    learner.advance(to: time.milliseconds())
    rank(end.at, listed, ends)
  }

  private func rank(_ at: BlockPosition, _ listed: Listed, _ ends: Ends) {
    ends.ranking.insert(at, stamp: listed.stamp, worth: density(listed))
    entryCount += 1
  }

  private func unlist(_ namespace: NamespaceID, _ at: BlockPosition) {
    guard let listed = ends[namespace]?.listed.removeValue(forKey: at) else { return }
    underway.former.append((namespace, at, listed))
    listedCount -= 1
    // Whoever gets the stamp next gets the use.
    underway.uses[listed.stamp] = listed.use
  }

  private func ends(of namespace: NamespaceID) -> Ends {
    if let known = ends[namespace] { return known }
    let new = Ends()
    ends[namespace] = new
    return new
  }

  // MARK: Eviction

  /// Removes what is worth least, as far as path ends are known.
  ///
  /// - Parameters:
  ///   - transaction: Where it is removed; `committed` or `aborted` follows.
  ///   - pools: Of these.
  ///   - blockCount: How many blocks.
  ///   - reason: What the events say.
  ///   - isProtected: Tells the blocks that have to stay.
  /// - Returns: nil where recency is to decide alone.
  /// - Throws: `CatalogError`.
  func evict(
    _ transaction: WriteTransaction,
    pools: Set<UInt32>,
    blockCount: Int,
    reason: RemovalReason,
    isProtected: (NamespaceID, RunID, UInt32) -> Bool
  ) throws(CatalogError) -> RemovedSummary? {
    let rows = try transaction.namespaces()
    var storedCount = 0
    for row in rows { storedCount += Int(clamping: try transaction.accounting(row.id).blockCount) }
    noteCapacity(max(1, storedCount - blockCount))
    let concerned = rows.filter { !pools.isDisjoint(with: $0.pools) }
    // The lowest priority goes first, whatever it is worth.
    guard learner.usesDensity, share.isNearlyAll,
      !concerned.contains(where: { $0.facts.contains(.hasPriorities) })
    else { return nil }
    if refreshCredit >= listedCount { refresh() }
    learn(from: transaction)
    try lookThrough(pools, transaction)
    // Out of the ranking until it is known that they stay.
    var proposed: [(at: BlockPosition, ends: Ends)] = []
    defer {
      for (at, ends) in proposed { if let listed = ends.listed[at] { rank(at, listed, ends) } }
    }
    var removed = RemovedSummary()
    var missingCount = blockCount
    while missingCount > 0, let (end, ends) = takeFirst(of: concerned) {
      proposed.append((end.at, ends))
      let fate = try transaction.removePath(
        endingAt: end,
        blockCount: missingCount,
        reason: reason,
        isProtected: isProtected
      )
      if case .protected = fate { continue }
      proposed.removeLast()
      unlist(end.namespace, end.at)
      guard case .removed(let summary, let above) = fate else { continue }
      removed.add(summary)
      missingCount -= summary.rowCount
      learn(from: transaction)
      if let above { list(above) }
    }
    return removed
  }

  private func noteCapacity(_ blockCount: Int) {
    capacity = blockCount
    learner.noteCapacity(blockCount)
    listedCountMax = max(Self.listedCountMin, blockCount / Self.blocksPerEnd)
  }

  /// Looks at some more stamps, round and round, for path ends that are not listed: of earlier processes, and of others.
  private func lookThrough(
    _ pools: Set<UInt32>,
    _ transaction: WriteTransaction
  ) throws(CatalogError) {
    for pool in pools.sorted() {
      var rows: [StampRow] = []
      try transaction.forEachStamp(pool: pool, after: lookedThrough[pool]) { row in
        rows.append(row)
        return rows.count < Self.lookCount
      }
      for row in rows {
        list(StampedEnd(namespace: row.namespace, at: row.end, stamp: row.stamp))
      }
      lookedThrough[pool] = rows.count < Self.lookCount ? nil : rows.last?.order
    }
  }

  /// Takes the path end of these namespaces that goes first out of the ranking.
  private func takeFirst(of namespaces: [NamespaceRow]) -> (end: StampedEnd, ends: Ends)? {
    learner.advance(to: time.milliseconds())
    var first: (namespace: NamespaceID, ends: Ends, entry: EndRanking<BlockPosition>.Entry)?
    for row in namespaces {
      guard let ends = ends[row.id], let entry = self.first(of: ends) else { continue }
      if first.map({ entry < $0.entry }) ?? true { first = (row.id, ends, entry) }
    }
    guard let (namespace, ends, entry) = first else { return nil }
    ends.ranking.removeFirst(entry)
    if !entry.isRecent { entryCount -= 1 }
    return (StampedEnd(namespace: namespace, at: entry.end, stamp: entry.stamp), ends)
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

extension RemovedSummary {
  /// Blocks that are gone, damaged rows among them.
  var rowCount: Int { ranges.reduce(0) { $0 + Int($1.blockCount) } }
}
