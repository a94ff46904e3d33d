internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVIndex
internal import KVTiers

/// A block that has been offloaded and is not durable yet.
struct PendingBlock {
  let namespace: NamespaceCore
  /// Unique in this process; what leases and children name it by.
  let ticket: UInt64
  let hostSlot: HostSlot
  let blockKey: BlockKey
  let parent: LeaseTable.Target
  let parentKey: BlockKey
  /// Blocks before it.
  let depth: Int
  let payloadByteCount: Int
  let offered: OfferedExpiry
  /// Of the handle that hears what became of it; for others see `StoreState.alsoPromised`.
  let ledger: FlushLedger
}

/// What the state lock guards (docs/internals/concurrency.md, lock 2): who is where in RAM.
///
/// No I/O, copy, checksum or catalog call happens while it is held.
struct StoreState {
  let index: PrefixIndex
  let arena: HostArena
  let hostBlocks = HostBlockTable()
  let leases: LeaseTable
  let intents: EvictionIntents
  var partials: [PartialBlock.Name: PartialBlock] = [:]
  /// Of offloads in two phases, by their numbers.
  var reservations: [UInt64: SlotReservation] = [:]
  var namespaces: [BlockKey: NamespaceCore] = [:]
  var nextTicket: UInt64 = 1
  /// Of blocks that more than one handle offered before they were durable, by their tickets: the ledgers but for the first's.
  var alsoPromised: [UInt64: [FlushLedger]] = [:]

  /// Counts removals from the index, so that a loader sees that what it read may be gone.
  var removalEpoch: UInt64 = 0
  /// Removed from the index, with the removal's commit still to come; not to be loaded again.
  var hidden = HiddenRanges()
  /// Callers that wait for arena room; the writer hurries for them.
  var arenaWaiterCount = 0

  /// Pools in which nothing could be evicted for a block just now, and until when offloads hear so at once.
  var fullUntil: [UInt32: UInt64] = [:]

  /// Slot sizes for which something had to leave.
  var fullSizes: Set<Int> = []
  /// Blocks that were read from the archive and have not been moved back.
  var archiveUses: Set<ArchiveUse> = []

  var statistics = StoreStatistics()
  var hits = HitLog()
  var restoreBandwidth = RestoreBandwidth()
  var spare = SpareArrays()

  /// Empty arrays that calls take and give back, so that a short one allocates none.
  struct SpareArrays {
    var segments: [IndexSegment] = []
    var plan: [PlannedBlock] = []
  }

  init(index: PrefixIndex, arena: HostArena, leases: LeaseTable, intents: EvictionIntents) {
    self.index = index
    self.leases = leases
    self.intents = intents
    self.arena = arena
    let table = hostBlocks
    index.onHostSlotMoved = { slot, location in table.moved(slot, to: location) }
  }

  /// Whether a removal of the block, by this process or another, is on its way.
  func isHidden(_ position: BlockPosition) -> Bool {
    hidden.covers(position) || intents.covers(position)
  }

  /// What names the block at `location` to the writer and to leases.
  func target(at location: IndexLocation) -> LeaseTable.Target? {
    if let position = index.position(of: location) { return .published(position) }
    guard let entry = index.entry(at: location), entry.hostSlot >= 0,
      let pending = hostBlocks.pending(entry.hostSlot)
    else { return nil }
    return .pending(ticket: pending.ticket)
  }

  /// Takes blocks out of the index; their host copies become free, or do when their last pin ends.
  mutating func removeFromIndex(_ range: RemovedSummary.Range) {
    removalEpoch += 1
    index.truncate(
      range.namespace,
      from: BlockPosition(run: range.run, position: range.firstPosition),
      onRemove: detach
    )
  }

  mutating func removeFromIndex(at location: IndexLocation) {
    removalEpoch += 1
    index.truncate(at: location, onRemove: detach)
  }

  mutating func removeAll(of namespace: NamespaceCore) {
    removalEpoch += 1
    index.removeNamespace(namespace.id, onRemove: detach)
    index.addNamespace(namespace.id, wordsPerBlock: namespace.wordsPerBlock)
  }

  /// Everything; the next matches read it from the catalog again.
  mutating func removeAll() {
    for namespace in namespaces.values { removeAll(of: namespace) }
  }

  private func detach(_ location: IndexLocation, _ entry: IndexEntry) {
    guard entry.hostSlot >= 0 else { return }
    hostBlocks.detach(entry.hostSlot)
    arena.discard(HostSlot(rawValue: entry.hostSlot))
  }

  /// A pinned slot of the arena, taking the place of the copy that was used longest ago; nil when all are in use.
  mutating func allocateHostSlot(_ slotByteCount: Int) -> HostSlot? {
    let allocation = arena.allocate(slotByteCount)
    for slot in arena.takeReclaimedWithoutGain() { forgetHostCopy(slot) }
    guard let allocation else { return nil }
    for reclaimed in allocation.reclaimed { forgetHostCopy(reclaimed) }
    return allocation.slot
  }

  /// Gives a pinned slot back whose contents are of no use.
  func dropHostSlot(_ slot: HostSlot) {
    arena.discard(slot)
    arena.unpin(slot)
  }

  private func forgetHostCopy(_ slot: HostSlot) {
    guard let location = hostBlocks.location(of: slot.rawValue) else { return }
    hostBlocks.detach(slot.rawValue)
    index.updateEntry(at: location) { $0.hostSlot = -1 }
  }
}

/// Where each host slot's block is in the index, and its ticket while it is pending.
///
/// A class, because the index calls back into it while the state is being changed; the state lock guards it.
final class HostBlockTable {
  private var locations: [Int32: IndexLocation] = [:]
  private var pending: [Int32: Pending] = [:]

  struct Pending {
    let ticket: UInt64
    let ledger: FlushLedger
  }

  func attach(_ slot: Int32, at location: IndexLocation, pending: Pending? = nil) {
    locations[slot] = location
    self.pending[slot] = pending
  }

  func moved(_ slot: Int32, to location: IndexLocation) { locations[slot] = location }

  func published(_ slot: Int32) { pending[slot] = nil }

  func detach(_ slot: Int32) {
    locations[slot] = nil
    pending[slot] = nil
  }

  /// Slots that hold blocks.
  var count: Int { locations.count }

  func location(of slot: Int32) -> IndexLocation? { locations[slot] }
  func pending(_ slot: Int32) -> Pending? { pending[slot] }
  var hasPending: Bool { !pending.isEmpty }
}
