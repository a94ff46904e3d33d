import KVPolicy
import KVTestSupport
import Testing

/// The ranking of path ends against a list that is searched from end to end.
@Suite struct EndRankingTests {
  /// Ends are numbers; what is listed has a stamp, and each stamp a worth that changes with time.
  private struct Model {
    var stamps: [Int: UInt64] = [:]
    var boundary: UInt64 = 0
    var time = 0

    func worth(_ stamp: UInt64) -> Double {
      Double((stamp &* 0x9E37_79B9) >> 8 & 63) / Double(time + 1)
    }
    func isRecent(_ stamp: UInt64) -> Bool { stamp > boundary }

    /// What goes first when everything is looked at now; only where worth does not change its order.
    func first(besides held: Int?) -> (end: Int, stamp: UInt64)? {
      let others = stamps.filter { $0.key != held }.map { (end: $0.key, stamp: $0.value) }
      let old = others.filter { !isRecent($0.stamp) }
      return old.min { (worth($0.stamp), $0.stamp) < (worth($1.stamp), $1.stamp) }
        ?? others.min { $0.stamp < $1.stamp }
    }
  }

  @Test(arguments: 0..<20)
  func theFirstIsWorthLeast(seed: Int) {
    var generator = SeededGenerator(seed: UInt64(seed))
    var model = Model()
    var ranking = EndRanking<Int>()
    var stamp: UInt64 = 0
    for step in 0..<4000 {
      switch Int.random(in: 0..<10, using: &generator) {
      case 0..<5:
        stamp += 1
        let end = Int.random(in: 0..<40, using: &generator)
        model.stamps[end] = stamp
        ranking.insert(end, stamp: stamp, worth: model.worth(stamp))
      case 5: model.boundary = max(model.boundary, stamp - min(stamp, 5))
      case 6 where step % 50 == 0:
        model.time += 1
        ranking.refresh(model.stamps.map { ($0.key, $0.value) }) { model.worth($1) }
      default:
        let held = Bool.random(using: &generator) ? Int.random(in: 0..<40, using: &generator) : nil
        let first = ranking.first(
          isRecent: model.isRecent,
          isListed: { model.stamps[$0] == $1 },
          isHeld: { $0 == held },
          worth: { model.worth($1) }
        )
        let expected = model.first(besides: held)
        #expect(first?.end == expected?.end && first?.stamp == expected?.stamp, "seed \(seed)")
        guard let first else { continue }
        #expect(first.isRecent == model.isRecent(first.stamp))
        if held == nil, Bool.random(using: &generator) { ranking.removeFirst(first) }
        model.stamps[first.end] = nil
      }
    }
  }
}
