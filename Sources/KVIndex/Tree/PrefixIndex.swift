package import KVCore

// Unsafe: lends entries and words where they lie, as spans over a range that was checked first.

/// The prefix index: a path-compressed radix tree over blocks, one root for each namespace.
///
/// ```
/// namespace root ── node 0 [b0 b1 b2 b3 b4 b5]          a node is a run of blocks
///                             └─ node 1 [c0 c1]         a child follows one block of its parent
/// ```
/// A node's words lie side by side and are compared as memory; the child of a block is found in one
/// hash table for the whole index. It is a cache over the catalog: whatever is in it may be dropped
/// (`trim`), except what the store holds on to (pending blocks, blocks with a host slot).
///
/// Not thread-safe: the store guards it with its lock.
package final class PrefixIndex {
  struct NamespaceState {
    let wordsPerBlock: Int
    /// Head of the list of nodes under the root.
    var firstChild = NodeID.none
  }

  var namespaces: [NamespaceID: NamespaceState] = [:]
  var nodes = NodeTable()
  /// Children by parent location and words of their first block.
  var children = NodeHashTable()
  /// First node of each run, by namespace and run.
  var runs = NodeHashTable()
  /// Extra bytes of the few blocks that have some.
  var extraBytes: [IndexLocation: [UInt8]] = [:]
  var newest = NodeID.none
  var oldest = NodeID.none

  /// Counts splits and removals: as long as it stays, every location is the same block's.
  package internal(set) var layoutVersion: UInt64 = 0

  var blockCount = 0
  var bufferByteCount = 0
  var extraByteCount = 0

  /// Random for each index, so that nobody can send prompts whose fingerprints collide.
  let fingerprintSeed: UInt64
  let fingerprintMask: UInt32

  /// Called when a block with a host slot gets a new location.
  ///
  /// It must not call the index.
  package var onHostSlotMoved: ((_ hostSlot: Int32, _ location: IndexLocation) -> Void)?

  /// An empty index.
  ///
  /// Tests narrow the fingerprints to force collisions.
  package init(fingerprintBitCount: Int = 32, fingerprintSeed: UInt64 = .random(in: 0 ... .max)) {
    fingerprintMask = fingerprintBitCount >= 32 ? .max : (1 << UInt32(fingerprintBitCount)) - 1
    self.fingerprintSeed = fingerprintSeed
  }

  package var statistics: IndexStatistics {
    IndexStatistics(nodeCount: nodes.liveCount, blockCount: blockCount, byteCount: byteCount)
  }

  var byteCount: Int {
    nodes.byteCount + bufferByteCount + extraByteCount + children.byteCount + runs.byteCount
  }

  // MARK: Namespaces

  /// Makes a namespace known; false if it is known with other words or the count is not positive.
  @discardableResult
  package func addNamespace(_ namespace: NamespaceID, wordsPerBlock: Int) -> Bool {
    guard wordsPerBlock > 0, wordsPerBlock <= Int(Int32.max) else { return false }
    if let known = namespaces[namespace] { return known.wordsPerBlock == wordsPerBlock }
    namespaces[namespace] = NamespaceState(wordsPerBlock: wordsPerBlock)
    return true
  }

  /// Forgets a namespace and all its blocks; each is reported, leaves first.
  package func removeNamespace(
    _ namespace: NamespaceID,
    onRemove: (IndexLocation, IndexEntry) -> Void = { _, _ in }
  ) {
    guard let state = namespaces[namespace] else { return }
    var roots: [NodeID] = []
    var child = state.firstChild
    while child != .none {
      roots.append(child)
      child = nodes[child].nextSibling
    }
    removeSubtrees(roots, onRemove: onRemove)
    namespaces[namespace] = nil
  }

  /// Whether it holds no block of a namespace.
  package func isEmpty(_ namespace: NamespaceID) -> Bool {
    firstChild(of: namespace) == NodeID.none
  }

  private func firstChild(of namespace: NamespaceID) -> NodeID {
    namespaces[namespace]?.firstChild ?? NodeID.none
  }

  /// Whether it holds a block of a namespace that is not published yet.
  package func hasPending(_ namespace: NamespaceID) -> Bool {
    var waiting = [firstChild(of: namespace)]
    while let next = waiting.popLast() {
      guard next != NodeID.none else { continue }
      let node = nodes[next]
      if node.publishedCount < node.count { return true }
      waiting.append(node.nextSibling)
      waiting.append(node.firstChild)
    }
    return false
  }

  package func wordsPerBlock(of namespace: NamespaceID) -> Int? {
    namespaces[namespace]?.wordsPerBlock
  }

  // MARK: Blocks

  /// True if a block is at this location (the root is no block).
  package func contains(_ location: IndexLocation) -> Bool {
    nodes.isLive(location.node) && location.local < nodes[location.node].count
  }

  func contains(_ segment: IndexSegment) -> Bool {
    nodes.isLive(segment.node)
      && UInt64(segment.firstLocal) + UInt64(segment.blockCount)
        <= UInt64(nodes[segment.node].count)
  }

  package func namespace(of location: IndexLocation) -> NamespaceID? {
    contains(location) ? NamespaceID(rawValue: nodes[location.node].namespaceID) : nil
  }

  /// The block before this one; the root before a first block; nil if no block is here.
  package func parent(of location: IndexLocation) -> IndexLocation? {
    guard contains(location) else { return nil }
    if location.local > 0 { return IndexLocation(node: location.node, local: location.local - 1) }
    return nodes[location.node].parentLocation
  }

  /// Run and position of a published block; nil for a pending one.
  package func position(of location: IndexLocation) -> BlockPosition? {
    guard contains(location) else { return nil }
    let node = nodes[location.node]
    guard location.local < node.publishedCount else { return nil }
    return BlockPosition(
      run: RunID(rawValue: node.runID),
      position: node.firstPosition &+ location.local
    )
  }

  /// Where the block of this row of the catalog is, if the index has it.
  package func locate(_ namespace: NamespaceID, _ place: BlockPosition) -> IndexLocation? {
    var id = firstNode(of: namespace, run: place.run)
    while id != .none {
      let node = nodes[id]
      if place.position >= node.firstPosition && UInt64(place.position) < node.positionEnd {
        return IndexLocation(node: id, local: place.position - node.firstPosition)
      }
      id = node.nextInRun
    }
    return nil
  }

  /// Fills `segments` with the chain from the namespace's first block down to this one.
  package func path(to location: IndexLocation, into segments: inout [IndexSegment]) {
    segments.removeAll(keepingCapacity: true)
    var location = location
    while contains(location) {
      segments.append(
        IndexSegment(node: location.node, firstLocal: 0, blockCount: location.local + 1)
      )
      location = nodes[location.node].parentLocation
    }
    segments.reverse()
  }

  // MARK: What a block carries

  package func blockKey(at location: IndexLocation) -> BlockKey? { entry(at: location)?.blockKey }

  package func entry(at location: IndexLocation) -> IndexEntry? {
    guard contains(location) else { return nil }
    return nodes[location.node].entry(at: Int(location.local))
  }

  /// Changes an entry in place; nil if no block is here.
  @discardableResult
  package func updateEntry<R>(
    at location: IndexLocation,
    _ body: (inout IndexEntry) -> R
  ) -> R? {
    guard contains(location) else { return nil }
    let entries = unsafe nodes[location.node].entries
    return unsafe body(&entries[Int(location.local)])
  }

  /// Lends the entries of a segment to read and change; nil if it is not wholly there.
  ///
  /// `body` must not call the index.
  package func withEntries<R>(
    of segment: IndexSegment,
    _ body: (inout MutableSpan<IndexEntry>) -> R
  ) -> R? {
    guard contains(segment) else { return nil }
    let first = Int(segment.firstLocal)
    let entries = unsafe nodes[segment.node].entries
    let lent = unsafe UnsafeMutableBufferPointer(
      rebasing: entries[first..<first + Int(segment.blockCount)]
    )
    var span = unsafe lent.mutableSpan
    return body(&span)
  }

  /// Lends the words of a segment, `wordsPerBlock` for each block; nil if it is not wholly there.
  ///
  /// `body` must not call the index.
  package func withWords<R>(of segment: IndexSegment, _ body: (Span<UInt32>) -> R) -> R? {
    guard contains(segment) else { return nil }
    let words = unsafe UnsafeBufferPointer(
      start: UnsafePointer(nodes[segment.node].words(at: Int(segment.firstLocal))),
      count: Int(segment.blockCount) * nodes[segment.node].wordsPerBlock
    )
    return unsafe body(words.span)
  }

  /// The extra bytes of a block; empty for most.
  package func extraBytes(at location: IndexLocation) -> [UInt8] {
    guard contains(location), nodes[location.node].hasExtra else { return [] }
    return extraBytes[location] ?? []
  }
}
