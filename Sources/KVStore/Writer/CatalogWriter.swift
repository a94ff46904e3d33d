internal import Glibc
internal import KVCatalog
internal import KVCore
internal import KVTiers

/// The one door for every commit of this process; on the writer's thread, or before it runs and after it has ended.
///
/// A commit carries this process's counters and given numbers, and is counted. What it removes is out of the index, and hidden from
/// look-ups, until it is durable; `remove` takes what somebody wants removed, `evict` what nobody needs.
final class CatalogWriter: Sendable {
  private let catalog: Catalog
  private let time: StoreTime
  private let owner: OwnerID
  private let folder: FolderWatch
  private let identities: IdentityLog
  private let totals: TotalsRecorder
  private let victims: DensityVictims?
  private let state: Monitor<StoreState>
  private let leases: ActiveLeases
  private let intents: EvictionIntents
  private let diskTier: DiskTier
  private let ledgers: Monitor<FlushLedgers>
  private let pending: PendingRemoval
  private let parents: PendingParents
  private let remote: RemoteTier?
  private let commitCount = Monitor<UInt64>(0)

  /// Leases that are taken on the victims again and again end an eviction.
  static let attemptCount = 8

  init(
    _ catalog: Catalog,
    _ time: StoreTime,
    owner: OwnerID,
    folder: FolderWatch,
    identities: IdentityLog,
    victims: DensityVictims?,
    state: Monitor<StoreState>,
    leases: ActiveLeases,
    intents: EvictionIntents,
    diskTier: DiskTier,
    ledgers: Monitor<FlushLedgers>,
    parents: PendingParents,
    remote: RemoteTier?
  ) {
    self.catalog = catalog
    self.time = time
    self.owner = owner
    self.folder = folder
    self.identities = identities
    self.victims = victims
    self.state = state
    self.leases = leases
    self.intents = intents
    self.diskTier = diskTier
    self.ledgers = ledgers
    self.parents = parents
    self.remote = remote
    totals = TotalsRecorder(state, diskTier, catalog)
    pending = PendingRemoval(state)
  }

  /// Commits of this process.
  var commits: UInt64 { commitCount.withLock { $0 } }

  // MARK: Commits

  /// Runs a transaction and commits it, synced; nothing of it has happened when this throws.
  func commit<Result>(
    _ body: (WriteTransaction) throws(CatalogError) -> Result
  ) throws(StoreError) -> Result {
    do throws(CatalogError) { return try write(body) } catch { throw StoreError(error) }
  }

  /// Commits the removal of blocks that somebody wants removed, leased or not, and counts them by the reason.
  func remove(
    _ reason: RemovalReason,
    _ body: (WriteTransaction) throws(CatalogError) -> RemovedSummary
  ) throws(StoreError) -> RemovedSummary {
    defer { pending.reveal() }
    let removed = try commit { (transaction) throws(CatalogError) in
      let removed = try body(transaction)
      _ = pending.hide(removed.ranges)
      return removed
    }
    let count = removed.blockCount + removed.sections.count
    state.withLock { $0.meters.noteRemoval(reason, blockCount: count) }
    return removed
  }

  /// Commits a transaction that may evict: before it commits, leases and blocks that came meanwhile are looked at once more.
  ///
  /// It is run again when some of what it removes is needed by then, with what it did undone. `.full` is thrown when that is so each
  /// time. The blocks of the tickets `publishing` are published by it, so that their parents need not stay for them; `keeping` are
  /// positions that have to stay besides.
  func evict<Result>(
    publishing: Set<UInt64> = [],
    keeping: [RunID: UInt32] = [:],
    _ body: (Eviction) throws(CatalogError) -> Result
  ) throws(StoreError) -> Result {
    let parents = parents.positions(but: publishing)
    for attempt in 0..<Self.attemptCount {
      var eviction: Eviction?
      var isNeeded = false
      do throws(CatalogError) {
        let result = try write { (transaction) throws(CatalogError) in
          let under = Eviction(transaction, victims, diskTier, attempt: attempt) { [leases] in
            leases.deepestPositions(deadOwners: leases.deadOwners())
              .merging(parents()) { max($0, $1) }
              .merging(keeping) { max($0, $1) }
          }
          eviction = under
          let result = try body(under)
          isNeeded = !hideUnlessNeeded(under.removed, parents)
          if isNeeded { throw .closed }
          return result
        }
        end(eviction, isCommitted: true)
        return result
      } catch {
        end(eviction, isCommitted: false)
        guard isNeeded else { throw StoreError(error) }
      }
    }
    throw .full
  }

  private func write<Result>(
    _ body: (WriteTransaction) throws(CatalogError) -> Result
  ) throws(CatalogError) -> Result {
    // Names in the folder may be another store's by now.
    guard (try? folder.check()) != nil else { throw .io(errno: ESTALE) }
    let record = totals.record(commits: commits, parents.published)
    do throws(CatalogError) {
      let (result, transaction, usesBefore, isRecorded) = try catalog.write(
        timeNanoseconds: time.now(),
        owner: owner
      ) { (transaction) throws(CatalogError) in
        time.advance(to: try transaction.lastCommittedNanoseconds())
        if victims != nil { transaction.stampChanges = [] }
        let usesBefore = transaction.useCounter
        let result = try body(transaction)
        let isRecorded = try record.put(in: transaction)
        try identities.note(numbersOf: transaction)
        return (result, transaction, usesBefore, isRecorded)
      }
      victims?.committed(transaction, from: usesBefore)
      if isRecorded { totals.committed(record) }
      commitCount.withLock { $0 += 1 }
      return result
    } catch {
      victims?.aborted()
      throw error
    }
  }

  // MARK: Evictions

  /// Takes what a transaction is about to remove out of the index and hides it; false when some of it is needed by now.
  ///
  /// Needed is what is leased, and what a block on its way hangs from.
  private func hideUnlessNeeded(
    _ removed: [RemovedSummary],
    _ parents: () -> [RunID: UInt32]
  ) -> Bool {
    let ranges = removed.flatMap(\.ranges)
    guard !ranges.isEmpty else { return true }
    // Before the look: a lease of another process that this look misses sees the announcement.
    intents.announce(ranges)
    let dead = leases.deadOwners()
    let expired = Dictionary(grouping: removed.flatMap(\.expiredTops), by: \.at.run)
    return pending.hide(ranges) { ranges, tree in
      let needed = leases.deepestPositions(deadOwners: dead).merging(parents()) { max($0, $1) }
      return ranges.allSatisfy { range in
        if let needed = needed[range.run], needed >= range.firstPosition { return false }
        // A use that is still in the writer's queue has prolonged its life.
        return !(expired[range.run] ?? []).contains { tree.isAlive($0, time) }
      }
    }
  }

  private func end(_ eviction: Eviction?, isCommitted: Bool) {
    intents.withdraw()
    pending.reveal()
    guard let eviction else { return }
    guard isCommitted else { return eviction.filesToRemove.forEach(diskTier.takeBackFile) }
    let removed = eviction.removed
    let expiredCount = removed.reduce(0) { $0 + $1.expiredBlockCount }
    let count = removed.reduce(0) { $0 + $1.blockCount + $1.sections.count }
    if count > 0 {
      state.withLock { $0.meters.noteEviction(blockCount: count, expiredBlockCount: expiredCount) }
    }
    let evicted = removed.filter { $0.blockCount > $0.expiredBlockCount }.flatMap(\.ranges)
    if !evicted.isEmpty {
      for ledger in ledgers.withLock({ $0.all }) { ledger.noteEviction(evicted) }
      remote?.noteEvicted(evicted)
    }
    for file in eviction.filesToRemove { diskTier.removeFile(file) }
  }
}
