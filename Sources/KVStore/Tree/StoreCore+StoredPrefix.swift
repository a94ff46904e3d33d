internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVIndex
internal import KVTiers

/// What a walk of the index ends with: an answer, or more to load first.
private enum WalkStep<Result> {
  case done(Result)
  case load(after: BlockPosition, parentKey: BlockKey, from: PathMark, epoch: UInt64)
}

extension StoreCore {
  /// Runs `body` with the state lock held and the longest stored prefix of the prompt's first `blockCount` blocks.
  ///
  /// It goes on from `mark` if that still holds; where blocks may expire, all of the path is looked at.
  func withStoredPrefix<Result>(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    blockCount: Int,
    touch: Bool,
    after mark: PathMark = PathMark(),
    _ body: (inout StoreState, StoredPrefix) -> Result
  ) throws(StoreError) -> Result {
    var triedAt = -1
    // A removal in between makes a load void; after so many the prefix is what the index has.
    var attempt = 0
    while true {
      attempt += 1
      let step: WalkStep<Result> = state.withLock { state in
        var segments = exchange(&state.spare.segments, with: [])
        defer { state.spare.segments = segments }
        let mayExpire = namespace.expiry.mayExpire.value
        func walk() -> (end: PathMark, firstBlock: Int) {
          state.tree.walk(
            namespace,
            prompt,
            blockCount: blockCount,
            after: mayExpire ? PathMark() : mark,
            touch: touch,
            segments: &segments
          )
        }
        var (end, firstBlock) = walk()
        if mayExpire, state.tree.cutExpired(segments, time) { (end, firstBlock) = walk() }
        let isEnd = end.blockCount == blockCount || end.blockCount == triedAt
        if !isEnd, attempt < 64, let after = position(of: end.location, in: state.tree) {
          let parentKey = state.tree.blockKey(at: end.location) ?? namespace.chain.rootKey
          return .load(
            after: after,
            parentKey: parentKey,
            from: end,
            epoch: state.tree.removalEpoch
          )
        }
        return .done(
          body(&state, StoredPrefix(end: end, firstBlock: firstBlock, segments: segments))
        )
      }
      switch step {
      case .done(let result): return result
      case .load(let after, let parentKey, let end, let epoch):
        let cursor = ChainCursor(namespace.chain, prompt, at: end.blockCount, after: parentKey)
        let rows = try load(namespace, cursor, blockCount, after: after)
        let isCurrent = state.withLock { state in
          guard state.tree.removalEpoch == epoch else { return false }
          state.tree.enter(rows, namespace, prompt, after: end)
          state.tree.trim(toByteCount: configuration.indexBytesMax)
          return true
        }
        if isCurrent { triedAt = end.blockCount + rows.count }
      }
    }
  }

  /// The catalog's position of a location; nil for a pending block, below which the catalog has nothing.
  private func position(of location: IndexLocation, in tree: PrefixTree) -> BlockPosition? {
    location.isRoot ? .root : tree.position(of: location)
  }

  /// The rows that continue the prompt after a block, as far as their words compare equal.
  private func load(
    _ namespace: NamespaceCore,
    _ cursor: ChainCursor,
    _ blockCount: Int,
    after: BlockPosition
  ) throws(StoreError) -> [CatalogWalk.Row] {
    // What it has announced would be hidden.
    forgetDeadEvictor()
    var walk = CatalogWalk(
      time,
      hasArchive: diskTier.hasFolder(of: .archive),
      namespace,
      cursor,
      after: after
    )
    try catalogRead { (transaction) throws(CatalogError) in
      try walk.read(transaction, upTo: blockCount)
    }
    state.withLock { state in
      state.meters.noteHashes(walk.hashCount)
      state.meters.noteCollisions(walk.collisionCount)
    }
    if let corrupt = walk.corrupt { quarantine(namespace, corrupt, nil) }
    return walk.rows
  }
}
