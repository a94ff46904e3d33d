internal import KVCore

// Unsafe: nodes and their buffers are managed by hand, so that a match follows plain pointers
// without reference counting, and so that a block costs its own bytes and no object header.

/// A run of blocks without a fork inside it.
///
/// `storage` is one allocation: `capacity` entries, then `capacity × wordsPerBlock` words. The first
/// `publishedCount` blocks are rows of the catalog: block i is (`runID`, `firstPosition` + i). The
/// others are pending and have no run yet.
@safe struct Node {
  private(set) var storage: UnsafeMutableRawPointer?
  var runID: UInt64 = 0
  private(set) var count: UInt32 = 0
  private(set) var capacity: UInt32 = 0
  var publishedCount: UInt32 = 0
  var firstPosition: UInt32 = 0
  let namespaceID: UInt32
  /// The block that this node follows; node `.none` for the root.
  var parent: NodeID
  var parentLocal: UInt32
  // Children of a node, whatever block they follow, form a doubly linked list.
  var firstChild = NodeID.none
  var nextSibling = NodeID.none
  var previousSibling = NodeID.none
  /// The next node of the same run, by position.
  var nextInRun = NodeID.none
  // All nodes in order of use.
  var newer = NodeID.none
  var older = NodeID.none
  private let storedWordsPerBlock: UInt32
  /// Some block has extra bytes, which lie in a dictionary beside the tree.
  var hasExtra = false

  init(namespaceID: UInt32, wordsPerBlock: Int, parent: IndexLocation) {
    unsafe storage = nil
    self.namespaceID = namespaceID
    self.parent = parent.node
    self.parentLocal = parent.local
    storedWordsPerBlock = UInt32(truncatingIfNeeded: wordsPerBlock)
  }

  var wordsPerBlock: Int { Int(storedWordsPerBlock) }
  var parentLocation: IndexLocation { IndexLocation(node: parent, local: parentLocal) }
  var positionEnd: UInt64 { UInt64(firstPosition) + UInt64(publishedCount) }

  /// True if a block at this run and position would follow the node's last published block.
  func isContinued(by place: BlockPosition) -> Bool {
    publishedCount > 0 && runID == place.run.rawValue && positionEnd == UInt64(place.position)
  }

  /// Bytes of the buffer, with 16 for the allocator's header.
  var bufferByteCount: Int { capacity == 0 ? 0 : Int(capacity) * blockByteCount + 16 }
  private var blockByteCount: Int { MemoryLayout<IndexEntry>.stride + 4 * wordsPerBlock }

  /// `count` entries; valid until the node is resized or removed.
  var entries: UnsafeMutableBufferPointer<IndexEntry> {
    unsafe UnsafeMutableBufferPointer(
      start: storage?.assumingMemoryBound(to: IndexEntry.self),
      count: Int(count)
    )
  }

  func entry(at local: Int) -> IndexEntry {
    assert(local >= 0 && local < Int(count))
    return unsafe entries[local]
  }

  /// The words of the block at `local`, and of those behind it; valid as `entries` is.
  func words(at local: Int) -> UnsafeMutablePointer<UInt32> {
    assert(local <= Int(count) && capacity > 0)
    let byteOffset = Int(capacity) * MemoryLayout<IndexEntry>.stride + local * wordsPerBlock * 4
    return unsafe storage.unsafelyUnwrapped.advanced(by: byteOffset)
      .assumingMemoryBound(to: UInt32.self)
  }

  /// Adds one block behind the last.
  mutating func append(words newWords: UnsafePointer<UInt32>, entry: IndexEntry) {
    if count == capacity { resize(capacity: count == 0 ? 1 : count + max(2, count / 4)) }
    count += 1
    unsafe entries[Int(count) - 1] = entry
    unsafe words(at: Int(count) - 1).update(from: newWords, count: wordsPerBlock)
  }

  /// Adds blocks behind the last, whose words lie side by side; room is made exactly.
  mutating func append(
    words newWords: UnsafePointer<UInt32>,
    blockCount: Int,
    entry: (Int) -> IndexEntry
  ) {
    let oldCount = Int(count)
    if oldCount + blockCount > Int(capacity) {
      resize(capacity: UInt32(truncatingIfNeeded: oldCount + blockCount))
    }
    count += UInt32(truncatingIfNeeded: blockCount)
    let entries = unsafe entries
    for index in 0..<blockCount { unsafe entries[oldCount + index] = entry(index) }
    unsafe words(at: oldCount).update(from: newWords, count: blockCount * wordsPerBlock)
  }

  /// Copies all blocks of `other` from `local` on to the end; room is made exactly.
  mutating func append(from other: Node, at local: UInt32) {
    let more = other.count - local
    resize(capacity: count + more)
    let oldCount = Int(count)
    count += more
    for index in 0..<Int(more) {
      unsafe entries[oldCount + index] = other.entries[Int(local) + index]
    }
    unsafe words(at: oldCount).update(
      from: other.words(at: Int(local)),
      count: Int(more) * wordsPerBlock
    )
  }

  /// Drops the blocks from `local` on, and the room they took when it is much.
  mutating func truncate(to newCount: UInt32) {
    assert(newCount > 0 && newCount <= count)
    count = newCount
    publishedCount = min(publishedCount, newCount)
    if capacity > newCount + max(8, newCount / 4) { resize(capacity: newCount) }
  }

  mutating func freeBuffer() {
    unsafe storage?.deallocate()
    unsafe storage = nil
    count = 0
    capacity = 0
  }

  private mutating func resize(capacity newCapacity: UInt32) {
    assert(newCapacity >= count)
    let new = UnsafeMutableRawPointer.allocate(
      byteCount: Int(newCapacity) * blockByteCount,
      alignment: 8
    )
    if let old = unsafe storage {
      let entryByteCount = MemoryLayout<IndexEntry>.stride
      unsafe new.copyMemory(from: old, byteCount: Int(count) * entryByteCount)
      unsafe new.advanced(by: Int(newCapacity) * entryByteCount)
        .copyMemory(
          from: old.advanced(by: Int(capacity) * entryByteCount),
          byteCount: Int(count) * wordsPerBlock * 4
        )
      unsafe old.deallocate()
    }
    unsafe storage = new
    capacity = newCapacity
  }
}

/// All nodes, side by side, with a free list through `nextSibling`.
@safe struct NodeTable: ~Copyable {
  private var base: UnsafeMutablePointer<Node>
  private var capacity = 16
  /// Node ids in use or free: [0, slotCount).
  private(set) var slotCount = 0
  private(set) var liveCount = 0
  private var firstFree = NodeID.none

  init() { unsafe base = .allocate(capacity: 16) }

  deinit {
    for index in 0..<slotCount { unsafe base[index].freeBuffer() }
    unsafe base.deallocate()
  }

  var byteCount: Int { capacity * MemoryLayout<Node>.stride }

  /// The node must be live: callers check ids that come from outside with `isLive`.
  subscript(id: NodeID) -> Node {
    _read {
      assert(isLive(id))
      yield unsafe base[Int(id.rawValue)]
    }
    _modify {
      assert(isLive(id))
      yield unsafe &base[Int(id.rawValue)]
    }
  }

  func isLive(_ id: NodeID) -> Bool {
    unsafe Int(id.rawValue) < slotCount && base[Int(id.rawValue)].capacity > 0
  }

  /// Adds a node, which must have a block.
  mutating func insert(_ node: Node) -> NodeID {
    assert(node.count > 0)
    liveCount += 1
    if firstFree != .none {
      let id = firstFree
      firstFree = unsafe base[Int(id.rawValue)].nextSibling
      unsafe base[Int(id.rawValue)] = node
      return id
    }
    if slotCount == capacity { grow() }
    unsafe (base + slotCount).initialize(to: node)
    slotCount += 1
    return NodeID(rawValue: UInt32(truncatingIfNeeded: slotCount - 1))
  }

  mutating func remove(_ id: NodeID) {
    assert(isLive(id))
    unsafe base[Int(id.rawValue)].freeBuffer()
    unsafe base[Int(id.rawValue)].nextSibling = firstFree
    firstFree = id
    liveCount -= 1
  }

  private mutating func grow() {
    let newCapacity = capacity + capacity / 4
    let new = UnsafeMutablePointer<Node>.allocate(capacity: newCapacity)
    unsafe new.moveInitialize(from: base, count: slotCount)
    unsafe base.deallocate()
    unsafe base = new
    capacity = newCapacity
  }
}
