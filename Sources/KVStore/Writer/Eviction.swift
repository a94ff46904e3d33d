internal import KVCatalog
internal import KVCore
internal import KVTiers

/// A transaction that may remove blocks which nobody needs, and what it has removed so far (`CatalogWriter.evict`).
final class Eviction {
  let transaction: WriteTransaction
  private let victims: DensityVictims?
  private let diskTier: DiskTier
  private let attempt: Int
  private let neededPositions: () -> [RunID: UInt32]
  private var known: ProtectedBlocks?
  private(set) var removed: [RemovedSummary] = []
  /// Slot files that are removed once it is committed.
  private(set) var filesToRemove: [SlotFileID] = []

  /// `neededPositions` tells of each run the deepest position that has to stay, pins aside.
  init(
    _ transaction: WriteTransaction,
    _ victims: DensityVictims?,
    _ diskTier: DiskTier,
    attempt: Int,
    _ neededPositions: @escaping () -> [RunID: UInt32]
  ) {
    self.transaction = transaction
    self.victims = victims
    self.diskTier = diskTier
    self.attempt = attempt
    self.neededPositions = neededPositions
  }

  /// The last attempt conflicted with a use that came meanwhile: expired blocks are skipped on this one, so that eviction makes
  /// progress.
  var hasConflicted: Bool { attempt > 0 }

  /// What is removed now will be looked at no more: a conflict ends it.
  var isLastAttempt: Bool { attempt == CatalogWriter.attemptCount - 1 }

  /// Whether blocks were removed.
  var hasRemoved: Bool { !removed.isEmpty }

  var removedBlockCount: Int { removed.reduce(0) { $0 + $1.blockCount } }

  /// What has to stay; looked up when it is first asked for.
  func protected() throws(CatalogError) -> ProtectedBlocks {
    if let known { return known }
    let protected = try transaction.protected(neededPositions())
    known = protected
    transaction.heldBlocks = protected
    return protected
  }

  // MARK: Removing

  /// Removes the first blocks in the order of eviction; nil = of all pools.
  @discardableResult
  func evict(pools: Set<UInt32>?, blockCount: Int) throws(CatalogError) -> RemovedSummary {
    let all = pools == nil ? Set(try transaction.namespaces().map(\.pool)) : []
    return note(try evict(pools ?? all, blockCount, .evicted))
  }

  /// By what blocks are worth, as far as that is known, then by recency.
  private func evict(
    _ pools: Set<UInt32>,
    _ blockCount: Int,
    _ reason: RemovalReason
  ) throws(CatalogError) -> RemovedSummary {
    let protected = try protected()
    func isProtected(_: NamespaceID, _ run: RunID, _ position: UInt32) -> Bool {
      protected.covers(run, position)
    }
    let byWorth = try victims?.evict(
      transaction,
      pools: pools,
      blockCount: blockCount,
      reason: reason,
      isProtected: isProtected
    )
    var removed = byWorth ?? RemovedSummary()
    guard removed.rowCount < blockCount else { return removed }
    removed.add(
      try transaction.evict(
        pools: pools,
        blockCount: blockCount - removed.rowCount,
        reason: reason,
        hasSkipped: byWorth != nil,
        isProtected: isProtected
      )
    )
    return removed
  }

  /// Removes all blocks of a namespace; false when some have to stay.
  func evictAll(of namespace: NamespaceID) throws(CatalogError) -> Bool {
    let protected = try protected()
    var removed = RemovedSummary()
    let isAll = try transaction.evictAll(
      of: namespace,
      isProtected: { _, run, position in protected.covers(run, position) },
      &removed
    )
    note(removed)
    return isAll
  }

  /// Removes the coldest blocks of a pool whose payload is in a tier.
  func evictColdest(
    pool: UInt32,
    in tier: Tier,
    blockCount: Int
  ) throws(CatalogError) {
    let protected = try protected()
    note(
      try transaction.removeColdest(
        pool: pool,
        in: tier,
        blockCount: blockCount,
        isProtected: { _, run, position in protected.covers(run, position) }
      )
    )
  }

  /// Removes expired blocks; nil = of all pools.
  func removeExpired(pool: UInt32? = nil, blockCount: Int) throws(CatalogError) {
    note(
      try transaction.removeExpired(
        blockCount: blockCount,
        pool: pool,
        protected: try protected()
      )
    )
  }

  /// Removes what a namespace holds beyond its quota, expired blocks first.
  func enforceQuota(_ namespace: NamespaceID) throws(CatalogError) {
    var removed = RemovedSummary()
    if !hasConflicted, let excess = try transaction.quotaExcess(namespace), excess.mayExpire {
      removed = try transaction.removeExpired(
        blockCount: excess.blockCountMax,
        namespace: namespace,
        protected: try protected()
      )
    }
    while let excess = try transaction.quotaExcess(namespace) {
      let round = try evict([excess.pool], excess.blockCount, .quota)
      if round.ranges.isEmpty { break }
      removed.add(round)
    }
    note(removed)
  }

  @discardableResult
  private func note(_ summary: RemovedSummary) -> RemovedSummary {
    removed.append(summary)
    return summary
  }

  /// Gives an empty slot file up; its room is free once the transaction is committed and the file removed.
  func removeSlotFile(_ file: SlotFileID) throws(CatalogError) {
    _ = try transaction.removeSlotFile(tier: file.tier, file: file.file)
    filesToRemove.append(file)
    diskTier.giveUpFile(file)
  }
}
