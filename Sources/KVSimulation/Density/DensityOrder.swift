internal import KVIndex
internal import KVPolicy

/// The eviction order by hit density: path ends as in `PathEndOrder`, the least worth first.
///
/// Leaves only, so the resident set stays closed under prefix. What a path end is worth changes with its age: all of them
/// are looked at again from time to time, and the first one always.
struct DensityOrder {
  private struct Candidate: Comparable {
    var density: Double
    var end: PathEndOrder.End
    static func < (a: Self, b: Self) -> Bool {
      if a.density != b.density { return a.density < b.density }
      return a.end < b.end
    }
  }

  private(set) var ends = PathEndOrder()
  private var heap = MinHeap<Candidate>()
  /// Path ends of recent uses, as far as their turn had come.
  private var recentEnds = MinHeap<PathEndOrder.End>()
  private var recent = RecentUses()
  private let capacity: Int?
  /// Of the request that is handled.
  private var newBlockCount = 0
  /// Path ends that are looked at again for each request, in the mean.
  private static let refreshedPerRequest = 256
  private var refreshCredit = 0
  private var endCount = 0
  /// What is not by density is by recency: the oldest stamp first.
  private var isByDensity = true

  init(capacity: Int?) { self.capacity = capacity }

  mutating func stamp(
    _ location: IndexLocation,
    _ stamp: UInt64,
    time: Int64,
    _ history: inout UseHistory
  ) {
    ends.stamp(location, stamp, time: time)
    recent.note(stamp, newBlockCount: newBlockCount, capacity: capacity)
    insert(PathEndOrder.End(stamp: stamp, location: location), time, &history)
  }

  /// A request comes: looks at all path ends again when their turn is there, or when the order is another one now.
  mutating func begin(
    newBlockCount: Int,
    byDensity: Bool,
    time: Int64,
    _ history: inout UseHistory
  ) {
    self.newBlockCount = newBlockCount
    recent.noteStored(newBlockCount, capacity: capacity)
    refreshCredit += Self.refreshedPerRequest
    guard byDensity != isByDensity || (byDensity && refreshCredit >= endCount) else { return }
    isByDensity = byDensity
    refreshCredit = 0
    let current = ends.stampedEnds
    endCount = current.count
    heap = MinHeap()
    recentEnds = MinHeap()
    for end in current { insert(end, time, &history) }
  }

  mutating func addChild(after location: IndexLocation) { ends.addChild(after: location) }

  /// The path end that is worth least, and what it is worth; the leaf `held` stays, and those of recent uses as long as there are others.
  mutating func least(
    in index: PrefixIndex,
    held: IndexLocation,
    time: Int64,
    _ history: inout UseHistory
  ) -> (victim: PathEndOrder.Victim, density: Double)? {
    while let end = recentEnds.first, !recent.isRecent(end.stamp) {
      _ = recentEnds.removeFirst()
      insert(end, time, &history)
    }
    var passed: Candidate?
    defer { if let passed { heap.insert(passed) } }
    while let candidate = heap.first {
      guard let victim = ends.victim(at: candidate.end, in: index) else {
        // It comes back once what is below it has gone.
        _ = heap.removeFirst()
        continue
      }
      let density = worth(candidate.end.stamp, time, &history)
      if candidate.end.location == held {
        _ = heap.removeFirst()
        passed = candidate
      } else if recent.isRecent(candidate.end.stamp) {
        _ = heap.removeFirst()
        recentEnds.insert(candidate.end)
      } else if density > candidate.density {
        _ = heap.removeFirst()
        heap.insert(Candidate(density: density, end: candidate.end))
      } else {
        return (victim, density)
      }
    }
    return oldestRecent(in: index, held: held, time, &history)
  }

  private mutating func oldestRecent(
    in index: PrefixIndex,
    held: IndexLocation,
    _ time: Int64,
    _ history: inout UseHistory
  ) -> (victim: PathEndOrder.Victim, density: Double)? {
    var passed: PathEndOrder.End?
    defer { if let passed { recentEnds.insert(passed) } }
    while let end = recentEnds.first {
      let victim = ends.victim(at: end, in: index)
      if let victim, end.location != held { return (victim, worth(end.stamp, time, &history)) }
      _ = recentEnds.removeFirst()
      if victim != nil { passed = end }
    }
    return nil
  }

  /// As `PathEndOrder.remove`.
  mutating func remove(
    _ victim: PathEndOrder.Victim,
    from firstLocal: UInt32,
    parent: IndexLocation,
    time: Int64,
    _ history: inout UseHistory
  ) {
    ends.remove(victim, from: firstLocal, parent: parent)
    let above =
      firstLocal > 0
      ? IndexLocation(node: victim.leaf.node, local: firstLocal - 1) : parent
    if !above.isRoot, let end = ends.end(at: above) { insert(end, time, &history) }
  }

  private mutating func insert(
    _ end: PathEndOrder.End,
    _ time: Int64,
    _ history: inout UseHistory
  ) {
    heap.insert(Candidate(density: worth(end.stamp, time, &history), end: end))
  }

  /// In the order's own measure.
  func worth(_ stamp: UInt64, _ time: Int64, _ history: inout UseHistory) -> Double {
    isByDensity ? history.density(stamp, time: time) : Double(stamp)
  }
}
