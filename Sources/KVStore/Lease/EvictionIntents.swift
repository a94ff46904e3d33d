internal import KVCatalog
internal import KVCore
internal import KVFile

/// What an evictor is about to remove, in shared memory, for those who take a lease in another process meanwhile.
///
/// An evictor announces its victims, then looks at the leases; a taker enters its lease, then looks at the announcement. The
/// words are sequentially consistent, so at least one of the two sees the other (Dekker's argument): the evictor
/// starts over, or the taker takes its lease back. Only the holder of the catalog's write lock evicts, so one announcement is enough.
///
/// ```
/// owner << 32 + count | unused | count × (run, first position)
/// ```
///
/// Needs no lock: within a process the state lock orders evictor and takers already.
final class EvictionIntents: Sendable {
  private static let entryCount = 4096
  /// More victims than entries: every block may be one.
  private static let everything: UInt64 = 0xFFFF_FFFF
  static let byteCount = 16 + entryCount * 16

  /// nil on a read-only store, which takes no leases.
  private let memory: MappedMemory?
  private let start: Int
  private let owner: OwnerID
  /// What this process has announced and not taken back.
  private let announced = Monitor<UInt64>(0)

  /// The words begin at byte `start` of the mapping.
  init(memory: MappedMemory?, start: Int, owner: OwnerID) {
    self.memory = memory
    self.start = start
    self.owner = owner
  }

  private func load(_ word: Int) -> UInt64 { memory?.atomicLoad(at: start + word * 8) ?? 0 }

  private func store(_ value: UInt64, _ word: Int) {
    memory?.atomicStore(value, at: start + word * 8)
  }

  // MARK: The evictor

  /// Inside the write transaction, before the leases are looked at.
  func announce(_ ranges: [RemovedRange]) {
    // Of an evictor before, whose commit is through, or it would still hold the catalog.
    store(0, 0)
    let count = ranges.count <= Self.entryCount ? UInt64(ranges.count) : Self.everything
    if count != Self.everything {
      for (index, range) in ranges.enumerated() {
        store(range.run.rawValue, 2 + index * 2)
        store(UInt64(range.firstPosition), 3 + index * 2)
      }
    }
    let announcement = UInt64(owner.rawValue) << 32 | count
    store(announcement, 0)
    announced.withLock { $0 = announcement }
  }

  /// After the transaction, whichever way it ended.
  func withdraw() {
    let own = announced.withLock { announced in
      defer { announced = 0 }
      return announced
    }
    // The next evictor, in another process, may have announced its own by now.
    if own != 0 { _ = memory?.atomicCompareExchange(at: start, expected: own, desired: 0) }
  }

  // MARK: Takers and loaders

  /// The other process that is about to remove blocks, if there is one.
  var foreignEvictor: OwnerID? {
    let announcement = load(0)
    let evictor = OwnerID(rawValue: UInt32(truncatingIfNeeded: announcement >> 32))
    return announcement == 0 || evictor == owner ? nil : evictor
  }

  /// Whether another process is about to remove this block.
  func covers(_ position: BlockPosition) -> Bool {
    let announcement = load(0)
    guard announcement != 0, announcement >> 32 != UInt64(owner.rawValue) else { return false }
    let count = announcement & 0xFFFF_FFFF
    if count == Self.everything { return true }
    for index in 0..<Int(min(count, UInt64(Self.entryCount)))
    where load(2 + index * 2) == position.run.rawValue {
      if position.position >= UInt32(truncatingIfNeeded: load(3 + index * 2)) { return true }
    }
    return false
  }

  /// The announcement of a process that died before it took it back means nothing.
  func forget(deadEvictor: OwnerID) {
    let announcement = load(0)
    guard announcement >> 32 == UInt64(deadEvictor.rawValue) else { return }
    _ = memory?.atomicCompareExchange(at: start, expected: announcement, desired: 0)
  }
}
