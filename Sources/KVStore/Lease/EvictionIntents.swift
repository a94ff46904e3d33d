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
/// owner << 32 + count | owner of a filter | count × (run, first position), or the filter
/// ```
///
/// More victims than entries are announced as a Bloom filter of their runs (B. H. Bloom, Space/time trade-offs in hash
/// coding, CACM 13(7), 1970), in the same bytes: three bits for a run, so that of 10,000 runs one other run in 5,000 is
/// taken for one of them.
///
/// Needs no lock: within a process the state lock orders evictor and takers already.
final class EvictionIntents: Sendable {
  private static let entryCount = 4096
  /// More victims than entries: their runs are in the filter that the same owner has made.
  ///
  /// Of another version there is none, and every block may be one.
  private static let many: UInt64 = 0xFFFF_FFFF
  private static let filterBitCount: UInt64 = UInt64(entryCount) * 16 * 8
  private static let filterHashCount = 3
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
    let count = ranges.count <= Self.entryCount ? UInt64(ranges.count) : Self.many
    if count == Self.many {
      announceFilter(of: ranges)
    } else {
      for (index, range) in ranges.enumerated() {
        store(range.run.rawValue, 2 + index * 2)
        store(UInt64(range.firstPosition), 3 + index * 2)
      }
    }
    let announcement = UInt64(owner.rawValue) << 32 | count
    store(announcement, 0)
    announced.withLock { $0 = announcement }
  }

  private func announceFilter(of ranges: [RemovedRange]) {
    var words = [UInt64](repeating: 0, count: Self.entryCount * 2)
    for range in ranges {
      for bit in Self.filterBits(range.run) { words[Int(bit / 64)] |= 1 << (bit % 64) }
    }
    for (index, word) in words.enumerated() { store(word, 2 + index) }
    store(UInt64(owner.rawValue), 1)
  }

  /// Where a run is in the filter: runs are numbered one after the other, so their bits are spread (splitmix64).
  private static func filterBits(_ run: RunID) -> [UInt64] {
    var state = run.rawValue
    return (0..<filterHashCount).map { _ in
      state &+= 0x9E37_79B9_7F4A_7C15
      var bits = state
      bits = (bits ^ (bits >> 30)) &* 0xBF58_476D_1CE4_E5B9
      bits = (bits ^ (bits >> 27)) &* 0x94D0_49BB_1331_11EB
      return (bits ^ (bits >> 31)) % filterBitCount
    }
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
    if count == Self.many {
      // Without its filter every block may be one.
      return load(1) != announcement >> 32
        || Self.filterBits(position.run).allSatisfy { load(2 + Int($0 / 64)) >> ($0 % 64) & 1 == 1 }
    }
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
