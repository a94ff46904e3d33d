/// Bookkeeping of fixed-size slots: the one pool type of every tier in RAM.
///
/// As PagedAttention does for GPU memory (Kwon et al., SOSP 2023): memory is cut into equal slots, so that nothing
/// fragments and any free slot serves. A slot is *free*, *pinned* (reference count above 0), or *cached* (its contents are
/// good, and it goes when room is needed, least recently used first). Flat arrays and index links; no allocation for an operation.
/// Not thread-safe: its owner holds a lock.
package struct SlotPool {
  private enum Kind: UInt8 { case absent, free, pinned, cached }

  /// Links of the list that a slot is in, by index; -1 ends it.
  private struct Slot {
    var kind = Kind.absent
    var isDoomed = false
    var referenceCount: Int32 = 0
    var previous: Int32 = -1
    var next: Int32 = -1
  }

  /// A doubly linked list through the slots; the head is the oldest.
  private struct List {
    var head: Int32 = -1
    var tail: Int32 = -1
    var count = 0
  }

  private var slots: [Slot] = []
  private var free = List()
  private var cached = List()
  package private(set) var pinnedCount = 0

  package init() {}

  package var freeCount: Int { free.count }
  package var cachedCount: Int { cached.count }
  /// Slots of all segments.
  package var slotCount: Int { free.count + cached.count + pinnedCount }

  // MARK: Segments

  /// Adds slots `first ..< first + count`, all free.
  package mutating func addSegment(first: Int, count: Int) {
    if slots.count < first + count {
      slots += Array(repeating: Slot(), count: first + count - slots.count)
    }
    for index in first..<first + count {
      assert(slots[index].kind == .absent)
      append(index, as: .free)
    }
  }

  /// Takes a segment out unless one of its slots is pinned; returns the cached slots that went with it, or nil.
  package mutating func removeSegment(first: Int, count: Int) -> [Int]? {
    let range = first..<first + count
    guard !range.contains(where: { slots[$0].kind == .pinned }) else { return nil }
    var reclaimed: [Int] = []
    for index in range {
      if slots[index].kind == .cached { reclaimed.append(index) }
      unlink(index)
      slots[index] = Slot()
    }
    return reclaimed
  }

  // MARK: Slots

  /// A free slot, now pinned once.
  package mutating func allocateFree() -> Int? {
    free.head < 0 ? nil : pinFirst(Int(free.head))
  }

  /// The cached slot that was used longest ago, now pinned once; what it held is gone.
  package mutating func reclaimOldest() -> Int? {
    cached.head < 0 ? nil : pinFirst(Int(cached.head))
  }

  /// Holds a slot; a cached one keeps its contents.
  package mutating func pin(_ index: Int) {
    guard isPresent(index) else { return assertionFailure("pin of no slot") }
    if slots[index].kind != .pinned {
      unlink(index)
      slots[index].kind = .pinned
      pinnedCount += 1
    }
    slots[index].referenceCount += 1
  }

  /// Ends a pin; with the last one the slot is cached, or free if it was doomed.
  package mutating func unpin(_ index: Int) {
    guard isPresent(index), slots[index].kind == .pinned, slots[index].referenceCount > 0 else {
      return assertionFailure("unpin without a pin")
    }
    slots[index].referenceCount -= 1
    guard slots[index].referenceCount == 0 else { return }
    pinnedCount -= 1
    if slots[index].isDoomed {
      append(index, as: .free)
    } else {
      append(index, as: .cached)
    }
  }

  /// Its contents are of no more use: free now, or with its last unpin.
  package mutating func discard(_ index: Int) {
    guard isPresent(index) else { return assertionFailure("discard of no slot") }
    switch slots[index].kind {
    case .pinned: slots[index].isDoomed = true
    case .cached:
      unlink(index)
      append(index, as: .free)
    case .free, .absent: break
    }
  }

  package func referenceCount(_ index: Int) -> Int {
    isPresent(index) ? Int(slots[index].referenceCount) : 0
  }

  package func isPinned(_ index: Int) -> Bool { isPresent(index) && slots[index].kind == .pinned }

  // MARK: Lists

  private func isPresent(_ index: Int) -> Bool {
    slots.indices.contains(index) && slots[index].kind != .absent
  }

  private mutating func pinFirst(_ index: Int) -> Int {
    unlink(index)
    slots[index].kind = .pinned
    slots[index].isDoomed = false
    slots[index].referenceCount = 1
    pinnedCount += 1
    return index
  }

  private mutating func append(_ index: Int, as kind: Kind) {
    slots[index].kind = kind
    slots[index].isDoomed = false
    if kind == .free {
      Self.append(index, to: &free, of: &slots)
    } else {
      Self.append(index, to: &cached, of: &slots)
    }
  }

  /// Out of the list that it is in, if any.
  private mutating func unlink(_ index: Int) {
    switch slots[index].kind {
    case .free: Self.unlink(index, from: &free, of: &slots)
    case .cached: Self.unlink(index, from: &cached, of: &slots)
    case .pinned, .absent: break
    }
  }

  private static func append(_ index: Int, to list: inout List, of slots: inout [Slot]) {
    slots[index].previous = list.tail
    slots[index].next = -1
    if list.tail >= 0 {
      slots[Int(list.tail)].next = Int32(index)
    } else {
      list.head = Int32(index)
    }
    list.tail = Int32(index)
    list.count += 1
  }

  private static func unlink(_ index: Int, from list: inout List, of slots: inout [Slot]) {
    let (previous, next) = (slots[index].previous, slots[index].next)
    if previous >= 0 { slots[Int(previous)].next = next } else { list.head = next }
    if next >= 0 { slots[Int(next)].previous = previous } else { list.tail = previous }
    list.count -= 1
    slots[index].previous = -1
    slots[index].next = -1
  }

  // MARK: Invariants

  /// What is wrong with the bookkeeping, one line each; empty if nothing.
  package func checkInvariants() -> [String] {
    var faults: [String] = []
    for (name, list, kind) in [("free", free, Kind.free), ("cached", cached, Kind.cached)] {
      var count = 0
      var previous: Int32 = -1
      var index = list.head
      while index >= 0, count <= slots.count {
        let slot = slots[Int(index)]
        if slot.kind != kind { faults.append("\(name): slot \(index) is \(slot.kind)") }
        if slot.previous != previous { faults.append("\(name): slot \(index) is linked wrongly") }
        if slot.referenceCount != 0 { faults.append("\(name): slot \(index) has references") }
        previous = index
        index = slot.next
        count += 1
      }
      if count != list.count { faults.append("\(name): counts \(list.count), has \(count)") }
      if list.tail != previous { faults.append("\(name): wrong tail") }
    }
    let pinned = slots.filter { $0.kind == .pinned }
    if pinned.count != pinnedCount {
      faults.append("pinned: counts \(pinnedCount), has \(pinned.count)")
    }
    if pinned.contains(where: { $0.referenceCount <= 0 }) {
      faults.append("pinned without references")
    }
    return faults
  }
}
