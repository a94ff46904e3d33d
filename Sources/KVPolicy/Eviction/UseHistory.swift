/// Which request used a block last, resident or not, and how it used it: what reuse is learned from.
///
/// A request's path has up to three parts (`ReuseClass.Part`), each with a stamp; a block belongs to the newest part that
/// it was in. A part counts as used again when one request covers most of what still belongs to it: the few
/// common blocks at its head say nothing about the rest. What left is remembered, up to a bound.
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

    package init(stamp: UInt64 = 0) { self.stamp = stamp }
  }

  /// What of a request's prompt was there.
  package struct Found {
    /// Of the last block that was there.
    package var key: UInt64
    package var blockCount: Int
    /// Keys of all its blocks; needed only where no path ended there before (`stamp(ofEnd:)`), and may be missing.
    package var path: ArraySlice<UInt64>

    package init(key: UInt64, blockCount: Int, path: ArraySlice<UInt64> = []) {
      self.key = key
      self.blockCount = blockCount
      self.path = path
    }
  }

  /// 32 bytes.
  struct Use {
    var time: Int64
    /// Blocks that belong to it still.
    var blockCount: UInt32 = 0
    var turn: UInt32 = 0
    /// Times that the block was used that the path went on from.
    var useCount: UInt32 = 1
    var reuseClass: UInt8 = 0
    /// The request ended here: what goes on from it is its next turn.
    var isEnd = false
  }

  /// What a request goes on from.
  struct Origin {
    var turn = 0
    var gap: Int64?
    var useCount = 0
    /// Since the last use of the last known block.
    var lastGap: Int64?
    /// Blocks from the root to the end of the repeated part, and to the end of all.
    var repeatedDepth = 0
    var depth = 0
  }

  /// The part of what belongs to it that the next use must cover, in tenths.
  private static let coveredTenths = 8
  private static let stampsPerRequest: UInt64 = 3
  private static let updateInterval = 16

  var segments = PathSegments()
  private var uses: [Use] = []
  private var origins: [Origin] = []
  /// Stamp of `uses[0]`; older ones are forgotten.
  package private(set) var firstStamp: UInt64 = 1
  private var times = ReuseTimes()
  private var shadow = RecencyShadow()
  private var nextUpdate = Self.updateInterval

  /// Remembers this many blocks at most, resident or not.
  package var blockCountMax: Int
  /// Of more requests the oldest are forgotten, however few blocks there are.
  package var requestCountMax: Int
  /// Blocks that there is room for; nil = not known yet.
  package var capacity: Int?
  /// Blocks that an LRU would have found since the start.
  package private(set) var recencyHitCount = 0

  /// Parts of requests that were used again.
  private var reuseCount = 0
  /// Where fewer came back, nothing is known of how soon blocks come back.
  private static let reuseCountMin = 32

  /// Whether anything is learned; until then the order by recency is as good as any, and the one that people expect.
  package var hasLearned: Bool { reuseCount >= Self.reuseCountMin }

  package var rememberedBlockCount: Int { segments.blockCount }

  package init(blockCountMax: Int, requestCountMax: Int = 1 << 16) {
    self.blockCountMax = blockCountMax
    self.requestCountMax = requestCountMax
  }

  // MARK: Uses

  /// Notes a request, of which this much was there.
  package mutating func begin(_ found: Found?, time: Int64) -> Parts {
    if segments.blockCount > blockCountMax || origins.count >= requestCountMax {
      forget(time: time)
    }
    nextUpdate -= 1
    if nextUpdate <= 0 {
      // The more uses there are, the less one more says.
      nextUpdate = max(Self.updateInterval, uses.count / 256)
      update(time: time)
    }
    let parts = Parts(stamp: firstStamp + UInt64(uses.count))
    for _ in 0..<Self.stampsPerRequest { uses.append(Use(time: time)) }
    origins.append(Origin())
    if let found {
      take(segment(of: found), for: parts, time: time)
      origins[origins.count - 1].repeatedDepth = found.blockCount
      origins[origins.count - 1].depth = found.blockCount
    }
    classify(parts)
    evictShadow()
    return self.parts(parts.stamp)
  }

  /// Notes that blocks were stored behind a block, which is `depth` blocks from the root: what is not known of them belongs to the
  /// request that the block was used by last, if it ended there.
  ///
  /// Returns the parts of that request.
  package mutating func extend(
    _ keys: ArraySlice<UInt64>,
    after parent: UInt64?,
    depth: Int,
    time: Int64
  ) -> Parts {
    let stamp =
      parent.flatMap(openRequest)
      ?? begin(parent.map { Found(key: $0, blockCount: depth) }, time: time).stamp
    let parts = Parts(stamp: stamp)
    var last = parent.flatMap(segments.find) ?? PathSegments.none
    let (end, knownCount) = segments.reach(keys, after: last)
    if knownCount > 0 {
      take(end, for: parts, time: time)
      last = end
      origins[origin(of: stamp)].repeatedDepth = depth + knownCount
    }
    origins[origin(of: stamp)].depth = depth + keys.count
    if knownCount < keys.count {
      append(keys.dropFirst(knownCount), after: last, parts)
    }
    classify(parts)
    evictShadow()
    return self.parts(stamp)
  }

  /// Hits a second that are expected of keeping blocks with this stamp.
  package mutating func density(_ stamp: UInt64, time: Int64) -> Double {
    guard stamp >= firstStamp, stamp - firstStamp < UInt64(uses.count) else { return 0 }
    let use = uses[Int(stamp - firstStamp)]
    return times.density(Int(use.reuseClass), ageMilliseconds: time - use.time)
  }

  /// As `density`, of blocks about whose use nothing is known but its age.
  package mutating func densityOfUnknown(ageMilliseconds: Int64) -> Double {
    let reuseClass = ReuseClass(.new, turn: 1, gapMilliseconds: nil, pathBlockCount: 0)
    return times.density(reuseClass.index, ageMilliseconds: ageMilliseconds)
  }

  /// The use that a block was used by last with which a path ended.
  package func stamp(ofEnd key: UInt64) -> UInt64? {
    guard let id = segments.find(key), segments[id].stamp >= firstStamp else { return nil }
    return segments[id].stamp
  }

  // MARK: Parts

  private func index(_ stamp: UInt64) -> Int { Int(stamp - firstStamp) }

  private func origin(of stamp: UInt64) -> Int { index(stamp) / Int(Self.stampsPerRequest) }

  private func parts(_ stamp: UInt64) -> Parts {
    var parts = Parts(stamp: stamp)
    let origin = origins[origin(of: stamp)]
    parts.repeatedCount = origin.repeatedDepth
    parts.lastCount = min(1, origin.depth - origin.repeatedDepth)
    parts.newCount = origin.depth - origin.repeatedDepth - parts.lastCount
    return parts
  }

  /// The first stamp of the request that ended with this block, and nothing came after it.
  private func openRequest(_ key: UInt64) -> UInt64? {
    guard let id = segments.find(key) else { return nil }
    let segment = segments[id]
    guard segment.stamp >= firstStamp else { return nil }
    let parts = Parts(
      stamp: segment.stamp - (segment.stamp - firstStamp) % Self.stampsPerRequest
    )
    if segment.stamp == parts.lastStamp, segment.childCount == 0 { return parts.stamp }
    let hasMore = self.parts(parts.stamp).lastCount > 0
    return segment.stamp == parts.repeatedStamp && !hasMore ? parts.stamp : nil
  }

  private mutating func classify(_ parts: Parts) {
    let origin = origins[origin(of: parts.stamp)]
    let now = self.parts(parts.stamp)
    let turn = origin.turn + 1
    let useCount = origin.useCount + 1
    let isOnlyKnown = now.newCount + now.lastCount == 0
    func reuseClass(_ part: ReuseClass.Part, turn: Int, gap: Int64?) -> ReuseClass {
      ReuseClass(part, turn: turn, gapMilliseconds: gap, pathBlockCount: origin.depth)
    }
    let classes = [
      (parts.lastStamp, reuseClass(.last, turn: turn, gap: origin.gap)),
      (parts.newStamp, reuseClass(.new, turn: turn, gap: origin.gap)),
      (
        parts.repeatedStamp,
        // A common head has no turns: how often it was used tells as much.
        reuseClass(
          .repeated,
          turn: max(turn, useCount),
          gap: turn == 1 ? origin.lastGap : origin.gap
        )
      ),
    ]
    for (stamp, reuseClass) in classes {
      uses[index(stamp)].reuseClass = UInt8(truncatingIfNeeded: reuseClass.index)
      uses[index(stamp)].turn = UInt32(clamping: turn)
    }
    uses[index(parts.lastStamp)].isEnd = now.newCount == 0
    uses[index(parts.newStamp)].isEnd = true
    uses[index(parts.repeatedStamp)].isEnd = isOnlyKnown
    uses[index(parts.repeatedStamp)].useCount = UInt32(clamping: useCount)
  }

  // MARK: Paths

  /// The segment that ends where a request turned off or ended.
  private mutating func segment(of found: Found) -> Int32 {
    if let id = segments.find(found.key) { return id }
    let known = segments.reach(found.path, after: PathSegments.none)
    let rest = found.path.dropFirst(known.blockCount)
    if found.path.isEmpty { return segments.insert(found.key, blockCount: found.blockCount) }
    return rest.isEmpty ? known.end : segments.insert(rest, after: known.end, stamp: 0)
  }

  /// Gives all blocks down to a segment's end to the repeated part of a request, and counts the parts that are used again.
  private mutating func take(_ end: Int32, for parts: Parts, time: Int64) {
    let path = segments.path(to: end)
    var next = 0
    while next < path.count {
      let stamp = segments[path[next]].stamp
      var blockCount = 0
      repeat {
        blockCount += Int(segments[path[next]].blockCount)
        next += 1
      } while next < path.count && segments[path[next]].stamp == stamp
      if stamp == parts.repeatedStamp { continue }
      if stamp >= firstStamp { cover(stamp, blockCount, for: parts, time: time) }
      uses[index(parts.repeatedStamp)].blockCount += UInt32(clamping: blockCount)
      shadow.add(blockCount, to: parts.repeatedStamp)
    }
    for id in path { segments[id].stamp = parts.repeatedStamp }
    var id = end
    while segments[id].parent != PathSegments.none {
      let parent = segments[id].parent
      if segments[parent].childCount == 1 { segments.mergeParent(of: id) } else { id = parent }
    }
  }

  /// Blocks of a use are used again.
  private mutating func cover(_ stamp: UInt64, _ count: Int, for parts: Parts, time: Int64) {
    let isOwn = stamp >= parts.stamp
    let use = uses[index(stamp)]
    let origin = origin(of: parts.stamp)
    recencyHitCount += shadow.take(count, from: stamp)
    uses[index(stamp)].blockCount -= min(use.blockCount, UInt32(clamping: count))
    if isOwn { return }
    origins[origin].useCount = Int(use.useCount)
    origins[origin].lastGap = time - use.time
    guard use.blockCount > 0, 10 * count >= Self.coveredTenths * Int(use.blockCount) else { return }
    reuseCount += 1
    times.add(
      Int(use.reuseClass),
      ageMilliseconds: time - use.time,
      coveredPart: Double(count) / Double(use.blockCount)
    )
    if use.isEnd {
      origins[origin].turn = Int(use.turn)
      origins[origin].gap = time - use.time
    }
    uses[index(stamp)].isEnd = false
    uses[index(stamp)].time = time
    let left = ReuseClass(
      .left,
      turn: Int(use.turn),
      gapMilliseconds: nil,
      pathBlockCount: 0
    )
    uses[index(stamp)].reuseClass = UInt8(truncatingIfNeeded: left.index)
  }

  /// New blocks: the very last one is a part of its own.
  private mutating func append(_ keys: ArraySlice<UInt64>, after end: Int32, _ parts: Parts) {
    guard let key = keys.last else { return }
    var parent = end
    var newKeys = Array(keys.dropLast())
    if end != PathSegments.none, segments[end].stamp == parts.lastStamp {
      // What was the last is not any more.
      newKeys.insert(segments[end].key, at: 0)
      parent = segments[end].parent
      segments.remove(end)
    } else {
      count(1, in: parts.lastStamp)
    }
    if parent != PathSegments.none, segments[parent].stamp == parts.newStamp {
      segments.extend(parent, by: newKeys[...])
    } else if !newKeys.isEmpty {
      parent = segments.insert(newKeys[...], after: parent, stamp: parts.newStamp)
    }
    count(newKeys.count, in: parts.newStamp)
    _ = segments.insert([key], after: parent, stamp: parts.lastStamp)
  }

  private mutating func count(_ blockCount: Int, in stamp: UInt64) {
    uses[index(stamp)].blockCount += UInt32(clamping: blockCount)
    shadow.add(blockCount, to: stamp)
  }

  // MARK: Upkeep

  private mutating func evictShadow() {
    guard let capacity else { return }
    shadow.evict(to: capacity, newest: firstStamp + UInt64(uses.count) - 1) { [uses, firstStamp] in
      $0 < firstStamp ? 0 : Int(uses[Int($0 - firstStamp)].blockCount)
    }
  }

  private mutating func update(time: Int64) {
    times.update(
      waiting: uses.lazy.filter { $0.blockCount > 0 }
        .map { (Int($0.reuseClass), time - $0.time) }
    )
  }

  /// Forgets the oldest quarter of all requests.
  private mutating func forget(time: Int64) {
    let requestCount = max(1, origins.count / 4)
    let count = requestCount * Int(Self.stampsPerRequest)
    for use in uses[..<count] where use.blockCount > 0 {
      times.add(Int(use.reuseClass), ageMilliseconds: time - use.time, coveredPart: nil)
    }
    shadow.forget(before: firstStamp + UInt64(count)) { [uses, firstStamp] in
      let index = $0 < firstStamp ? -1 : Int($0 - firstStamp)
      return uses.indices.contains(index) ? Int(uses[index].blockCount) : 0
    }
    uses.removeFirst(count)
    origins.removeFirst(requestCount)
    firstStamp += UInt64(count)
    segments.forget(before: firstStamp)
  }

  /// Bytes that all of it takes, about.
  package var byteCount: Int {
    segments.byteCount + uses.capacity * MemoryLayout<Use>.stride
      + origins.capacity * MemoryLayout<Origin>.stride
  }

  // MARK: Invariants

  /// What is wrong, one line each.
  func checkInvariants() -> [String] {
    let blockCount = uses.reduce(0) { $0 + Int($1.blockCount) }
    let isCounted = blockCount == segments.blockCount
    return segments.checkInvariants()
      + (isCounted ? [] : ["uses have \(blockCount) blocks, segments \(segments.blockCount)"])
  }
}
