internal import KVIndex
internal import KVPolicy

/// The eviction order of the store, in RAM: one stamp for each path end.
///
/// The same rules as the catalog's table `stamps` (docs/file-format.md, "Stamps"): a block's recency is the largest
/// stamp in its subtree; victims are leaves, smallest stamp first, from the tail; a leaf that leaves hands the larger
/// of the two stamps to its parent; a stamp that is met at a block with something below it is dropped.
///
/// Each node of the index has *marks*, in order of position: the blocks with a stamp or with child nodes. Between two marks
/// all blocks have the recency of the lower one, so a request costs a few marks, not a step for each block.
struct PathEndOrder {
  struct Mark {
    var local: UInt32
    var childCount: UInt32 = 0
    /// 0 = none.
    var stamp: UInt64 = 0
    /// When the stamp was given; milliseconds.
    var time: Int64 = 0
  }

  /// Where a stamp was given; stale once the block there has another one.
  struct End: Comparable {
    var stamp: UInt64
    var location: IndexLocation
    static func < (a: Self, b: Self) -> Bool { a.stamp < b.stamp }
  }

  /// Blocks of one node that may go: those below the mark before, up to and with the leaf.
  struct Victim {
    var leaf: IndexLocation
    var firstLocal: UInt32
    var stamp: UInt64
    var time: Int64
  }

  private var marksOfNode: [[Mark]] = []
  private var heap = MinHeap<End>()
  private var stampCount = 0

  // MARK: Uses

  /// Gives a block a stamp, in place of an older one.
  mutating func stamp(_ location: IndexLocation, _ stamp: UInt64, time: Int64) {
    let (node, index) = mark(at: location)
    if marksOfNode[node][index].stamp == 0 { stampCount += 1 }
    marksOfNode[node][index].stamp = stamp
    marksOfNode[node][index].time = time
    heap.insert(End(stamp: stamp, location: location))
    // Stale ends are left in the heap until they outnumber the others.
    if heap.count > 4 * stampCount + 1024 {
      let marksOfNode = marksOfNode
      heap.compact { !Self.isCurrent($0, in: marksOfNode) }
    }
  }

  /// A node was hung under this block.
  mutating func addChild(after location: IndexLocation) {
    let (node, index) = mark(at: location)
    marksOfNode[node][index].childCount += 1
  }

  /// Something newer lies below this block now: its stamp says nothing any more.
  mutating func dropStamp(at location: IndexLocation) {
    let node = Int(location.node.rawValue)
    guard let index = existingMark(node, location.local) else { return }
    clearStamp(node, index)
  }

  // MARK: Victims

  /// The path end with the smallest stamp; nil when there is none.
  ///
  /// One whose leaf `isHeld` is passed over, and keeps its place.
  mutating func oldest(
    in index: PrefixIndex,
    isHeld: (IndexLocation) -> Bool = { _ in false }
  ) -> Victim? {
    var passed: [End] = []
    defer { for end in passed { heap.insert(end) } }
    while let end = heap.first {
      let node = Int(end.location.node.rawValue)
      guard Self.isCurrent(end, in: marksOfNode),
        let at = existingMark(node, end.location.local)
      else {
        _ = heap.removeFirst()
        continue
      }
      let mark = marksOfNode[node][at]
      let next = IndexLocation(node: end.location.node, local: end.location.local + 1)
      guard mark.childCount == 0, !index.contains(next) else {
        _ = heap.removeFirst()
        // A larger stamp lies below, for all smaller ones were met before; unless one was passed over.
        if passed.isEmpty { clearStamp(node, at) } else { passed.append(end) }
        continue
      }
      if isHeld(end.location) {
        _ = heap.removeFirst()
        passed.append(end)
        continue
      }
      return Victim(
        leaf: end.location,
        firstLocal: at > 0 ? marksOfNode[node][at - 1].local + 1 : 0,
        stamp: mark.stamp,
        time: mark.time
      )
    }
    return nil
  }

  /// The path end where this stamp was given; nil when it has another one by now, or something below it.
  func victim(at end: End, in index: PrefixIndex) -> Victim? {
    let node = Int(end.location.node.rawValue)
    let next = IndexLocation(node: end.location.node, local: end.location.local + 1)
    guard let at = existingMark(node, end.location.local), !index.contains(next) else { return nil }
    let mark = marksOfNode[node][at]
    guard mark.stamp == end.stamp, mark.childCount == 0 else { return nil }
    return Victim(
      leaf: end.location,
      firstLocal: at > 0 ? marksOfNode[node][at - 1].local + 1 : 0,
      stamp: mark.stamp,
      time: mark.time
    )
  }

  /// The stamp that a block has.
  func end(at location: IndexLocation) -> End? {
    let node = Int(location.node.rawValue)
    guard let at = existingMark(node, location.local), marksOfNode[node][at].stamp > 0 else {
      return nil
    }
    return End(stamp: marksOfNode[node][at].stamp, location: location)
  }

  /// All stamps that were given and not replaced, in no order.
  var stampedEnds: [End] {
    heap.elements.filter { Self.isCurrent($0, in: marksOfNode) }
  }

  /// Notes that the victim's blocks from `firstLocal` on are gone.
  ///
  /// - Parameters:
  ///   - victim: What `oldest` answered.
  ///   - firstLocal: Not before the victim's own.
  ///   - parent: The block before the node's first.
  mutating func remove(_ victim: Victim, from firstLocal: UInt32, parent: IndexLocation) {
    let node = Int(victim.leaf.node.rawValue)
    marksOfNode[node].removeLast()
    stampCount -= 1
    if firstLocal > 0 {
      let end = IndexLocation(node: victim.leaf.node, local: firstLocal - 1)
      handOver(victim, to: end)
    } else if !parent.isRoot {
      let (parentNode, index) = mark(at: parent)
      assert(marksOfNode[parentNode][index].childCount > 0)
      marksOfNode[parentNode][index].childCount -= 1
      if marksOfNode[parentNode][index].childCount == 0 { handOver(victim, to: parent) }
    }
  }

  /// The larger of its own and the victim's stamp stays with the block.
  private mutating func handOver(_ victim: Victim, to location: IndexLocation) {
    let (node, index) = mark(at: location)
    let mark = marksOfNode[node][index]
    if mark.childCount > 0 || mark.stamp > victim.stamp { return }
    stamp(location, victim.stamp, time: max(mark.time, victim.time))
  }

  // MARK: Marks

  /// The mark of a block, made if there is none.
  private mutating func mark(at location: IndexLocation) -> (node: Int, index: Int) {
    let node = Int(location.node.rawValue)
    while marksOfNode.count <= node { marksOfNode.append([]) }
    let index = Self.lowerBound(marksOfNode[node], location.local)
    if index == marksOfNode[node].count || marksOfNode[node][index].local != location.local {
      marksOfNode[node].insert(Mark(local: location.local), at: index)
    }
    return (node, index)
  }

  private func existingMark(_ node: Int, _ local: UInt32) -> Int? {
    node < marksOfNode.count ? Self.find(local, in: marksOfNode[node]) : nil
  }

  private mutating func clearStamp(_ node: Int, _ index: Int) {
    if marksOfNode[node][index].stamp != 0 { stampCount -= 1 }
    marksOfNode[node][index].stamp = 0
    if marksOfNode[node][index].childCount == 0 { marksOfNode[node].remove(at: index) }
  }

  /// Index of the first mark at `local` or behind it.
  private static func lowerBound(_ marks: [Mark], _ local: UInt32) -> Int {
    var low = 0
    var high = marks.count
    while low < high {
      let middle = (low + high) / 2
      if marks[middle].local < local { low = middle + 1 } else { high = middle }
    }
    return low
  }

  private static func find(_ local: UInt32, in marks: [Mark]) -> Int? {
    let index = lowerBound(marks, local)
    return index < marks.count && marks[index].local == local ? index : nil
  }

  private static func isCurrent(_ end: End, in marksOfNode: [[Mark]]) -> Bool {
    let marks = marksOfNode[Int(end.location.node.rawValue)]
    return find(end.location.local, in: marks).map { marks[$0].stamp == end.stamp } ?? false
  }

  // MARK: Invariants

  /// What is wrong, one line each: every leaf of the index must have a stamp.
  func checkInvariants(leaves: [IndexLocation]) -> [String] {
    var faults: [String] = []
    for leaf in leaves {
      let found = existingMark(Int(leaf.node.rawValue), leaf.local)
      let stamp = found.map { marksOfNode[Int(leaf.node.rawValue)][$0].stamp } ?? 0
      if stamp == 0 { faults.append("the leaf \(leaf) has no stamp") }
    }
    let count = marksOfNode.reduce(0) { $0 + $1.count { $0.stamp != 0 } }
    if count != stampCount { faults.append("counts \(stampCount) stamps, has \(count)") }
    return faults
  }
}
