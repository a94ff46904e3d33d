// Unsafe: a flat array of 8-byte slots managed by hand; a Dictionary would cost three to four times
// the memory and would own the keys that the nodes hold already.

/// An open-addressing hash table of nodes, keyed by something that the nodes themselves hold.
///
/// It stores 32 bits of hash and the node; whoever looks up compares the node. Linear probing,
/// removal by shifting back, a load between 1/8 and 3/4.
@safe struct NodeHashTable: ~Copyable {
  private struct Slot {
    var hash: UInt32
    var node: NodeID
    static let empty = Slot(hash: 0, node: .none)
  }

  private var slots: UnsafeMutablePointer<Slot>
  private var mask: Int
  private(set) var count = 0

  private static let capacityMin = 16

  init() {
    unsafe slots = Self.makeSlots(Self.capacityMin)
    mask = Self.capacityMin - 1
  }

  deinit { unsafe slots.deallocate() }

  var byteCount: Int { (mask + 1) * MemoryLayout<Slot>.stride }

  /// The first node with this hash that `matches`.
  func find(hash: UInt32, where matches: (NodeID) -> Bool) -> NodeID? {
    var index = Int(hash) & mask
    while true {
      let slot = unsafe slots[index]
      if slot.node == .none { return nil }
      if slot.hash == hash && matches(slot.node) { return slot.node }
      index = (index + 1) & mask
    }
  }

  mutating func insert(hash: UInt32, node: NodeID) {
    if (count + 1) * 4 > (mask + 1) * 3 { resize(capacity: (mask + 1) * 2) }
    place(Slot(hash: hash, node: node))
    count += 1
  }

  /// Removes the node; false if it is not there under this hash.
  @discardableResult
  mutating func remove(hash: UInt32, node: NodeID) -> Bool {
    var hole = Int(hash) & mask
    while unsafe slots[hole].node != node {
      if unsafe slots[hole].node == .none { return false }
      hole = (hole + 1) & mask
    }
    var index = hole
    while true {
      index = (index + 1) & mask
      let slot = unsafe slots[index]
      if slot.node == .none { break }
      // A slot may move back to the hole unless its home lies behind the hole.
      let distanceFromHome = (index &- Int(slot.hash)) & mask
      if distanceFromHome >= (index &- hole) & mask {
        unsafe slots[hole] = slot
        hole = index
      }
    }
    unsafe slots[hole] = .empty
    count -= 1
    if mask + 1 > Self.capacityMin && count * 8 < mask + 1 { resize(capacity: (mask + 1) / 2) }
    return true
  }

  private func place(_ slot: Slot) {
    var index = Int(slot.hash) & mask
    while unsafe slots[index].node != .none { index = (index + 1) & mask }
    unsafe slots[index] = slot
  }

  private mutating func resize(capacity: Int) {
    let old = unsafe slots
    let oldCapacity = mask + 1
    unsafe slots = Self.makeSlots(capacity)
    mask = capacity - 1
    for index in 0..<oldCapacity where unsafe old[index].node != .none {
      unsafe place(old[index])
    }
    unsafe old.deallocate()
  }

  private static func makeSlots(_ capacity: Int) -> UnsafeMutablePointer<Slot> {
    let slots = UnsafeMutablePointer<Slot>.allocate(capacity: capacity)
    unsafe slots.initialize(repeating: .empty, count: capacity)
    return unsafe slots
  }
}
