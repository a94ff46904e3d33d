internal import KVCore
internal import KVFile

/// The leases of all processes on path ends, in shared memory.
///
/// A lease covers its ancestors, because only leaves are evicted.
///
/// One entry of 48 bytes for each lease, as long as the prefix may be; six words each, written and read atomically:
///
/// ```
/// id | owner | run | namespace << 32 + position | end (CLOCK_BOOTTIME, ns) | generation
/// ```
///
/// An id is (base + generation) << 16 + entry, with a base of the table's own, so it is never given twice, and any process releases by
/// it. With the top bit set, it is the owner of an entry that is being taken, or the id of one whose place is being written. A lease
/// ends by release, by time, or with its owner; it means nothing once no process has the store open. The state lock guards what this
/// process adds; other processes see the words as they are.
final class LeaseTable {
  /// What a lease is on: a catalog position, or a block that is still pending, by its ticket.
  enum Target: Hashable {
    case published(BlockPosition)
    case pending(ticket: UInt64)
  }

  private enum Word: Int { case id, owner, run, position, end, generation }

  static let entryCount = 16_384
  static let byteCount = entryCount * entryByteCount
  static let durationDefault: UInt64 = 60_000_000_000
  static let durationMax: UInt64 = 600_000_000_000
  private static let entryByteCount = 48
  private static let busyBit: UInt64 = 1 << 63

  /// nil on a read-only store, which takes no leases.
  private let memory: MappedMemory?
  private let owner: OwnerID
  private let base: UInt64
  /// Leases of this process on blocks that have no position yet.
  private var pendingTickets: [UInt64: UInt64] = [:]
  private var nextEntry = 0

  init(memory: MappedMemory?, owner: OwnerID, base: UInt64 = 0) {
    self.memory = memory
    self.owner = owner
    self.base = base
  }

  private func load(_ entry: Int, _ word: Word) -> UInt64 {
    memory?.atomicLoad(at: entry * Self.entryByteCount + word.rawValue * 8) ?? 0
  }

  private func store(_ value: UInt64, _ entry: Int, _ word: Word) {
    memory?.atomicStore(value, at: entry * Self.entryByteCount + word.rawValue * 8)
  }

  private func exchange(_ entry: Int, from old: UInt64, to new: UInt64) -> Bool {
    memory?.atomicCompareExchange(
      at: entry * Self.entryByteCount,
      expected: old,
      desired: new
    ) ?? false
  }

  // MARK: Taking and ending

  /// Takes a lease, or nil when too many hold.
  func take(
    _ namespace: NamespaceID,
    _ target: Target,
    now: UInt64,
    duration: UInt64
  ) -> UInt64? {
    guard memory != nil else { return nil }
    for offset in 0..<Self.entryCount {
      let entry = (nextEntry + offset) % Self.entryCount
      let old = load(entry, .id)
      // Not one whose place is being written: of the dead, `release(deadOwners:)` frees it.
      let isFree = old == 0 || old & Self.busyBit == 0 && hasEnded(entry, old, now: now, [])
      guard isFree, exchange(entry, from: old, to: Self.busyBit | UInt64(owner.rawValue)) else {
        continue
      }
      pendingTickets[old] = nil
      let generation = load(entry, .generation) &+ 1
      let id = number(generation) << 16 | UInt64(entry)
      store(generation, entry, .generation)
      store(UInt64(owner.rawValue), entry, .owner)
      store(now &+ min(duration, Self.durationMax), entry, .end)
      setTarget(entry, namespace, target, id)
      store(id, entry, .id)
      nextEntry = entry + 1
      return id
    }
    return nil
  }

  private func setTarget(_ entry: Int, _ namespace: NamespaceID, _ target: Target, _ id: UInt64) {
    switch target {
    case .published(let position):
      store(position.run.rawValue, entry, .run)
      store(UInt64(namespace.rawValue) << 32 | UInt64(position.position), entry, .position)
    case .pending(let ticket):
      store(0, entry, .run)
      store(UInt64(namespace.rawValue) << 32, entry, .position)
      pendingTickets[id] = ticket
    }
  }

  /// 47 bits, whatever the words hold.
  private func number(_ generation: UInt64) -> UInt64 { (base &+ generation) & 0x7FFF_FFFF_FFFF }

  /// Ends a lease of any process; false when there never was one of that id.
  func release(_ id: UInt64) -> Bool {
    guard let entry = entry(of: id) else { return false }
    pendingTickets[id] = nil
    let end = load(entry, .end)
    let isHeld = settledID(entry, id) == id | Self.busyBit
    if exchange(entry, from: id, to: 0) { return true }
    // Whoever writes its place does not go on: so it ends by time, and nobody takes the entry before that is over.
    if isHeld { replaceEnd(entry, end, by: 0) }
    return id >> 16 <= number(load(entry, .generation))
  }

  /// Moves the end; false when it has ended already.
  ///
  /// The end that is replaced was this lease's: whoever takes the entry meanwhile writes another before the id is there.
  func extend(_ id: UInt64, now: UInt64, duration: UInt64) -> Bool {
    guard let entry = entry(of: id) else { return false }
    let end = load(entry, .end)
    guard settledID(entry, id) == id, end > now else { return false }
    let isMoved = replaceEnd(entry, end, by: now &+ min(duration, Self.durationMax))
    // Where another has extended it just now, that counts.
    return load(entry, .id) & ~Self.busyBit == id && (isMoved || load(entry, .end) > now)
  }

  @discardableResult
  private func replaceEnd(_ entry: Int, _ old: UInt64, by new: UInt64) -> Bool {
    memory?.atomicCompareExchange(
      at: entry * Self.entryByteCount + Word.end.rawValue * 8,
      expected: old,
      desired: new
    ) ?? false
  }

  /// What an entry says, once its place has been written, which takes another process no time unless it is stopped.
  private func settledID(_ entry: Int, _ id: UInt64) -> UInt64 {
    for _ in 0..<10_000 {
      let word = load(entry, .id)
      if word != id | Self.busyBit { return word }
    }
    return id | Self.busyBit
  }

  private func entry(of id: UInt64) -> Int? {
    let entry = Int(id & 0xFFFF)
    return memory != nil && id >> 16 > 0 && id & Self.busyBit == 0 && entry < Self.entryCount
      ? entry : nil
  }

  /// Pending blocks get these places in the catalog with the commit that is about to be made.
  ///
  /// Called inside the write transaction, so that no evictor sees the blocks before it sees their leases.
  func place(_ positions: [UInt64: BlockPosition]) {
    for (id, ticket) in pendingTickets {
      // Held while it is written: another process may release it, and the next lease of the entry has a place of its own.
      guard let position = positions[ticket], let entry = entry(of: id),
        exchange(entry, from: id, to: id | Self.busyBit)
      else { continue }
      let namespace = load(entry, .position) & ~0xFFFF_FFFF
      store(namespace | UInt64(position.position), entry, .position)
      store(position.run.rawValue, entry, .run)
      store(id, entry, .id)
    }
  }

  /// Those blocks are pending no longer.
  func forgetTickets(_ tickets: Set<UInt64>) {
    guard !pendingTickets.isEmpty else { return }
    pendingTickets = pendingTickets.filter { !tickets.contains($0.value) }
  }

  /// Ends the leases of processes that have ended; returns how many there were.
  func release(deadOwners: Set<OwnerID>) -> Int {
    var count = 0
    for entry in 0..<Self.entryCount {
      // The id before the owner: an entry that is being taken still names the owner before.
      let id = load(entry, .id)
      guard id != 0, deadOwners.contains(leaseOwner(entry, id)) else { continue }
      if exchange(entry, from: id, to: 0) { count += 1 }
    }
    return count
  }

  /// Ends the leases of this process; at close.
  func releaseOwn() {
    for entry in 0..<Self.entryCount {
      let id = load(entry, .id)
      if id != 0, leaseOwner(entry, id) == owner { _ = exchange(entry, from: id, to: 0) }
    }
    pendingTickets = [:]
  }

  // MARK: Looking

  private func hasEnded(
    _ entry: Int,
    _ id: UInt64,
    now: UInt64,
    _ deadOwners: Set<OwnerID>
  ) -> Bool {
    if deadOwners.contains(leaseOwner(entry, id)) { return true }
    return !isBeingTaken(id) && load(entry, .end) <= now
  }

  /// Whether the word is that of an entry that has no lease yet.
  private func isBeingTaken(_ id: UInt64) -> Bool {
    id & Self.busyBit != 0 && id & ~Self.busyBit <= UInt64(UInt32.max)
  }

  private func leaseOwner(_ entry: Int, _ id: UInt64) -> OwnerID {
    OwnerID(
      rawValue: UInt32(truncatingIfNeeded: isBeingTaken(id) ? id : load(entry, .owner))
    )
  }

  /// The other processes that hold leases.
  ///
  /// Needs no lock.
  func foreignOwners() -> Set<OwnerID> {
    var owners: Set<OwnerID> = []
    for entry in 0..<Self.entryCount {
      let id = load(entry, .id)
      guard id != 0 else { continue }
      let owner = leaseOwner(entry, id)
      if owner != self.owner { owners.insert(owner) }
    }
    return owners
  }

  /// The leases in the words of the file, those that have ended by time included.
  static func entries(_ words: [UInt64]) -> [(owner: OwnerID, end: UInt64)] {
    (0..<entryCount).compactMap { entry in
      let first = entry * entryByteCount / 8
      guard words.indices.contains(first + 5), words[first] != 0, words[first] & busyBit == 0 else {
        return nil
      }
      let owner = OwnerID(rawValue: UInt32(truncatingIfNeeded: words[first + Word.owner.rawValue]))
      return (owner, words[first + Word.end.rawValue])
    }
  }

  /// Leases that hold.
  func activeCount(now: UInt64, deadOwners: Set<OwnerID>) -> Int {
    guard memory != nil else { return 0 }
    return (0..<Self.entryCount).count { entry in
      let id = load(entry, .id)
      return id != 0 && !hasEnded(entry, id, now: now, deadOwners)
    }
  }

  /// For each run, the deepest position that a lease holds.
  func deepestPositions(now: UInt64, deadOwners: Set<OwnerID>) -> [RunID: UInt32] {
    var deepest: [RunID: UInt32] = [:]
    guard memory != nil else { return deepest }
    for entry in 0..<Self.entryCount {
      let id = load(entry, .id)
      guard id != 0, !isBeingTaken(id), !hasEnded(entry, id, now: now, deadOwners) else { continue }
      let run = RunID(rawValue: load(entry, .run))
      guard run != .root else { continue }
      let position = UInt32(truncatingIfNeeded: load(entry, .position))
      deepest[run] = max(deepest[run] ?? 0, position)
    }
    return deepest
  }
}
