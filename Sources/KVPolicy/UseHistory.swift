/// Which request used a block last, resident or not, and how it used it: what reuse is learned from.
///
/// A request's path has up to three parts (`ReuseClass.Part`), each with a stamp; a block belongs to the newest part that
/// it was in. A part counts as used again when one request covers most of what still belongs to it: the few
/// common blocks at its head say nothing about the rest. Blocks that left are remembered, up to a bound.
package struct UseHistory {
  /// The parts of one request's path, head first.
  package struct Parts {
    package var repeatedCount = 0
    package var newCount = 0
    package var lastCount = 0
    /// Of the last, the new and the repeated part: `stamp`, + 1, + 2, so that tails are older than heads.
    package var stamp: UInt64 = 0
    package var lastStamp: UInt64 { stamp }
    package var newStamp: UInt64 { stamp + 1 }
    package var repeatedStamp: UInt64 { stamp + 2 }
  }

  private struct Use {
    var reuseClass: Int
    var time: Int64
    /// Blocks that belong to it still.
    var blockCount: Int
    var turn: Int
    /// Times that the block was used that the path went on from.
    var useCount: Int
    /// The request ended here: what goes on from it is its next turn.
    var isEnd: Bool
  }

  /// The part of what belongs to it that the next use must cover, in tenths.
  private static let coveredTenths = 8
  static let stampsPerRequest: UInt64 = 3
  private static let updateInterval = 16
  /// Of more the oldest are forgotten, however few blocks there are.
  private static let useCountMax = Int(stampsPerRequest) << 16

  private var owners: [UInt64: UInt64] = [:]
  private var uses: [Use] = []
  /// Stamp of `uses[0]`; older ones are forgotten.
  package private(set) var firstStamp: UInt64 = 1
  private var times = ReuseTimes()
  /// Remembers this many blocks at most, resident or not.
  package var blockCountMax: Int
  private var requestCount = 0

  package var rememberedBlockCount: Int { owners.count }

  /// Remembers this many blocks at most, resident or not.
  package init(blockCountMax: Int) { self.blockCountMax = blockCountMax }

  /// Notes a request; `residentCount` of its blocks were found.
  package mutating func observe(_ blockIDs: [UInt64], residentCount: Int, time: Int64) -> Parts {
    if owners.count > blockCountMax || uses.count > Self.useCountMax { forget(time: time) }
    requestCount += 1
    if requestCount % Self.updateInterval == 0 { update(time: time) }

    let path = follow(blockIDs, time: time)
    var parts = Parts(stamp: firstStamp + UInt64(uses.count))
    parts.repeatedCount = max(path.knownCount, residentCount)
    let newCount = blockIDs.count - parts.repeatedCount
    parts.lastCount = min(1, newCount)
    parts.newCount = newCount - parts.lastCount

    let turn = path.turn + 1
    let useCount = path.useCount + 1
    append(.last, parts.lastCount, time, turn: turn, gap: path.gap, isEnd: parts.newCount == 0)
    append(.new, parts.newCount, time, turn: turn, gap: path.gap, isEnd: true)
    append(
      .repeated,
      parts.repeatedCount,
      time,
      // A common head has no turns: how often it was used tells as much.
      turn: max(turn, useCount),
      gap: turn == 1 ? path.lastGap : path.gap,
      isEnd: newCount == 0
    )
    uses[uses.count - 1].turn = turn
    uses[uses.count - 1].useCount = useCount
    for (index, id) in blockIDs.enumerated() {
      owners[id] =
        index < parts.repeatedCount
        ? parts.repeatedStamp
        : index < parts.repeatedCount + parts.newCount ? parts.newStamp : parts.lastStamp
    }
    return parts
  }

  /// Hits a second that are expected of keeping blocks with this stamp.
  package mutating func density(_ stamp: UInt64, time: Int64) -> Double {
    guard stamp >= firstStamp, stamp - firstStamp < UInt64(uses.count) else { return 0 }
    let use = uses[Int(stamp - firstStamp)]
    return times.density(use.reuseClass, ageMilliseconds: time - use.time)
  }

  private mutating func append(
    _ part: ReuseClass.Part,
    _ blockCount: Int,
    _ time: Int64,
    turn: Int,
    gap: Int64?,
    isEnd: Bool
  ) {
    uses.append(
      Use(
        reuseClass: ReuseClass(part, turn: turn, gapMilliseconds: gap).index,
        time: time,
        blockCount: blockCount,
        turn: turn,
        useCount: 1,
        isEnd: isEnd
      )
    )
  }

  // MARK: What a request goes on from

  private struct Path {
    var knownCount = 0
    var turn = 0
    var gap: Int64?
    var useCount = 0
    /// Since the last use of the last known block.
    var lastGap: Int64?
  }

  /// Walks the known blocks of a request, and counts the parts that are used again.
  private mutating func follow(_ blockIDs: [UInt64], time: Int64) -> Path {
    var path = Path()
    while path.knownCount < blockIDs.count, let stamp = owner(blockIDs[path.knownCount]) {
      let first = path.knownCount
      repeat {
        path.knownCount += 1
      } while path.knownCount < blockIDs.count
        && owners[blockIDs[path.knownCount]] == stamp
      let index = Int(stamp - firstStamp)
      let use = uses[index]
      let count = path.knownCount - first
      path.useCount = use.useCount
      path.lastGap = time - use.time
      uses[index].blockCount -= count
      guard 10 * count >= Self.coveredTenths * use.blockCount else { continue }
      times.add(
        use.reuseClass,
        ageMilliseconds: time - use.time,
        coveredPart: Double(count) / Double(use.blockCount)
      )
      if use.isEnd {
        path.turn = use.turn
        path.gap = time - use.time
      }
      uses[index].isEnd = false
      uses[index].time = time
      uses[index].reuseClass = ReuseClass(.left, turn: use.turn, gapMilliseconds: nil).index
    }
    return path
  }

  /// The stamp of the part that a block belongs to.
  func owner(_ id: UInt64) -> UInt64? {
    guard let stamp = owners[id], stamp >= firstStamp else { return nil }
    return stamp
  }

  mutating func give(_ id: UInt64, to stamp: UInt64, from former: UInt64? = nil) {
    owners[id] = stamp
    uses[Int(stamp - firstStamp)].blockCount += 1
    if let former { uses[Int(former - firstStamp)].blockCount -= 1 }
  }

  mutating func noteEnd(_ stamp: UInt64, isEnd: Bool) {
    uses[Int(stamp - firstStamp)].isEnd = isEnd
  }

  /// As `density`, of blocks about whose use nothing is known but its age.
  package mutating func densityOfUnknown(ageMilliseconds: Int64) -> Double {
    let reuseClass = ReuseClass(.new, turn: 1, gapMilliseconds: nil)
    return times.density(reuseClass.index, ageMilliseconds: ageMilliseconds)
  }

  // MARK: Upkeep

  private mutating func update(time: Int64) {
    times.update(
      waiting: uses.lazy.filter { $0.blockCount > 0 }.map { ($0.reuseClass, time - $0.time) }
    )
  }

  /// Forgets the oldest quarter of all uses.
  private mutating func forget(time: Int64) {
    let perRequest = Int(Self.stampsPerRequest)
    let count = max(1, uses.count / perRequest / 4) * perRequest
    for use in uses[..<count] where use.blockCount > 0 {
      times.add(use.reuseClass, ageMilliseconds: time - use.time, coveredPart: nil)
    }
    uses.removeFirst(count)
    firstStamp += UInt64(count)
    let firstStamp = firstStamp
    owners = owners.filter { $0.value >= firstStamp }
  }
}
