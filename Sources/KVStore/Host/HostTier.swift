internal import KVCore
internal import KVIndex
internal import KVTiers

/// The host tier: the arena's slots, which block of the index lies in which, and which of those are not durable yet.
///
/// A class, because the index calls into it while it changes; the state lock guards it.
final class HostTier {
  /// A block that is not durable yet.
  private struct Pending {
    let ticket: UInt64
    /// Of the handle that hears what became of it.
    let ledger: FlushLedger
  }

  private let arena: HostArena
  /// By the slots' numbers, which hash faster than the slots.
  private var locations: [Int32: IndexLocation] = [:]
  private var pending: [Int32: Pending] = [:]
  /// Of pending blocks that more than one handle offered, by their tickets: the ledgers but for the first's.
  private var others: [UInt64: [FlushLedger]] = [:]
  private var lastTicket: UInt64 = 0
  /// The block at this location has lost its copy: its slot was needed.
  var onReclaimed: ((IndexLocation) -> Void)?

  init(_ arena: HostArena) { self.arena = arena }

  // MARK: Slots

  /// A pinned slot, taking the place of the copy that was used longest ago; nil when all are in use.
  func allocate(_ slotByteCount: Int) -> HostSlot? {
    let allocation = arena.allocate(slotByteCount)
    for slot in arena.takeReclaimedWithoutGain() { forgetCopy(slot) }
    guard let allocation else { return nil }
    for slot in allocation.reclaimed { forgetCopy(slot) }
    return allocation.slot
  }

  /// Gives a pinned slot back whose contents are of no use.
  func drop(_ slot: HostSlot) {
    arena.discard(slot)
    arena.unpin(slot)
  }

  func pin(_ slot: HostSlot) { arena.pin(slot) }

  func unpin(_ slot: HostSlot) { arena.unpin(slot) }

  /// Counts a pinned slot among those that callers hold; false when they hold too many.
  func lend(_ slot: HostSlot) -> Bool { arena.lend(slot) }

  func endLoan(_ slot: HostSlot) { arena.endLoan(slot) }

  func close() { arena.close() }

  var usedByteCount: Int { arena.usedByteCount }
  var lentByteCount: Int { arena.lentByteCount }

  // MARK: Blocks

  /// Slots that hold blocks.
  var blockCount: Int { locations.count }

  func location(of slot: HostSlot) -> IndexLocation? { locations[slot.rawValue] }

  /// A slot holds a block's copy now.
  func attach(_ slot: HostSlot, at location: IndexLocation) { locations[slot.rawValue] = location }

  /// A slot holds a block that is not durable yet.
  ///
  /// - Returns: its ticket: unique in this process; what leases and children name it by.
  func attachPending(_ slot: HostSlot, at location: IndexLocation, for ledger: FlushLedger)
    -> UInt64
  {
    lastTicket += 1
    locations[slot.rawValue] = location
    pending[slot.rawValue] = Pending(ticket: lastTicket, ledger: ledger)
    return lastTicket
  }

  func moved(_ slot: HostSlot, to location: IndexLocation) { locations[slot.rawValue] = location }

  /// The block has left the index: the slot is free, or is when its last pin ends.
  func detach(_ slot: HostSlot) {
    locations[slot.rawValue] = nil
    pending[slot.rawValue] = nil
    arena.discard(slot)
  }

  private func forgetCopy(_ slot: HostSlot) {
    guard let location = locations.removeValue(forKey: slot.rawValue) else { return }
    pending[slot.rawValue] = nil
    onReclaimed?(location)
  }

  // MARK: Pending blocks

  var hasPending: Bool { !pending.isEmpty }

  func ticket(of slot: HostSlot) -> UInt64? { pending[slot.rawValue]?.ticket }

  func becameDurable(_ slot: HostSlot) { pending[slot.rawValue] = nil }

  /// Another handle has offered a pending block, and hears what becomes of it as well; false if it is durable.
  func promise(_ slot: HostSlot, to ledger: FlushLedger) -> Bool {
    guard let pending = pending[slot.rawValue] else { return false }
    let known = others[pending.ticket] ?? []
    if pending.ledger !== ledger, !known.contains(where: { $0 === ledger }) {
      others[pending.ticket] = known + [ledger]
    }
    return true
  }

  /// The ledgers beside the block's own; told once.
  func takeOthers(ofTicket ticket: UInt64) -> [FlushLedger] {
    others.isEmpty ? [] : others.removeValue(forKey: ticket) ?? []
  }
}
