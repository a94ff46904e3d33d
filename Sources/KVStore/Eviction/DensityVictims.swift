internal import KVCatalog
internal import KVCore
internal import KVPolicy

/// The order of victims by hit density: path ends of the catalog, and which use gave each its stamp.
///
/// Kept in RAM by the thread that writes the catalog. What a transaction changed is taken back when it fails. Path ends of whose use
/// nothing is known (of earlier processes, and of others) count by their age alone.
final class DensityVictims: VictimOrder, @unchecked Sendable {
  // Unchecked: the writer's thread alone, or whoever closes the store after it.
  private struct PathEnd: Hashable {
    var namespace: NamespaceID
    var at: BlockPosition
  }

  private struct Candidate: Comparable {
    var density: Double
    var stamp: UInt64
    var at: BlockPosition

    static func < (a: Self, b: Self) -> Bool { (a.density, a.stamp) < (b.density, b.stamp) }
  }

  private let learner: UseLearner
  private let time: StoreTime
  private let openedAt: Int64

  /// The stamp under which a path end lies in its namespace's heap.
  private var listed: [PathEnd: UInt64] = [:]
  private var heaps: [NamespaceID: MinHeap<Candidate>] = [:]
  private var heapCount = 0
  /// By the catalog's stamps: those of the history.
  private var uses: [UInt64: UInt64] = [:]
  private var pace = StampPace()
  var lookedThrough: [UInt32: StampOrder] = [:]

  /// Of the transaction under way.
  private var notedStamps: [UInt64] = []
  private var takenEnds: [ListedPathEnd] = []

  /// Uses between two looks at what each path end is worth by now, at most; as in the replay, 256 path ends a use.
  private static let refreshedPerUse = 256
  private var refreshCredit = 0
  private static let useCountMax = 1 << 19

  init(_ learner: UseLearner, time: StoreTime) {
    self.learner = learner
    self.time = time
    openedAt = Int64(clamping: time.now() / 1_000_000)
  }

  // MARK: Transactions

  func begin() {
    notedStamps = []
    takenEnds = []
    if refreshCredit >= listed.count || heapCount > 4 * listed.count + 1024 { refresh() }
  }

  /// What the transaction changed did not happen.
  func takeBack() {
    for stamp in notedStamps { uses[stamp] = nil }
    let taken = takenEnds
    // Those of the transaction itself are found out when their turn comes.
    for end in taken { stamped(end.namespace, end.at, stamp: end.stamp) }
  }

  // MARK: VictimOrder

  var isInUse: Bool { learner.usesDensity }

  func noteCapacity(_ blockCount: Int) { learner.noteCapacity(blockCount) }

  func noteUse(_ use: UInt64, stamp: UInt64) {
    uses[stamp] = use
    notedStamps.append(stamp)
    refreshCredit += Self.refreshedPerUse
    pace.note(stamp, at: Int64(clamping: time.now() / 1_000_000))
  }

  func stamped(_ namespace: NamespaceID, _ at: BlockPosition, stamp: UInt64) {
    let end = PathEnd(namespace: namespace, at: at)
    guard listed[end] != stamp else { return }
    listed[end] = stamp
    learner.withHistory(timeNanoseconds: time.now()) { history, now in
      insert(end, stamp, &history, now)
    }
  }

  func unstamped(_ namespace: NamespaceID, _ at: BlockPosition) {
    guard let stamp = listed.removeValue(forKey: PathEnd(namespace: namespace, at: at)) else {
      return
    }
    takenEnds.append(ListedPathEnd(namespace: namespace, at: at, stamp: stamp))
  }

  func takeLeast(_ namespaces: [NamespaceID]) -> ListedPathEnd? {
    learner.withHistory(timeNanoseconds: time.now()) { history, now in
      var least: (namespace: NamespaceID, candidate: Candidate)?
      for namespace in namespaces {
        guard let first = first(of: namespace, &history, now) else { continue }
        if least.map({ first < $0.candidate }) ?? true { least = (namespace, first) }
      }
      guard let least else { return nil }
      _ = removeFirst(of: least.namespace)
      let end = PathEnd(namespace: least.namespace, at: least.candidate.at)
      listed[end] = nil
      let taken = ListedPathEnd(
        namespace: end.namespace,
        at: end.at,
        stamp: least.candidate.stamp
      )
      takenEnds.append(taken)
      return taken
    }
  }

  // MARK: Heaps

  /// The least of a namespace, by what it is worth now.
  private func first(
    of namespace: NamespaceID,
    _ history: inout UseHistory,
    _ now: Int64
  ) -> Candidate? {
    while let first = heaps[namespace]?.first {
      let end = PathEnd(namespace: namespace, at: first.at)
      guard listed[end] == first.stamp else {
        _ = removeFirst(of: namespace)
        continue
      }
      let density = density(first.stamp, &history, now)
      if density <= first.density { return first }
      _ = removeFirst(of: namespace)
      insert(end, first.stamp, &history, now)
    }
    return nil
  }

  private func removeFirst(of namespace: NamespaceID) -> Candidate? {
    heapCount -= 1
    return heaps[namespace]?.removeFirst()
  }

  private func insert(
    _ end: PathEnd,
    _ stamp: UInt64,
    _ history: inout UseHistory,
    _ now: Int64
  ) {
    let candidate = Candidate(
      density: density(stamp, &history, now),
      stamp: stamp,
      at: end.at
    )
    heaps[end.namespace, default: MinHeap()].insert(candidate)
    heapCount += 1
  }

  private func density(_ stamp: UInt64, _ history: inout UseHistory, _ now: Int64) -> Double {
    if let use = uses[stamp] { return history.density(use, time: now) }
    return history.densityOfUnknown(ageMilliseconds: now - (pace.time(of: stamp) ?? openedAt))
  }

  private func refresh() {
    refreshCredit = 0
    learner.withHistory(timeNanoseconds: time.now()) { history, now in
      if uses.count > Self.useCountMax {
        let oldest = history.firstStamp
        uses = uses.filter { $0.value >= oldest }
      }
      heaps = [:]
      heapCount = 0
      for (end, stamp) in listed { insert(end, stamp, &history, now) }
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
