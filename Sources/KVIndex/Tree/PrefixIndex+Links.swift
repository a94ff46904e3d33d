internal import KVCore

// The three ways nodes hang together besides the tree itself: siblings and the child table, the
// nodes of a run, and the order of use.

extension PrefixIndex {
  // MARK: Children

  /// Hangs a node, whose parent is set, under it.
  func attach(_ id: NodeID) {
    let node = nodes[id]
    let next = firstChild(of: node)
    setFirstChild(of: node, id)
    nodes[id].nextSibling = next
    nodes[id].previousSibling = .none
    if next != .none { nodes[next].previousSibling = id }
    children.insert(hash: fingerprint(ofFirstBlockOf: id), node: id)
  }

  func detach(_ id: NodeID) {
    let removed = children.remove(hash: fingerprint(ofFirstBlockOf: id), node: id)
    assert(removed)
    let node = nodes[id]
    if node.nextSibling != .none { nodes[node.nextSibling].previousSibling = node.previousSibling }
    if node.previousSibling != .none {
      nodes[node.previousSibling].nextSibling = node.nextSibling
    } else {
      setFirstChild(of: node, node.nextSibling)
    }
  }

  /// The children of a node that follow its block `local` or a later one.
  func children(of id: NodeID, from local: UInt32) -> [NodeID] {
    var found: [NodeID] = []
    var child = nodes[id].firstChild
    while child != .none {
      if nodes[child].parentLocal >= local { found.append(child) }
      child = nodes[child].nextSibling
    }
    return found
  }

  private func firstChild(of node: Node) -> NodeID {
    if node.parent != .none { return nodes[node.parent].firstChild }
    return namespaces[NamespaceID(rawValue: node.namespaceID)]?.firstChild ?? .none
  }

  private func setFirstChild(of node: Node, _ id: NodeID) {
    if node.parent != .none {
      nodes[node.parent].firstChild = id
    } else {
      namespaces[NamespaceID(rawValue: node.namespaceID)]?.firstChild = id
    }
  }

  // MARK: Runs

  func firstNode(of namespace: NamespaceID, run: RunID) -> NodeID {
    runs.find(hash: runHash(namespace.rawValue, run.rawValue)) { id in
      nodes[id].runID == run.rawValue && nodes[id].namespaceID == namespace.rawValue
    } ?? .none
  }

  /// Enters a published node into the list of its run, which is in order of position.
  func linkRun(_ id: NodeID) {
    let node = nodes[id]
    assert(node.publishedCount > 0)
    let hash = runHash(node.namespaceID, node.runID)
    var previous = NodeID.none
    var next = firstNode(
      of: NamespaceID(rawValue: node.namespaceID),
      run: RunID(rawValue: node.runID)
    )
    while next != .none && nodes[next].firstPosition < node.firstPosition {
      previous = next
      next = nodes[next].nextInRun
    }
    nodes[id].nextInRun = next
    if previous != .none {
      nodes[previous].nextInRun = id
    } else {
      if next != .none { runs.remove(hash: hash, node: next) }
      runs.insert(hash: hash, node: id)
    }
  }

  func unlinkRun(_ id: NodeID) {
    let node = nodes[id]
    let hash = runHash(node.namespaceID, node.runID)
    var previous = firstNode(
      of: NamespaceID(rawValue: node.namespaceID),
      run: RunID(rawValue: node.runID)
    )
    if previous == id {
      runs.remove(hash: hash, node: id)
      if node.nextInRun != .none { runs.insert(hash: hash, node: node.nextInRun) }
    } else {
      while previous != .none && nodes[previous].nextInRun != id {
        previous = nodes[previous].nextInRun
      }
      assert(previous != .none)
      if previous != .none { nodes[previous].nextInRun = node.nextInRun }
    }
    nodes[id].nextInRun = .none
  }

  private func runHash(_ namespaceID: UInt32, _ runID: UInt64) -> UInt32 {
    foldedFingerprint(mixed(mixed(fingerprintSeed, UInt64(namespaceID)), runID))
  }

  // MARK: Order of use

  // A node always stands nearer to `newest` than its children: the oldest node is a leaf.

  /// Marks the block's whole path as used: the deepest node first, so that parents stay newer.
  package func touch(_ location: IndexLocation) {
    guard contains(location) else { return }
    var id = location.node
    while id != .none {
      unlinkUse(id)
      linkUse(id, behind: .none)
      id = nodes[id].parent
    }
  }

  /// Puts a node right behind another, or at the newest end.
  func linkUse(_ id: NodeID, behind newer: NodeID) {
    let older = newer == .none ? newest : nodes[newer].older
    nodes[id].newer = newer
    nodes[id].older = older
    if newer == .none { newest = id } else { nodes[newer].older = id }
    if older == .none { oldest = id } else { nodes[older].newer = id }
  }

  func unlinkUse(_ id: NodeID) {
    let (newer, older) = (nodes[id].newer, nodes[id].older)
    if newer == .none { newest = older } else { nodes[newer].older = older }
    if older == .none { oldest = newer } else { nodes[older].newer = newer }
  }
}
