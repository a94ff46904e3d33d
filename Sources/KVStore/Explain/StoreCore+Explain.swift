internal import KVCatalog
package import KVCore
internal import KVIndex

extension StoreCore {
  /// Why the prompt is stored only up to where it is.
  ///
  /// Reads the catalog in short transactions, each bounded by `options`; takes no lease and leaves no trace.
  package func explain(
    _ namespace: NamespaceID,
    _ prompt: Prompt,
    _ options: ExplainOptions
  ) throws(StoreError) -> Explanation {
    let keyBitCount = configuration.keyBitCount
    let found = try catalogRead { (transaction) throws(CatalogError) in
      guard let row = try transaction.namespace(namespace),
        let target = ExplainTarget(row, keyBitCount: keyBitCount)
      else { return (ExplainTarget, StoredWalk)?.none }
      return (target, try transaction.walk(target, prompt, time))
    }
    guard let (target, walk) = found else { throw .invalidArgument(.namespace) }

    var answer = Explanation()
    answer.blockCount = target.blockCount(of: prompt)
    answer.matchedBlockCount = walk.matchedBlockCount
    answer.matchedTokenCount = walk.matchedBlockCount * target.identity.tokensPerBlock
    answer.divergenceToken = answer.matchedTokenCount
    guard let missingKey = walk.missingKey else {
      // Not a miss. What is left of the prompt fills no block.
      let isPartial = prompt.wordCount > answer.blockCount * target.wordsPerBlock
      answer.cause = isPartial ? .partialBlock : .stored
      return answer
    }
    var continuation = try stored(after: walk.position, target, prompt, walk, options)
    answer.branches = continuation.branches
    answer.branchCount = continuation.branchCount
    if target.identity.identityMode == .tokens {
      answer.divergenceToken += continuation.branches.first?.commonTokenCount ?? 0
    }
    if let cause = try departure(missingKey, walk, target, &answer) {
      answer.cause = cause
      return answer
    }
    if try findInOtherNamespace(target, prompt, options, &answer) { return answer }
    answer.cause =
      answer.branchCount > 0 ? .forked : answer.matchedBlockCount > 0 ? .appended : .nothingStored
    if target.identity.identityMode == .tokens {
      try compare(target, prompt, &continuation, options, &answer)
    }
    // With no block in common there is no front that they share: most prompts begin with the same few tokens of a template.
    if answer.cause == .forked, answer.matchedBlockCount == 0 { answer.cause = .nothingStored }
    return answer
  }

  // MARK: What left

  private func departure(
    _ missingKey: BlockKey,
    _ walk: StoredWalk,
    _ target: ExplainTarget,
    _ answer: inout Explanation
  ) throws(StoreError) -> Explanation.Cause? {
    if walk.isDamaged { return .damaged }
    if let expiredAt = walk.expiredAt {
      answer.leftNanoseconds = expiredAt
      return .expired
    }
    var removal = try removal(of: missingKey)
    if removal == nil, answer.matchedBlockCount == 0, answer.branchCount == 0 {
      removal = try purge(of: target.id)
    }
    guard let removal else { return nil }
    answer.leftNanoseconds = removal.timeNanoseconds
    switch removal.reason {
    case .evicted, .none: return .evicted
    case .forgotten: return .forgotten
    case .corrupt: return .damaged
    case .expired:
      answer.leftAfterItsEnd = true
      return .expired
    case .quota: return .overQuota
    }
  }

  // MARK: Branches

  /// What is stored behind a block.
  struct Continuation {
    var branches: [Explanation.Branch] = []
    var branchCount = 0
  }

  private static let branchesShown = 4

  private func stored(
    after position: BlockPosition,
    _ target: ExplainTarget,
    _ prompt: Prompt,
    _ walk: StoredWalk,
    _ options: ExplainOptions
  ) throws(StoreError) -> Continuation {
    let block = prompt.block(walk.matchedBlockCount, wordCount: target.wordsPerBlock)
    return try catalogRead { (transaction) throws(CatalogError) in
      var starts: [BlockPosition] = []
      if position != .root, position.position < .max {
        let next = BlockPosition(run: position.run, position: position.position + 1)
        if try transaction.containsRow(target.id, next) { starts.append(next) }
      }
      // The newest ones: of a thousand branches, those are what the prompt was made from.
      let children = try transaction.children(
        target.id,
        position,
        limit: options.branchCountMax * 4
      )
      starts += children.suffix(options.branchCountMax).reversed().map {
        BlockPosition(run: $0, position: 0)
      }
      var branches: [Explanation.Branch] = []
      for start in starts {
        try transaction.forEachRow(
          target.id,
          start.run,
          from: start.position,
          through: start.position
        ) { _, row in
          guard let row, let block else { return false }
          let stored = row.wordArray
          let common = unsafe zip(block.words, stored).prefix { $0 == $1 }.count
          branches.append(
            Explanation.Branch(
              position: start,
              commonTokenCount: common,
              blockCount: 0,
              nextTokens: Array(stored.dropFirst(common).prefix(8)),
              createdSeconds: row.createdSeconds
            )
          )
          return false
        }
      }
      // Stable, so that of equals the newest run stays first.
      let order = branches.indices.sorted {
        (branches[$1].commonTokenCount, $0) < (branches[$0].commonTokenCount, $1)
      }
      var nearest = order.prefix(Self.branchesShown).map { branches[$0] }
      for index in nearest.indices {
        let start = nearest[index].position
        let last = try transaction.lastPosition(target.id, start.run) ?? start.position
        nearest[index].blockCount = Int(last - min(last, start.position)) + 1
      }
      return Continuation(branches: nearest, branchCount: starts.count)
    }
  }

  // MARK: Other namespaces

  private func findInOtherNamespace(
    _ target: ExplainTarget,
    _ prompt: Prompt,
    _ options: ExplainOptions,
    _ answer: inout Explanation
  ) throws(StoreError) -> Bool {
    let keyBitCount = configuration.keyBitCount
    let ids = try catalogRead { (transaction) throws(CatalogError) in
      try transaction.namespaceIDs()
    }
    let saltDigest = NamespaceIdentity.saltDigest(ofRecord: target.record)
    var best: (target: ExplainTarget, tokenCount: Int)?
    for id in ids.suffix(options.namespaceCountMax) where id != target.id {
      let found = try catalogRead { (transaction) throws(CatalogError) in
        guard let row = try transaction.namespace(id),
          let other = ExplainTarget(row, keyBitCount: keyBitCount),
          other.identity.identityMode == target.identity.identityMode,
          other.identity.sideSection == nil,
          other.identity.digestByteCount == target.identity.digestByteCount,
          !options.sameSaltOnly
            || NamespaceIdentity.saltDigest(ofRecord: row.identityRecord) == saltDigest
        else { return (ExplainTarget, Int)?.none }
        let walk = try transaction.walk(other, prompt, time)
        return (other, walk.matchedBlockCount * other.identity.tokensPerBlock)
      }
      guard let (other, tokenCount) = found else { continue }
      if tokenCount > max(answer.matchedTokenCount, best?.tokenCount ?? 0) {
        best = (other, tokenCount)
      }
    }
    // A front that two models share says nothing; that much more of the prompt does.
    guard let best, best.tokenCount >= answer.matchedTokenCount * 2 else { return false }
    answer.cause = .otherNamespace
    answer.otherNamespace = best.target.id
    answer.otherMatchedTokenCount = best.tokenCount
    answer.lostTokenCount = best.tokenCount - answer.matchedTokenCount
    answer.differences = target.identity.differences(
      from: best.target.identity,
      saltsDiffer: saltDigest != NamespaceIdentity.saltDigest(ofRecord: best.target.record)
    )
    return true
  }

  // MARK: What the prompt has in common with others

  private func compare(
    _ target: ExplainTarget,
    _ prompt: Prompt,
    _ continuation: inout Continuation,
    _ options: ExplainOptions,
    _ answer: inout Explanation
  ) throws(StoreError) {
    let divergence = answer.divergenceToken
    let tail = prompt.tokens(from: divergence, countMax: options.tokenCountMax)
    guard tail.count >= TokenAlignment.widthMin else { return }
    let windows = TokenWindows(tail, width: TokenAlignment.widthMin)
    var resumedCount = 0
    var nearest: PromptChange?
    for branch in continuation.branches
    where branch.commonTokenCount == continuation.branches[0].commonTokenCount {
      let stored = try tokens(
        of: target.id,
        from: branch.position,
        countMax: min(options.tokenCountMax, tail.count * 2 + 1024),
        rowCountMax: options.rowCountMax / Self.branchesShown
      )
      let change = PromptChange(
        prompt: windows,
        stored: Array(stored.dropFirst(branch.commonTokenCount))
      )
      if case .replaced(let new, let old, _) = change, max(new, old) <= Self.volatileCountMax {
        resumedCount += 1
      }
      if change.commonCount > nearest?.commonCount ?? 0 { nearest = change }
    }
    if let nearest, nearest != .unrelated {
      answer.enter(nearest, isRepeated: resumedCount >= 2)
    } else {
      try findElsewhere(target, prompt, windows, options, &answer)
    }
  }

  /// A value that is put into every prompt anew is not longer than this, in tokens.
  private static let volatileCountMax = 64

  /// Looks for parts of the prompt behind other prefixes: in its own front, then in the newest rows of the namespace.
  private func findElsewhere(
    _ target: ExplainTarget,
    _ prompt: Prompt,
    _ windows: TokenWindows,
    _ options: ExplainOptions,
    _ answer: inout Explanation
  ) throws(StoreError) {
    let front = prompt.tokens(
      from: max(0, answer.matchedTokenCount - options.tokenCountMax),
      countMax: min(answer.matchedTokenCount, options.tokenCountMax)
    )
    let frontStart = max(0, answer.matchedTokenCount - options.tokenCountMax)
    let isRepeated = answer.enterRepeated(
      windows,
      in: front,
      at: frontStart,
      wordsPerBlock: target.wordsPerBlock
    )
    if isRepeated { return }
    let countMin = Explanation.partCountMin(
      windows.tokens.count,
      wordsPerBlock: target.wordsPerBlock
    )
    var search = ElsewhereSearch(windows: windows)
    var rowCount = 0
    var next: BlockPosition?
    // A thousand rows for each transaction.
    repeat {
      let from = next
      next = nil
      try catalogRead { (transaction) throws(CatalogError) in
        var count = 0
        try transaction.forEachNewestRow(target.id, before: from) { position, row in
          search.look(at: row.wordArray, position: position)
          count += 1
          rowCount += 1
          if count == 1000 { next = position }
          return count < 1000 && rowCount < options.rowCountMax
        }
      }
    } while next != nil && rowCount < options.rowCountMax
    search.finish()
    guard search.bestCount >= countMin, let position = search.bestPosition else { return }
    answer.cause = .elsewhere
    answer.lostTokenCount = search.bestCount
    answer.elsewhereDepth = try depth(of: position, target)
  }

  /// Tokens before a block in its chain; nil when it left meanwhile.
  private func depth(of position: BlockPosition, _ target: ExplainTarget) throws(StoreError) -> Int?
  {
    try catalogRead { (transaction) throws(CatalogError) in
      var blockCount = 0
      var at = position
      var runCount = 0
      while at != .root {
        blockCount += Int(at.position) + (at == position ? 0 : 1)
        let first = BlockPosition(run: at.run, position: 0)
        guard runCount < 1000, let parent = try transaction.parent(target.id, first) else {
          return nil
        }
        runCount += 1
        at = parent
      }
      return blockCount * target.identity.tokensPerBlock
    }
  }

  /// The tokens of a chain from a block on: along its run, then along the newest branch of its end.
  private func tokens(
    of namespace: NamespaceID,
    from start: BlockPosition,
    countMax: Int,
    rowCountMax: Int
  ) throws(StoreError) -> [UInt32] {
    try catalogRead { (transaction) throws(CatalogError) in
      var tokens: [UInt32] = []
      var rowCount = 0
      var next: BlockPosition? = start
      while let at = next, tokens.count < countMax, rowCount < rowCountMax {
        var last = at
        try transaction.forEachRow(namespace, at.run, from: at.position) { position, row in
          guard let row, tokens.count < countMax, rowCount < rowCountMax else { return false }
          tokens.append(contentsOf: row.wordArray)
          last.position = position
          rowCount += 1
          return true
        }
        next = try transaction.children(namespace, last, limit: 64).last.map {
          BlockPosition(run: $0, position: 0)
        }
      }
      return tokens
    }
  }
}

extension RowView {
  /// The words, copied.
  package var wordArray: [UInt32] {
    let bytes = unsafe words
    return unsafe [UInt32](unsafeUninitializedCapacity: bytes.count / 4) { buffer, count in
      for index in 0..<bytes.count / 4 {
        unsafe buffer[index] = UInt32(
          littleEndian: bytes.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self)
        )
      }
      count = bytes.count / 4
    }
  }
}

extension Prompt {
  /// A copy of some of the words.
  func tokens(from start: Int, countMax: Int) -> [UInt32] {
    guard let words = unsafe words, start < wordCount, countMax > 0 else { return [] }
    return unsafe Array(
      UnsafeBufferPointer(start: words + start, count: min(countMax, wordCount - start))
    )
  }
}
