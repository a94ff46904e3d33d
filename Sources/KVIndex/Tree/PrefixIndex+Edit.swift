package import KVCore

// Unsafe: takes the caller's words and extra bytes as pointers, for the length the namespace says.

extension PrefixIndex {
  /// Adds one block after `parent`, a block of the namespace or the root.
  ///
  /// `words` are `wordsPerBlock` words; they and the extra bytes are copied. `place` is the block's
  /// row in the catalog, nil for a block that is not published yet. A pending block joins the node
  /// it follows, whatever that is; `assignPublished` splits the node if the runs differ.
  ///
  /// - Returns: where it is now, or where it was already; nil without such a namespace or parent.
  @discardableResult
  package func append(
    _ namespace: NamespaceID,
    after parent: IndexLocation,
    words: UnsafePointer<UInt32>,
    extra: UnsafeRawBufferPointer = unsafe UnsafeRawBufferPointer(start: nil, count: 0),
    entry: IndexEntry,
    at place: BlockPosition? = nil
  ) -> IndexAppendResult? {
    guard let state = namespaces[namespace],
      parent.isRoot || self.namespace(of: parent) == namespace
    else { return nil }
    if let known = unsafe findBlock(namespace, after: parent, words: words, extra: extra) {
      return IndexAppendResult(location: known, isNew: false)
    }
    let location: IndexLocation
    if extendsInPlace(parent, place) {
      let id = parent.node
      bufferByteCount -= nodes[id].bufferByteCount
      unsafe nodes[id].append(words: words, entry: entry)
      bufferByteCount += nodes[id].bufferByteCount
      if place != nil { nodes[id].publishedCount += 1 }
      location = IndexLocation(node: id, local: parent.local + 1)
      unsafe setExtraBytes(Array(extra), at: location)
    } else {
      var node = Node(
        namespaceID: namespace.rawValue,
        wordsPerBlock: state.wordsPerBlock,
        parent: parent
      )
      unsafe node.append(words: words, entry: entry)
      let id = nodes.insert(node)
      bufferByteCount += node.bufferByteCount
      location = IndexLocation(node: id, local: 0)
      // Before `attach`: the fingerprint covers the extra bytes.
      unsafe setExtraBytes(Array(extra), at: location)
      attach(id)
      linkUse(id, behind: parent.node)
      if let place { publishFirstBlock(of: id, as: place) }
    }
    blockCount += 1
    return IndexAppendResult(location: location, isNew: true)
  }

  /// Adds blocks that are not published yet, one after another; the first must not be there.
  ///
  /// As `append` for each of them, without extra bytes, at the cost of a run.
  ///
  /// - Parameters:
  ///   - namespace: A known one.
  ///   - parent: A block of the namespace, or the root.
  ///   - words: `blockCount × wordsPerBlock` words; they are copied.
  ///   - blockCount: At least 1.
  ///   - entry: The entry of each, by its number. It must not call the index.
  /// - Returns: The last one; nil without such a namespace or parent.
  package func append(
    _ namespace: NamespaceID,
    after parent: IndexLocation,
    words: UnsafePointer<UInt32>,
    blockCount: Int,
    entry: (Int) -> IndexEntry
  ) -> IndexLocation? {
    guard
      let first = unsafe append(namespace, after: parent, words: words, entry: entry(0))
    else { return nil }
    assert(first.isNew)
    let (id, local) = (first.location.node, first.location.local)
    guard blockCount > 1 else { return first.location }
    bufferByteCount -= nodes[id].bufferByteCount
    unsafe nodes[id].append(
      words: words + nodes[id].wordsPerBlock,
      blockCount: blockCount - 1,
      entry: { entry($0 + 1) }
    )
    bufferByteCount += nodes[id].bufferByteCount
    self.blockCount += blockCount - 1
    return IndexLocation(node: id, local: local + UInt32(truncatingIfNeeded: blockCount - 1))
  }

  /// Records that a block is published at this row; the node is split where runs do not continue.
  ///
  /// - Returns: the block's location, which a split has changed; nil if no block is here.
  @discardableResult
  package func assignPublished(
    _ location: IndexLocation,
    as place: BlockPosition,
    durablePlace: BlockPlace?
  ) -> IndexLocation? {
    guard contains(location) else { return nil }
    var location = location
    if position(of: location) != place {
      let node = nodes[location.node]
      if location.local > 0 && location.local == node.publishedCount && node.isContinued(by: place)
      {
        nodes[location.node].publishedCount += 1
      } else {
        if let lower = split(location.node, at: location.local) {
          location = IndexLocation(node: lower, local: 0)
        }
        if nodes[location.node].publishedCount > 0 {
          // The block had another row; the blocks behind it keep theirs.
          if nodes[location.node].publishedCount > 1 { split(location.node, at: 1) }
          unlinkRun(location.node)
        }
        publishFirstBlock(of: location.node, as: place)
      }
    }
    updateEntry(at: location) { entry in
      entry.flags.remove(.pending)
      if let durablePlace { entry.place = durablePlace }
    }
    return location
  }

  /// Cuts a node in two before its block `local`; the new, lower node is returned.
  ///
  /// Nil if nothing lies on one side of the cut. Moved blocks with a host slot are reported.
  @discardableResult
  package func split(_ id: NodeID, at local: UInt32) -> NodeID? {
    guard local > 0, contains(IndexLocation(node: id, local: local)) else { return nil }
    layoutVersion += 1
    let upper = nodes[id]
    var node = Node(
      namespaceID: upper.namespaceID,
      wordsPerBlock: upper.wordsPerBlock,
      parent: IndexLocation(node: id, local: local - 1)
    )
    node.append(from: upper, at: local)
    let lower = nodes.insert(node)
    let moved = children(of: id, from: local)
    for child in moved { detach(child) }
    bufferByteCount += node.bufferByteCount - upper.bufferByteCount
    nodes[id].truncate(to: local)
    bufferByteCount += nodes[id].bufferByteCount
    moveExtraBytes(of: id, from: local, count: node.count, to: lower)
    attach(lower)
    linkUse(lower, behind: id)
    for child in moved {
      nodes[child].parent = lower
      nodes[child].parentLocal -= local
      attach(child)
    }
    if upper.publishedCount > local {
      nodes[lower].publishedCount = upper.publishedCount - local
      nodes[lower].runID = upper.runID
      nodes[lower].firstPosition = upper.firstPosition &+ local
      linkRun(lower)
    }
    reportHostSlots(of: lower)
    return lower
  }

  // MARK: Removal

  /// Removes a block and everything below it, pending blocks included; each is reported, leaves first.
  package func truncate(
    at location: IndexLocation,
    onRemove: (IndexLocation, IndexEntry) -> Void = { _, _ in }
  ) {
    guard contains(location) else { return }
    layoutVersion += 1
    let id = location.node
    if location.local == 0 {
      removeSubtrees([id], onRemove: onRemove)
      return
    }
    removeSubtrees(children(of: id, from: location.local), onRemove: onRemove)
    let oldCount = nodes[id].count
    reportRemoval(of: id, from: location.local, onRemove)
    dropExtraBytes(of: id, from: location.local)
    bufferByteCount -= nodes[id].bufferByteCount
    nodes[id].truncate(to: location.local)
    bufferByteCount += nodes[id].bufferByteCount
    blockCount -= Int(oldCount - location.local)
  }

  /// Removes the blocks of a run from `position` on and everything below them, as `truncate(at:)`.
  package func truncate(
    _ namespace: NamespaceID,
    from place: BlockPosition,
    onRemove: (IndexLocation, IndexEntry) -> Void = { _, _ in }
  ) {
    while true {
      var id = firstNode(of: namespace, run: place.run)
      while id != .none && nodes[id].positionEnd <= UInt64(place.position) {
        id = nodes[id].nextInRun
      }
      if id == .none { return }
      let first = nodes[id].firstPosition
      let local = place.position > first ? place.position - first : 0
      truncate(at: IndexLocation(node: id, local: local), onRemove: onRemove)
    }
  }

  /// Removes nodes and all below them, without recursion: a chain may be as deep as a prompt is long.
  func removeSubtrees(_ roots: [NodeID], onRemove: (IndexLocation, IndexEntry) -> Void) {
    var order = roots
    var index = 0
    while index < order.count {
      order += children(of: order[index], from: 0)
      index += 1
    }
    // Parents come before their children in `order`.
    for id in order.reversed() {
      reportRemoval(of: id, from: 0, onRemove)
      removeLeaf(id)
    }
  }

  /// Removes a node without children.
  func removeLeaf(_ id: NodeID) {
    assert(nodes[id].firstChild == .none)
    layoutVersion += 1
    detach(id)
    unlinkUse(id)
    if nodes[id].publishedCount > 0 { unlinkRun(id) }
    dropExtraBytes(of: id, from: 0)
    blockCount -= Int(nodes[id].count)
    bufferByteCount -= nodes[id].bufferByteCount
    nodes.remove(id)
  }

  // MARK: Helpers

  private func findBlock(
    _ namespace: NamespaceID,
    after parent: IndexLocation,
    words: UnsafePointer<UInt32>,
    extra: UnsafeRawBufferPointer
  ) -> IndexLocation? {
    if !parent.isRoot {
      let next = IndexLocation(node: parent.node, local: parent.local + 1)
      if unsafe contains(next) && blockEquals(next, words: words, extra: extra) { return next }
    }
    guard let wordsPerBlock = namespaces[namespace]?.wordsPerBlock else { return nil }
    return unsafe findChild(namespace, after: parent, words: words, wordsPerBlock, extra: extra)
      .map { IndexLocation(node: $0, local: 0) }
  }

  /// A pending block extends any node whose last block it follows; a published one only its own run.
  private func extendsInPlace(_ parent: IndexLocation, _ place: BlockPosition?) -> Bool {
    guard !parent.isRoot, parent.local + 1 == nodes[parent.node].count else { return false }
    guard let place else { return true }
    let node = nodes[parent.node]
    return node.publishedCount == node.count && node.isContinued(by: place)
  }

  private func publishFirstBlock(of id: NodeID, as place: BlockPosition) {
    nodes[id].runID = place.run.rawValue
    nodes[id].firstPosition = place.position
    nodes[id].publishedCount = 1
    linkRun(id)
  }

  private func reportRemoval(
    of id: NodeID,
    from local: UInt32,
    _ onRemove: (IndexLocation, IndexEntry) -> Void
  ) {
    let node = nodes[id]
    for index in (Int(local)..<Int(node.count)).reversed() {
      let location = IndexLocation(node: id, local: UInt32(truncatingIfNeeded: index))
      onRemove(location, node.entry(at: index))
    }
  }

  private func reportHostSlots(of id: NodeID) {
    guard let onHostSlotMoved else { return }
    for index in 0..<Int(nodes[id].count) {
      let hostSlot = nodes[id].entry(at: index).hostSlot
      if hostSlot < 0 { continue }
      onHostSlotMoved(
        hostSlot,
        IndexLocation(node: id, local: UInt32(truncatingIfNeeded: index))
      )
    }
  }
}
