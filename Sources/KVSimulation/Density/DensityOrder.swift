internal import KVIndex
internal import KVPolicy

/// The eviction order by hit density: path ends as in `PathEndOrder`, ranked as in the store (`EndRanking`).
///
/// Leaves only, so the resident set stays closed under prefix.
struct DensityOrder {
  private(set) var ends = PathEndOrder()
  private var ranking = EndRanking<IndexLocation>()
  private var recent = RecentUses()
  private var measure: Measure
  private let capacity: Int?
  /// Of the request that is handled.
  private var newBlockCount = 0
  private var refreshCredit = 0
  private var endCount = 0

  /// What a path end is worth, by its stamp.
  private struct Measure {
    let learner: UseLearner
    /// What is not by density is by recency: the oldest stamp first.
    var isByDensity = true

    func worth(_ stamp: UInt64) -> Double {
      isByDensity ? learner.density(stamp) : Double(stamp)
    }
  }

  init(_ learner: UseLearner, capacity: Int?) {
    measure = Measure(learner: learner)
    self.capacity = capacity
  }

  /// A request comes: looks at all path ends again when their turn is there, or when the order is another one now.
  mutating func begin(newBlockCount: Int) {
    self.newBlockCount = newBlockCount
    recent.noteStored(newBlockCount, capacity: capacity)
    refreshCredit += EndRanking<IndexLocation>.refreshedPerUse
    let byDensity = measure.learner.usesDensity
    guard byDensity != measure.isByDensity || (byDensity && refreshCredit >= endCount) else {
      return
    }
    measure.isByDensity = byDensity
    refreshCredit = 0
    let current = ends.stampedEnds
    endCount = current.count
    ranking.refresh(current.lazy.map { ($0.location, $0.stamp) }) { [measure] in
      measure.worth($1)
    }
  }

  mutating func stamp(_ location: IndexLocation, _ stamp: UInt64) {
    ends.stamp(location, stamp, time: measure.learner.now)
    recent.note(stamp, newBlockCount: newBlockCount, capacity: capacity)
    ranking.insert(location, stamp: stamp, worth: worth(stamp))
  }

  mutating func addChild(after location: IndexLocation) { ends.addChild(after: location) }

  /// The path end that goes first, and what it is worth; the leaf `held` stays.
  mutating func first(
    in index: PrefixIndex,
    held: IndexLocation
  ) -> (victim: PathEndOrder.Victim, worth: Double)? {
    let first = ranking.first(
      isRecent: { [recent] in recent.isRecent($0) },
      // One that has something below it comes back once that has gone.
      isListed: { [ends] in ends.victim(at: .init(stamp: $1, location: $0), in: index) != nil },
      isHeld: { $0 == held },
      worth: { [measure] in measure.worth($1) }
    )
    guard let first,
      let victim = ends.victim(at: .init(stamp: first.stamp, location: first.end), in: index)
    else { return nil }
    return (victim, worth(first.stamp))
  }

  /// As `PathEndOrder.remove`.
  mutating func remove(
    _ victim: PathEndOrder.Victim,
    from firstLocal: UInt32,
    parent: IndexLocation
  ) {
    ends.remove(victim, from: firstLocal, parent: parent)
    let above =
      firstLocal > 0
      ? IndexLocation(node: victim.leaf.node, local: firstLocal - 1) : parent
    if !above.isRoot, let end = ends.end(at: above) {
      ranking.insert(above, stamp: end.stamp, worth: worth(end.stamp))
    }
  }

  /// In the order's own measure.
  func worth(_ stamp: UInt64) -> Double { measure.worth(stamp) }
}
