internal import KVCatalog
public import KVCore
internal import KVStore

extension StoreInspector {
  /// A run that is to be read.
  private struct Step {
    var run: RunID
    var parent: BlockPosition
    var depth: Int
    var blockDepth: Int
    /// The earliest absolute end of the blocks above it, with which it ends; `.max` = none has one.
    var end: UInt64
  }

  /// Where others begin behind a run's blocks.
  private struct Fork {
    var position: UInt32
    var end: UInt64
  }

  /// The runs of a namespace's tree, parents before children, at most `limit` of them.
  ///
  /// The tree may change between two of its runs: each is read in a transaction of its own.
  public func tree(of namespace: NamespaceID, limit: Int) throws(StoreError) -> [Run] {
    var runs: [Run] = []
    let tops = try childRuns(of: namespace, after: .root, limit: limit)
    try walk(
      namespace,
      tops.map { Step(run: $0, parent: .root, depth: 0, blockDepth: 0, end: .max) },
      limit,
      into: &runs
    )
    return runs
  }

  /// The runs on the path down to a block, and those that hang below it, parents before children, at most `limit` of them.
  ///
  /// Empty when the block's run has left.
  public func tree(
    of namespace: NamespaceID,
    around head: BlockPosition,
    limit: Int
  ) throws(StoreError) -> [Run] {
    var path: [BlockPosition] = [head]
    while let first = path.first {
      let parent = try core.catalogRead { (transaction) throws(CatalogError) in
        try transaction.parent(namespace, BlockPosition(run: first.run, position: 0))
      }
      guard let parent else { return [] }
      // A parent is older than its child, so this ends.
      guard parent != .root, parent.run < first.run else { break }
      path.insert(parent, at: 0)
    }
    var runs: [Run] = []
    var next = Step(run: path[0].run, parent: .root, depth: 0, blockDepth: 0, end: .max)
    for (index, at) in path.enumerated() {
      guard runs.count < limit, let (run, forks) = try readRun(namespace, next) else { break }
      runs.append(run)
      guard index == path.count - 1 else {
        next = Step(
          run: path[index + 1].run,
          parent: at,
          depth: next.depth + 1,
          blockDepth: next.blockDepth + Int(at.position) + 1,
          end: forks.first { $0.position == at.position }?.end ?? next.end
        )
        continue
      }
      let below = forks.filter { $0.position >= head.position }
      try walk(namespace, try steps(namespace, below, of: next, limit), limit, into: &runs)
    }
    return runs
  }

  private func walk(
    _ namespace: NamespaceID,
    _ tops: [Step],
    _ limit: Int,
    into runs: inout [Run]
  ) throws(StoreError) {
    var waiting = Array(tops.reversed())
    while runs.count < limit, let next = waiting.popLast() {
      guard let (run, forks) = try readRun(namespace, next) else { continue }
      runs.append(run)
      waiting += try steps(namespace, forks, of: next, limit).reversed()
    }
  }

  /// The runs that begin behind a run's blocks.
  private func steps(
    _ namespace: NamespaceID,
    _ forks: [Fork],
    of run: Step,
    _ limit: Int
  ) throws(StoreError) -> [Step] {
    var steps: [Step] = []
    for fork in forks {
      let after = BlockPosition(run: run.run, position: fork.position)
      for child in try childRuns(of: namespace, after: after, limit: limit) {
        steps.append(
          Step(
            run: child,
            parent: after,
            depth: run.depth + 1,
            blockDepth: run.blockDepth + Int(fork.position) + 1,
            end: fork.end
          )
        )
      }
    }
    return steps
  }

  /// A run in pieces of 1,000 rows, and the positions in it where others begin.
  private func readRun(
    _ namespace: NamespaceID,
    _ step: Step
  ) throws(StoreError) -> (Run, forks: [Fork])? {
    let run = step.run
    var summary: Run?
    var forks: [Fork] = []
    var newestStamp: UInt64?
    var next: UInt32 = 0
    var absoluteEnd = step.end
    var isMore = true
    while isMore {
      isMore = try core.catalogRead { (transaction) throws(CatalogError) in
        var count = 0
        var end: UInt32?
        var absoluteEnds: [UInt64] = []
        let deadlines = try transaction.runDeadlines(
          namespace,
          run,
          from: next,
          now: core.time.now()
        )
        try transaction.forEachRow(namespace, run, from: next) { position, row in
          count += 1
          end = position
          if summary == nil { summary = Run(step.run, step.parent, step.depth, step.blockDepth) }
          if let row {
            let isFirst = summary?.blockCount == 0
            summary?.add(
              row.blockKey,
              payloadByteCount: Int(row.payloadByteCount),
              createdSeconds: row.createdSeconds,
              isArchived: row.place.tier == .archive,
              words: isFirst ? row.wordArray : nil
            )
            let isIdle = row.flags.contains(.idleExpiry)
            if row.expiry != 0, !isIdle { absoluteEnd = min(absoluteEnd, row.expiry) }
            let own = row.expiry != 0 && isIdle ? deadlines.deadline(at: position) : UInt64.max
            summary?.addEnd(min(absoluteEnd, own))
          } else {
            summary?.blockCount += 1
            summary?.corruptRowCount += 1
          }
          absoluteEnds.append(absoluteEnd)
          return count < 1000
        }
        guard let end else { return false }
        for (index, position) in (next...end).enumerated() {
          let at = BlockPosition(run: run, position: position)
          if !(try transaction.children(namespace, at, limit: 1)).isEmpty {
            let bound = absoluteEnds.indices.contains(index) ? absoluteEnds[index] : absoluteEnd
            forks.append(Fork(position: position, end: bound))
          }
          if let stamp = try transaction.stamp(namespace, at) {
            newestStamp = max(newestStamp ?? 0, stamp)
          }
        }
        if next == 0 {
          let hits = try transaction.runHits(namespace, run)
          summary?.hitCount = hits.hitCount
          summary?.hitTokenCount = hits.tokenCount
        }
        next = end &+ 1
        return count == 1000
      }
    }
    summary?.stamp = newestStamp
    summary?.pinnedBlockCount = try pinnedBlockCount(namespace, run)
    return summary.map { ($0, forks) }
  }
}

extension StoreInspector.Run {
  /// Without blocks yet.
  fileprivate init(_ run: RunID, _ parent: BlockPosition, _ depth: Int, _ firstBlockDepth: Int) {
    self.init(
      run: run,
      parent: parent,
      depth: depth,
      firstBlockDepth: firstBlockDepth,
      blockCount: 0,
      payloadByteCount: 0,
      firstBlockKey: BlockKey(high: 0, low: 0),
      lastBlockKey: BlockKey(high: 0, low: 0),
      createdSeconds: 0,
      corruptRowCount: 0,
      stamp: nil,
      pinnedBlockCount: 0
    )
  }

  /// The next block.
  fileprivate mutating func add(
    _ blockKey: BlockKey,
    payloadByteCount: Int,
    createdSeconds: UInt32,
    isArchived: Bool,
    words: [UInt32]?
  ) {
    if blockCount == 0 { firstBlockKey = blockKey }
    if let words { firstWords = words }
    blockCount += 1
    self.payloadByteCount += payloadByteCount
    lastBlockKey = blockKey
    self.createdSeconds = createdSeconds
    if isArchived { archivedBlockCount += 1 }
  }

  /// When a block expires; `.max` = never.
  fileprivate mutating func addEnd(_ end: UInt64) {
    guard end < .max else { return endlessBlockCount += 1 }
    firstEndNanoseconds = min(firstEndNanoseconds ?? end, end)
    lastEndNanoseconds = max(lastEndNanoseconds ?? end, end)
  }
}
