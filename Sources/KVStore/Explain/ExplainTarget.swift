package import KVCatalog
package import KVCore

/// A namespace as an explanation sees it: what the catalog says, without opening it.
package struct ExplainTarget {
  var id: NamespaceID
  var identity: NamespaceIdentity
  var record: [UInt8]
  var chain: KeyChain
  /// Some block had an idle life: when it ends stands beside its row.
  var hasIdleExpiry: Bool

  /// nil when the stored identity is damaged.
  package init?(_ row: NamespaceRow, keyBitCount: Int) {
    guard let identity = NamespaceIdentity(record: row.identityRecord) else { return nil }
    id = row.id
    self.identity = identity
    record = row.identityRecord
    hasIdleExpiry = row.facts.contains(.hasIdleExpiry)
    chain = KeyChain(
      rootKey: row.rootKey,
      identityMode: identity.identityMode,
      wordsPerBlock: identity.wordsPerBlock,
      keyBitCount: keyBitCount
    )
  }

  var wordsPerBlock: Int { chain.wordsPerBlock }

  package func blockCount(of prompt: Prompt) -> Int { prompt.wordCount / wordsPerBlock }

  /// Of its full blocks.
  package func blockKeys(of prompt: Prompt) -> [BlockKey] {
    var cursor = ChainCursor(chain, prompt)
    var keys: [BlockKey] = []
    while let link = cursor.next() { keys.append(link.key) }
    return keys
  }
}

/// How far the catalog has a prompt, and what ended it.
package struct StoredWalk {
  /// The last stored block.
  var position = BlockPosition.root
  var matchedBlockCount = 0
  /// Key of the first block that is missing; nil when none is.
  var missingKey: BlockKey?
  /// The block is there, and its time is over.
  var expiredAt: UInt64?
  /// The block is there, and damaged.
  var isDamaged = false
}

extension ReadTransaction {
  /// Walks the prompt's blocks from the root on, comparing the words of each.
  package func walk(
    _ target: ExplainTarget,
    _ prompt: Prompt,
    _ time: StoreTime,
    _ visit: (BlockPosition, RowView) -> Void = { _, _ in }
  ) throws(CatalogError) -> StoredWalk {
    var walk = StoredWalk()
    let now = time.now()
    var cursor = ChainCursor(target.chain, prompt)
    while let key = cursor.key {
      walk.missingKey = key
      guard let found = try find(target.id, key) else { return walk }
      let countBefore = walk.matchedBlockCount
      let deadlines =
        target.hasIdleExpiry
        ? try runDeadlines(target.id, found.run, from: found.position, now: now) : nil
      try forEachRow(target.id, found.run, from: found.position) { position, row in
        guard let row else {
          walk.isDamaged = true
          return false
        }
        let parent =
          position == 0 ? row.parent : BlockPosition(run: found.run, position: position - 1)
        guard parent == walk.position, let block = cursor.here, block.matches(row) else {
          return false
        }
        let isIdle = row.flags.contains(.idleExpiry)
        let end = isIdle ? deadlines?.deadline(at: position) ?? .max : row.expiry
        if row.expiry != 0, time.isOver(deadline: end, isIdle: isIdle, at: now) {
          walk.expiredAt = end
          walk.missingKey = row.blockKey
          return false
        }
        walk.position = BlockPosition(run: found.run, position: position)
        walk.matchedBlockCount += 1
        visit(walk.position, row)
        cursor.pass(row.blockKey)
        return true
      }
      if walk.matchedBlockCount == countBefore || walk.isDamaged || walk.expiredAt != nil {
        return walk
      }
    }
    walk.missingKey = nil
    return walk
  }
}
