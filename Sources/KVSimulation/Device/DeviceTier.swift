internal import KVCore
internal import KVIndex
internal import KVTiers

// Unsafe: lends the ids of a request to the index by pointer.

/// The engine's own prefix cache in GPU memory: pool, block tables and reference counts as an engine has them, no bytes.
///
/// A request holds its whole block table, prompt and output, from its admission to its end; what nobody holds is cached and
/// leaves least recently used first.
final class DeviceTier {
  /// The slots of one request, each pinned once for it.
  struct BlockTable {
    fileprivate var shared: [Int] = []
    /// Of output, which no other request can use.
    fileprivate var own: [Int] = []
    /// Leading blocks that were there.
    var hitBlockCount = 0
  }

  let slotCount: Int
  private static let namespace = NamespaceID(rawValue: 1)
  private static let wordsPerBlock = 2
  private let index = PrefixIndex(fingerprintSeed: 0x6B76_7374_6F72_65)
  private var pool = SlotPool()
  private var order = PathEndOrder()
  private var nextStamp: UInt64 = 1
  private var segments: [IndexSegment] = []
  private(set) var evictedBlockCount = 0

  init(slotCount: Int) {
    self.slotCount = slotCount
    pool.addSegment(first: 0, count: slotCount)
    index.addNamespace(Self.namespace, wordsPerBlock: Self.wordsPerBlock)
  }

  /// Pins the request's blocks; nil while too few slots can be freed.
  func admit(_ request: TraceRequest, outputBlockCount: Int) -> BlockTable? {
    unsafe request.blockIDs.span.withUnsafeBytes { bytes in
      unsafe admit(
        words: bytes.baseAddress?.assumingMemoryBound(to: UInt32.self),
        request.blockIDs.count,
        outputBlockCount
      )
    }
  }

  private func admit(
    words: UnsafePointer<UInt32>?,
    _ blockCount: Int,
    _ outputBlockCount: Int
  ) -> BlockTable? {
    var table = BlockTable()
    var end = IndexLocation.root
    if let words = unsafe words {
      let match = unsafe index.match(
        Self.namespace,
        words: words,
        blockCount: blockCount,
        touch: false,
        segments: &segments
      )
      table.hitBlockCount = match.matchedBlockCount
      end = match.location
      for segment in segments {
        _ = index.withEntries(of: segment) { entries in
          for entry in 0..<entries.count { table.shared.append(Int(entries[entry].hostSlot)) }
        }
      }
    }
    let missingCount = blockCount - table.hitBlockCount
    for slot in table.shared { pool.pin(slot) }
    guard pool.freeCount + pool.cachedCount >= missingCount + outputBlockCount else {
      for slot in table.shared { pool.unpin(slot) }
      return nil
    }
    if !end.isRoot { stamp(end) }
    makeRoom(for: missingCount + outputBlockCount)
    let parent = end
    for block in table.hitBlockCount..<blockCount {
      guard let words = unsafe words, let slot = pool.allocateFree(),
        let added = unsafe index.append(
          Self.namespace,
          after: end,
          words: words + block * Self.wordsPerBlock,
          entry: IndexEntry(blockKey: BlockKey(high: 0, low: 0), hostSlot: Int32(slot))
        )
      else {
        assertionFailure("no room was made")
        break
      }
      table.shared.append(slot)
      if added.location.node != end.node, !end.isRoot { order.addChild(after: end) }
      end = added.location
    }
    if missingCount > 0, !end.isRoot {
      if !parent.isRoot { order.dropStamp(at: parent) }
      stamp(end)
    }
    for _ in 0..<outputBlockCount {
      if let slot = pool.allocateFree() { table.own.append(slot) }
    }
    return table
  }

  /// The request is over: its blocks are cached, its output's are free.
  func release(_ table: BlockTable) {
    for slot in table.shared { pool.unpin(slot) }
    for slot in table.own {
      pool.discard(slot)
      pool.unpin(slot)
    }
  }

  private func stamp(_ location: IndexLocation) {
    order.stamp(location, nextStamp, time: 0)
    nextStamp += 1
  }

  private func makeRoom(for blockCount: Int) {
    while pool.freeCount < blockCount {
      // A path that a request holds is held from its head on.
      let victim = order.oldest(in: index) { leaf in
        pool.isPinned(Int(index.entry(at: leaf)?.hostSlot ?? -1))
      }
      guard let victim else { return assertionFailure("fewer slots can be freed than counted") }
      evict(victim, blockCount - pool.freeCount)
    }
  }

  private func evict(_ victim: PathEndOrder.Victim, _ blockCount: Int) {
    var first = victim.leaf.local
    var count = 1
    while count < blockCount, first > victim.firstLocal {
      let above = IndexLocation(node: victim.leaf.node, local: first - 1)
      if pool.isPinned(Int(index.entry(at: above)?.hostSlot ?? -1)) { break }
      first -= 1
      count += 1
    }
    let head = IndexLocation(node: victim.leaf.node, local: first)
    let parent = index.parent(of: head) ?? .root
    index.truncate(at: head) { _, entry in pool.discard(Int(entry.hostSlot)) }
    order.remove(victim, from: first, parent: parent)
    evictedBlockCount += count
  }

  var pinnedSlotCount: Int { pool.pinnedCount }

  /// What is wrong with the bookkeeping, one line each.
  func checkInvariants() -> [String] { pool.checkInvariants() }
}
