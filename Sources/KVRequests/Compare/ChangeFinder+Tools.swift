extension ChangeFinder {
  /// Tools are found again by their names.
  mutating func compareTools(_ oldRange: Range<Int>, _ newRange: Range<Int>) {
    guard !oldRange.isEmpty || !newRange.isEmpty else { return }
    let oldKeys = keys(old, oldRange)
    let newKeys = keys(new, newRange)
    let places = Dictionary(
      zip(oldKeys, oldRange).map { ($0, $1) },
      uniquingKeysWith: { first, _ in first }
    )
    let newSet = Set(newKeys)
    var gone = oldRange.filter { !newSet.contains(oldKeys[$0 - oldRange.lowerBound]) }
    var partners: [Int?] = newRange.map { places[newKeys[$0 - newRange.lowerBound]] }
    // A tool that was renamed: another name, and nearly the same beside it.
    for (offset, index) in newRange.enumerated() where partners[offset] == nil {
      // Comparing all with all is for a few.
      let candidates =
        gone.count * newRange.count > Self.pairCountMax
        ? []
        : gone.filter { oldIndex in
          TextSimilarity.value(
            old.prompt,
            old.parts[oldIndex].range,
            new.prompt,
            new.parts[index].range
          ) >= 0.8
        }
      if let renamed = candidates.first {
        partners[offset] = renamed
        gone.removeAll { $0 == renamed }
      }
    }
    compareToolOrder(newRange, partners)
    for (offset, index) in newRange.enumerated() {
      guard let partner = partners[offset] else { continue }
      if old.parts[partner].hash == new.parts[index].hash {
        kept.append(new.parts[index].range)
      } else {
        compareSchemas(old.parts[partner], new.parts[index])
      }
    }
    // New ones, side by side as one.
    var offset = 0
    while offset < partners.count {
      if partners[offset] == nil {
        let part = new.parts[newRange.lowerBound + offset]
        found.append(
          change(.toolsAdded, node: part.node, previousNode: nil, position: part.range.lowerBound)
        )
        while offset < partners.count, partners[offset] == nil { offset += 1 }
      } else {
        offset += 1
      }
    }
    addRemovedTools(gone, partners, newRange)
  }

  /// Where tools are missing: at the one that stands behind them now.
  private mutating func addRemovedTools(
    _ gone: [Int],
    _ partners: [Int?],
    _ newRange: Range<Int>
  ) {
    var previous: Int?
    for oldIndex in gone {
      defer { previous = oldIndex }
      // Side by side with the one before: one finding.
      if previous == oldIndex - 1 { continue }
      let behind = partners.firstIndex { ($0 ?? -1) > oldIndex }
      let node: Int
      let position: Int
      if let behind {
        node = new.parts[newRange.lowerBound + behind].node
        position = new.parts[newRange.lowerBound + behind].range.lowerBound
      } else {
        node = newRange.isEmpty ? new.body : new.parts[newRange.upperBound - 1].node
        position =
          newRange.isEmpty ? 0 : new.parts[newRange.upperBound - 1].range.upperBound
      }
      var change = self.change(
        .toolsRemoved,
        node: node,
        previousNode: old.parts[oldIndex].node,
        position: position
      )
      // An empty stretch: before the tool that stands there now, or behind the last one.
      let end = behind == nil && !newRange.isEmpty ? new.document.rawBytes(node).count : 0
      change.bytes = end..<end
      if newRange.isEmpty {
        // The list by its name, as it was.
        let path = old.path(old.parts[oldIndex].node)
        change.fixedPath = path.lastIndex(of: "[").map { String(path[..<$0]) } ?? path
      }
      found.append(change)
    }
  }

  /// Tools that both have, in another order.
  private mutating func compareToolOrder(_ newRange: Range<Int>, _ partners: [Int?]) {
    let common = partners.enumerated().compactMap { offset, partner in
      partner.map { (offset: offset, partner: $0) }
    }
    let sorted = common.map(\.partner).sorted()
    guard let first = zip(common, sorted).first(where: { $0.0.partner != $0.1 }) else { return }
    let part = new.parts[newRange.lowerBound + first.0.offset]
    found.append(
      change(
        .toolsReordered,
        node: part.node,
        previousNode: old.parts[first.0.partner].node,
        position: part.range.lowerBound
      )
    )
  }

  /// The name of each tool, told apart where one comes twice.
  private func keys(_ request: PromptRequest, _ range: Range<Int>) -> [String] {
    var counts: [String: Int] = [:]
    return range.map { index in
      let name = request.parts[index].name ?? "\(request.parts[index].hash)"
      let count = counts[name, default: 0]
      counts[name] = count + 1
      return count == 0 ? name : "\(name)\u{0}\(count)"
    }
  }

  /// One tool that is not the same: written differently, or another one.
  private mutating func compareSchemas(_ before: RequestPart, _ now: RequestPart) {
    let start = TextSimilarity.commonPrefix(
      old.prompt,
      before.range,
      new.prompt,
      now.range
    )
    keepText(before.range, now.range)
    compareTrees(before.node, now.node, now.range.lowerBound + start, .toolChanged)
  }

  /// Values that are no text: `kind` where something in them is another one.
  mutating func compareTrees(
    _ oldNode: Int,
    _ newNode: Int,
    _ position: Int,
    _ kind: RequestChange.Kind
  ) {
    let difference = new.document.difference(newNode, from: old.document, oldNode)
    if let first = difference.keyOrders.first {
      found.append(
        change(.keyOrder, node: first.node, previousNode: first.otherNode, position: position)
      )
    }
    if let first = difference.numbers.first {
      found.append(
        change(.numberFormat, node: first.node, previousNode: first.otherNode, position: position)
      )
    }
    for leaf in difference.leaves.prefix(16) {
      compareLeaves(leaf.otherNode, leaf.node, position, kind)
    }
  }

  private mutating func compareLeaves(
    _ oldNode: Int,
    _ newNode: Int,
    _ position: Int,
    _ kind: RequestChange.Kind
  ) {
    guard new.document.kind(newNode) == .string, old.document.kind(oldNode) == .string else {
      found.append(change(kind, node: newNode, previousNode: oldNode, position: position))
      return
    }
    let (before, now) = (old.fieldText(oldNode), new.fieldText(newNode))
    for hunk in TextChanges(before, 0..<before.count, now, 0..<now.count).hunks {
      var made = HunkKind.classify(hunk, before, 0..<before.count, now, 0..<now.count)
      if made.kind == .edited { made.kind = kind }
      found.append(
        change(
          made.kind,
          shape: made.shape,
          node: newNode,
          bytes: made.hunk.new,
          previousNode: oldNode,
          previousBytes: made.hunk.old,
          position: position
        )
      )
    }
  }

  /// Enters what two stretches of text have in common.
  mutating func keepText(_ oldRange: Range<Int>, _ newRange: Range<Int>) {
    var from = newRange.lowerBound
    for hunk in TextChanges(old.prompt, oldRange, new.prompt, newRange).hunks {
      if hunk.new.lowerBound > from { kept.append(from..<hunk.new.lowerBound) }
      from = hunk.new.upperBound
    }
    if from < newRange.upperBound { kept.append(from..<newRange.upperBound) }
  }
}
