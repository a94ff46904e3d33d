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
/// owner | count | count × (run, first position)
/// ```
///
/// Needs no lock: within a process the state lock orders evictor and takers already.
final class EvictionIntents: Sendable {
  private static let entryCount = 4096
  /// More victims than entries: every block may be one.
  private static let everything = UInt64.max
  static let byteCount = 16 + entryCount * 16

  /// nil on a read-only store, which takes no leases.
  private let memory: MappedMemory?
  private let start: Int
  private let owner: OwnerID

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
    store(0, 1)
    store(UInt64(owner.rawValue), 0)
    guard ranges.count <= Self.entryCount else { return store(Self.everything, 1) }
    for (index, range) in ranges.enumerated() {
      store(range.run.rawValue, 2 + index * 2)
      store(UInt64(range.firstPosition), 3 + index * 2)
    }
    store(UInt64(ranges.count), 1)
  }

  /// After the transaction, whichever way it ended.
  func withdraw() {
    // Another's are not ours to take back: its transaction came after.
    guard load(0) == UInt64(owner.rawValue) else { return }
    store(0, 1)
  }

  // MARK: Takers and loaders

  /// The other process that is about to remove blocks, if there is one.
  var foreignEvictor: OwnerID? {
    guard load(1) != 0 else { return nil }
    let evictor = OwnerID(rawValue: UInt32(truncatingIfNeeded: load(0)))
    return evictor == owner || evictor.rawValue == 0 ? nil : evictor
  }

  /// Whether another process is about to remove this block.
  func covers(_ position: BlockPosition) -> Bool {
    guard foreignEvictor != nil else { return false }
    let count = load(1)
    if count == Self.everything { return true }
    for index in 0..<Int(min(count, UInt64(Self.entryCount)))
    where load(2 + index * 2) == position.run.rawValue {
      if position.position >= UInt32(truncatingIfNeeded: load(3 + index * 2)) { return true }
    }
    return false
  }

  /// The announcement of a process that died before it took it back means nothing.
  func forget(deadEvictor: OwnerID) {
    _ = memory?.atomicCompareExchange(
      at: start,
      expected: UInt64(deadEvictor.rawValue),
      desired: 0
    )
  }
}
