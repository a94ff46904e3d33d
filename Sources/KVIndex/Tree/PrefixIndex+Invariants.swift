internal import KVCore

extension PrefixIndex {
  /// What is wrong with the structure, one line each; empty if nothing.
  ///
  /// O(size of the index).
  package func checkInvariants() -> [String] {
    var faults: [String] = []
    let live = (0..<UInt32(truncatingIfNeeded: nodes.slotCount)).map { NodeID(rawValue: $0) }
      .filter { nodes.isLive($0) }
    check(live.count == nodes.liveCount, "live nodes are miscounted", &faults)
    for id in live { checkNode(id, &faults) }
    checkSiblings(live, &faults)
    checkRuns(live, &faults)
    checkUseOrder(live, &faults)
    checkExtraBytes(&faults)
    check(
      live.reduce(0) { $0 + Int(nodes[$1].count) } == blockCount,
      "blocks are miscounted",
      &faults
    )
    check(
      live.reduce(0) { $0 + nodes[$1].bufferByteCount } == bufferByteCount,
      "buffer bytes are miscounted",
      &faults
    )
    return faults
  }

  private func check(_ holds: Bool, _ fault: @autoclosure () -> String, _ faults: inout [String]) {
    if !holds { faults.append(fault()) }
  }

  private func checkNode(_ id: NodeID, _ faults: inout [String]) {
    let node = nodes[id]
    let name = "node \(id.rawValue)"
    let namespace = NamespaceID(rawValue: node.namespaceID)
    check(node.count > 0 && node.count <= node.capacity, "\(name): bad count", &faults)
    check(node.publishedCount <= node.count, "\(name): too many published", &faults)
    check(
      namespaces[namespace]?.wordsPerBlock == node.wordsPerBlock,
      "\(name): bad namespace",
      &faults
    )
    guard node.parent == .none || contains(node.parentLocation) else {
      faults.append("\(name): no parent")
      return
    }
    let extra = extraBytes(at: IndexLocation(node: id, local: 0))
    unsafe extra.span.withUnsafeBytes { bytes in
      let words = unsafe UnsafePointer(node.words(at: 0))
      // Finds a duplicate as well: then one of the two is not found.
      check(
        unsafe findChild(
          namespace,
          after: node.parentLocation,
          words: words,
          node.wordsPerBlock,
          extra: bytes
        ) == id,
        "\(name): not found under its parent",
        &faults
      )
      if node.parent == .none { return }
      check(nodes[node.parent].namespaceID == node.namespaceID, "\(name): foreign", &faults)
      let next = IndexLocation(node: node.parent, local: node.parentLocal + 1)
      check(
        unsafe !(contains(next) && blockEquals(next, words: words, extra: bytes)),
        "\(name): repeats a block of its parent",
        &faults
      )
    }
  }

  private func checkSiblings(_ live: [NodeID], _ faults: inout [String]) {
    var seen = Set<NodeID>()
    func walk(_ first: NodeID, _ parent: NodeID, _ namespace: UInt32) {
      var previous = NodeID.none
      var id = first
      while id != .none && seen.count <= live.count {
        guard nodes.isLive(id) else {
          faults.append("node \(id.rawValue): a dead child")
          return
        }
        check(
          nodes[id].parent == parent && nodes[id].previousSibling == previous
            && nodes[id].namespaceID == namespace,
          "node \(id.rawValue): bad sibling links",
          &faults
        )
        seen.insert(id)
        previous = id
        id = nodes[id].nextSibling
      }
    }
    for (namespace, state) in namespaces { walk(state.firstChild, .none, namespace.rawValue) }
    for id in live { walk(nodes[id].firstChild, id, nodes[id].namespaceID) }
    check(seen.count == live.count, "nodes hang under no parent", &faults)
    check(children.count == live.count, "the child table is miscounted", &faults)
  }

  private func checkRuns(_ live: [NodeID], _ faults: inout [String]) {
    var linkedCount = 0
    var runCount = 0
    for id in live where nodes[id].publishedCount > 0 {
      let namespace = NamespaceID(rawValue: nodes[id].namespaceID)
      if firstNode(of: namespace, run: RunID(rawValue: nodes[id].runID)) != id { continue }
      runCount += 1
      var member = id
      var end: UInt64 = 0
      while member != .none && linkedCount <= live.count {
        let node = nodes[member]
        check(
          node.publishedCount > 0 && node.runID == nodes[id].runID
            && node.namespaceID == namespace.rawValue && UInt64(node.firstPosition) >= end,
          "node \(member.rawValue): bad run links",
          &faults
        )
        end = node.positionEnd
        linkedCount += 1
        member = node.nextInRun
      }
    }
    check(
      live.count { nodes[$0].publishedCount > 0 } == linkedCount,
      "nodes miss in their run",
      &faults
    )
    check(runs.count == runCount, "the run table is miscounted", &faults)
  }

  private func checkUseOrder(_ live: [NodeID], _ faults: inout [String]) {
    var seen = Set<NodeID>()
    var newer = NodeID.none
    var id = newest
    while id != .none && seen.count <= live.count {
      check(nodes[id].newer == newer, "node \(id.rawValue): bad use links", &faults)
      check(
        nodes[id].parent == .none || seen.contains(nodes[id].parent),
        "node \(id.rawValue): newer than its parent",
        &faults
      )
      seen.insert(id)
      newer = id
      id = nodes[id].older
    }
    check(oldest == newer && seen.count == live.count, "the order of use has gaps", &faults)
  }

  private func checkExtraBytes(_ faults: inout [String]) {
    for location in extraBytes.keys {
      check(
        contains(location) && nodes[location.node].hasExtra,
        "node \(location.node.rawValue): stray extra bytes",
        &faults
      )
    }
    check(countedExtraByteCount == extraByteCount, "extra bytes are miscounted", &faults)
  }
}
