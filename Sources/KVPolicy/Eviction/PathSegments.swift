/// Which use each remembered block was used by last, resident or not: the paths of all requests, cut where the use changes.
///
/// ```
/// root ── [0 … 50) used by C ──┬── [50 … 200) used by A        of a segment's first and last block the keys are kept,
///                              └── [50 … 180) used by C        of each one two bytes
/// ```
/// A tree: its memory grows with requests and forks; a block is two bytes. A parent is never used before what hangs on it.
struct PathSegments {
  struct Segment {
    /// Of its last block.
    var key: UInt64
    /// Of its first block; nil = it is found as `next` of its parent, or not at all.
    var firstKey: UInt64?
    var stamp: UInt64
    var parent: Int32
    var childCount: Int32 = 0
    /// What came off its end when it was cut.
    var next = PathSegments.none
    /// Blocks from the root to its end.
    var depth: UInt32
    var blockCount: UInt32
    /// Two bytes of each block's key; empty where the keys are not known.
    var marks: [UInt16] = []
  }

  static let none: Int32 = -1
  private static let freed: Int32 = -1

  private var segments: [Segment] = []
  private var ends: [UInt64: Int32] = [:]
  private var starts: [UInt64: Int32] = [:]
  /// Linked by `parent`.
  private var firstFree = Self.none
  /// Of all segments.
  private(set) var blockCount = 0

  subscript(_ id: Int32) -> Segment {
    get { segments[Int(id)] }
    _modify { yield &segments[Int(id)] }
  }

  /// Bytes that all of it takes, about.
  var byteCount: Int {
    let entryByteCount = MemoryLayout<(UInt64, Int32)>.stride + 1
    return segments.capacity * MemoryLayout<Segment>.stride
      + (ends.capacity + starts.capacity) * entryByteCount * 4 / 3
      + segments.reduce(0) { $0 + ($1.marks.capacity == 0 ? 0 : 32 + 2 * $1.marks.capacity) }
  }

  // MARK: Paths

  /// The segment that ends with this block.
  func find(_ key: UInt64) -> Int32? { ends[key] }

  /// From the head down to this segment.
  func path(to end: Int32) -> [Int32] {
    var path: [Int32] = []
    var id = end
    while id != Self.none {
      path.append(id)
      id = self[id].parent
    }
    return path.reversed()
  }

  /// Follows a path from a segment's end on as far as it is known, and cuts the segment in which it turns off.
  ///
  /// Returns the segment that ends there, and how many blocks of the path are known.
  mutating func reach(
    _ keys: ArraySlice<UInt64>,
    after start: Int32
  ) -> (end: Int32, blockCount: Int) {
    var end = start
    var next = keys.startIndex
    while next < keys.endIndex {
      guard let id = child(of: end, keys[next]) else { break }
      let segment = segments[Int(id)]
      var count = 1
      let countMax = min(segment.marks.count, keys.endIndex - next)
      while count < countMax, segment.marks[count] == Self.mark(keys[next + count]) { count += 1 }
      next += count
      if count < Int(segment.blockCount) {
        return (split(id, at: keys[next - 1], count: count), next - keys.startIndex)
      }
      end = id
    }
    return (end, next - keys.startIndex)
  }

  private func child(of parent: Int32, _ key: UInt64) -> Int32? {
    if let id = starts[key], self[id].parent == parent { return id }
    guard parent != Self.none, self[parent].next != Self.none else { return nil }
    let next = self[parent].next
    return self[next].marks.first == Self.mark(key) ? next : nil
  }

  private static func mark(_ key: UInt64) -> UInt16 {
    // Fibonacci hashing (Knuth): the keys of traces are small numbers.
    UInt16(truncatingIfNeeded: (key &* 0x9E37_79B9_7F4A_7C15) >> 48)
  }

  // MARK: Changes

  /// Adds a segment below `parent`.
  mutating func insert(_ keys: ArraySlice<UInt64>, after parent: Int32, stamp: UInt64) -> Int32 {
    insert(
      firstKey: keys.first,
      key: keys.last ?? 0,
      blockCount: keys.count,
      marks: keys.map(Self.mark),
      after: parent,
      stamp: stamp
    )
  }

  /// Adds a segment of whose blocks only the last one's key is known.
  mutating func insert(_ key: UInt64, blockCount: Int) -> Int32 {
    insert(
      firstKey: nil,
      key: key,
      blockCount: blockCount,
      marks: [],
      after: Self.none,
      stamp: 0
    )
  }

  private mutating func insert(
    firstKey: UInt64?,
    key: UInt64,
    blockCount: Int,
    marks: [UInt16],
    after parent: Int32,
    stamp: UInt64
  ) -> Int32 {
    let above = parent == Self.none ? 0 : self[parent].depth
    let segment = Segment(
      key: key,
      firstKey: firstKey,
      stamp: stamp,
      parent: parent,
      depth: above &+ UInt32(clamping: blockCount),
      blockCount: UInt32(clamping: blockCount),
      marks: marks
    )
    self.blockCount += blockCount
    if parent != Self.none { self[parent].childCount += 1 }
    let id: Int32
    if firstFree == Self.none {
      id = Int32(truncatingIfNeeded: segments.count)
      segments.append(segment)
    } else {
      id = firstFree
      firstFree = self[id].parent
      self[id] = segment
    }
    ends[key] = id
    if let firstKey { starts[firstKey] = id }
    return id
  }

  /// Cuts a segment in two; returns the upper part, of `count` blocks, which ends with the block of this key.
  private mutating func split(_ lower: Int32, at key: UInt64, count: Int) -> Int32 {
    let former = self[lower]
    let upper = insert(
      firstKey: former.firstKey,
      key: key,
      blockCount: count,
      marks: Array(former.marks.prefix(count)),
      after: former.parent,
      stamp: former.stamp
    )
    if former.parent != Self.none {
      self[former.parent].childCount -= 1
      if self[former.parent].next == lower { self[former.parent].next = upper }
    }
    self[upper].childCount = 1
    self[upper].next = lower
    self[lower].parent = upper
    self[lower].firstKey = nil
    self[lower].blockCount -= UInt32(clamping: count)
    self[lower].marks.removeFirst(min(count, former.marks.count))
    blockCount -= count
    return upper
  }

  /// Adds blocks to the end of a segment on which nothing hangs.
  mutating func extend(_ id: Int32, by keys: ArraySlice<UInt64>) {
    guard let key = keys.last else { return }
    if ends[self[id].key] == id { ends[self[id].key] = nil }
    ends[key] = id
    self[id].key = key
    self[id].depth += UInt32(clamping: keys.count)
    self[id].blockCount += UInt32(clamping: keys.count)
    self[id].marks += keys.map(Self.mark)
    blockCount += keys.count
  }

  /// Gives the blocks of `parent`, on which nothing else hangs, to its child.
  mutating func mergeParent(of id: Int32) {
    let former = self[id].parent
    let parent = self[former]
    assert(parent.childCount == 1)
    self[id].blockCount += parent.blockCount
    self[id].marks =
      parent.marks.isEmpty || self[id].marks.isEmpty ? [] : parent.marks + self[id].marks
    if let firstKey = self[id].firstKey, starts[firstKey] == id { starts[firstKey] = nil }
    self[id].firstKey = parent.firstKey
    self[id].parent = parent.parent
    if parent.parent != Self.none, self[parent.parent].next == former {
      self[parent.parent].next = id
    }
    free(former)
    if let firstKey = parent.firstKey { starts[firstKey] = id }
  }

  /// Removes a segment on which nothing hangs.
  mutating func remove(_ id: Int32) {
    assert(self[id].childCount == 0)
    leaveParent(id)
    blockCount -= Int(self[id].blockCount)
    free(id)
  }

  /// Removes what was not used since `firstStamp`.
  mutating func forget(before firstStamp: UInt64) {
    for index in segments.indices
    where segments[index].childCount != Self.freed && segments[index].stamp < firstStamp {
      let id = Int32(truncatingIfNeeded: index)
      leaveParent(id)
      blockCount -= Int(self[id].blockCount)
      free(id)
    }
  }

  private mutating func leaveParent(_ id: Int32) {
    let parent = self[id].parent
    // A parent that is forgotten as well may be gone already.
    guard parent != Self.none, self[parent].childCount > 0 else { return }
    self[parent].childCount -= 1
    if self[parent].next == id { self[parent].next = Self.none }
  }

  private mutating func free(_ id: Int32) {
    if ends[self[id].key] == id { ends[self[id].key] = nil }
    if let firstKey = self[id].firstKey, starts[firstKey] == id { starts[firstKey] = nil }
    self[id].childCount = Self.freed
    self[id].next = Self.none
    self[id].marks = []
    self[id].parent = firstFree
    firstFree = id
  }

  // MARK: Invariants

  /// What is wrong, one line each.
  ///
  /// Where two blocks have the same mark, a block may be on two paths, and only the newer one is found by its key.
  func checkInvariants() -> [String] {
    var faults: [String] = []
    var childCounts = Array(repeating: Int32(0), count: segments.count)
    var blocks = 0
    let living = segments.indices.filter { segments[$0].childCount != Self.freed }
    for id in living {
      let segment = segments[id]
      if ends[segment.key] == nil { faults.append("segment \(id) is not found by its key") }
      let above = segment.parent == Self.none ? nil : self[segment.parent]
      if segment.parent != Self.none { childCounts[Int(segment.parent)] += 1 }
      if let above, above.childCount < 1 || above.stamp < segment.stamp {
        faults.append("segment \(id) hangs on one that is older, or gone")
      }
      if segment.depth != (above?.depth ?? 0) + segment.blockCount || segment.blockCount == 0 {
        faults.append("segment \(id) has \(segment.blockCount) blocks to depth \(segment.depth)")
      }
      if !segment.marks.isEmpty, segment.marks.count != segment.blockCount {
        faults.append("segment \(id) has \(segment.marks.count) of \(segment.blockCount) marks")
      }
      let isFound =
        segment.firstKey.map { starts[$0] != nil } ?? (above.map { $0.next == id } ?? true)
      if !isFound { faults.append("segment \(id) is not found by its first block") }
      blocks += Int(segment.blockCount)
    }
    for id in living where segments[id].childCount != childCounts[id] {
      faults.append("segment \(id) counts \(segments[id].childCount) below it")
    }
    if blocks != blockCount { faults.append("counts \(blockCount) blocks, has \(blocks)") }
    return faults
  }
}
