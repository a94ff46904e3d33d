internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVTiers

/// The archive slots that this process has reserved and not used yet.
///
/// Belongs to the writer's thread.
final class ArchiveSlots {
  private let writer: CatalogWriter
  private let diskTier: DiskTier
  private let owner: OwnerID
  private let bounds: SlotBounds
  /// By slot size; the next one to take is the last.
  private var stock: [Int: [SlotAddress]] = [:]
  /// A file could not be made although the bound has room.
  private var growthFailed = false

  /// Reserved at a time where they are free.
  private static let aheadCount = 16
  /// Rounds of eviction for one reservation.
  private static let roundCountMax = 64

  init(_ writer: CatalogWriter, _ diskTier: DiskTier, owner: OwnerID, bounds: SlotBounds) {
    self.writer = writer
    self.diskTier = diskTier
    self.owner = owner
    self.bounds = bounds
  }

  /// A slot of this class, or of the next larger one that has any, up to `bound`.
  func take(_ slotByteCount: Int, upTo bound: Int) -> (slot: SlotAddress, slotByteCount: Int)? {
    let sizes = stock.keys.filter { $0 >= slotByteCount && $0 <= bound }.sorted()
    for size in sizes {
      if let slot = stock[size]?.popLast() { return (slot, size) }
    }
    return nil
  }

  /// What could not be written comes last: where one place is bad, the next blocks lie elsewhere.
  func giveBack(_ slot: SlotAddress, _ slotByteCount: Int, hasFailed: Bool = false) {
    let index = hasFailed ? 0 : stock[slotByteCount]?.count ?? 0
    stock[slotByteCount, default: []].insert(slot, at: index)
  }

  /// Sees to it that there are so many slots of each class, as far as there is room; the coldest blocks of the store leave for them.
  ///
  /// Ends early once as many slots of the disk have become free by that, since then nothing has to be moved.
  func prepare(
    _ needed: [Int: Int],
    upTo bound: Int,
    diskSlotByteCount: Int
  ) throws(StoreError) {
    growthFailed = false
    // A round that gives a file up is followed by one that uses its room.
    for _ in 0..<8 {
      let lacking = lackingCounts(needed, upTo: bound)
      guard !lacking.isEmpty else { return }
      let (reserved, gaveUpFile) = try writer.evict { (eviction) throws(CatalogError) in
        let transaction = eviction.transaction
        var reserved: [Int: [SlotAddress]] = [:]
        for (size, count) in lacking.sorted(by: { $0.key < $1.key }) {
          var count = count
          try take(size, max(count, Self.aheadCount), &reserved, &count, transaction)
          while count > 0, try grow(size, eviction) {
            try take(size, max(count, Self.aheadCount), &reserved, &count, transaction)
          }
          if count > 0 { try takeLarger(than: size, upTo: bound, &reserved, &count, transaction) }
          try evict(for: size, upTo: bound, &reserved, &count, eviction)
          if !eviction.filesToRemove.isEmpty { break }
        }
        return (reserved, !eviction.filesToRemove.isEmpty)
      }
      for (size, slots) in reserved { stock[size] = slots.reversed() + (stock[size] ?? []) }
      guard gaveUpFile else { return }
    }
  }

  /// What the stock does not have, larger slots counted for smaller ones.
  private func lackingCounts(_ needed: [Int: Int], upTo bound: Int) -> [Int: Int] {
    var available = stock.mapValues(\.count)
    var lacking: [Int: Int] = [:]
    for (size, count) in needed.sorted(by: { $0.key > $1.key }) {
      var count = count
      for larger in available.keys.filter({ $0 >= size && $0 <= bound }).sorted() where count > 0 {
        let taken = min(count, available[larger] ?? 0)
        available[larger, default: 0] -= taken
        count -= taken
      }
      if count > 0 { lacking[size] = count }
    }
    return lacking
  }

  private func take(
    _ size: Int,
    _ wanted: Int,
    _ reserved: inout [Int: [SlotAddress]],
    _ count: inout Int,
    _ transaction: WriteTransaction
  ) throws(CatalogError) {
    let slots = try transaction.reserveSlots(
      tier: .archive,
      slotByteCount: UInt32(size),
      count: wanted,
      owner: owner
    )
    reserved[size, default: []] += slots
    count -= min(count, slots.count)
  }

  private func takeLarger(
    than size: Int,
    upTo bound: Int,
    _ reserved: inout [Int: [SlotAddress]],
    _ count: inout Int,
    _ transaction: WriteTransaction
  ) throws(CatalogError) {
    let files = try transaction.slotFiles().filter { $0.tier == .archive }
    let larger = Set(files.map { Int($0.slotByteCount) }).filter { $0 > size && $0 <= bound }
    for size in larger.sorted() where count > 0 {
      try take(size, count, &reserved, &count, transaction)
    }
  }

  /// Evicts the store's coldest blocks until there are slots, or a file was given up for whose room the rest has to wait.
  private func evict(
    for size: Int,
    upTo bound: Int,
    _ reserved: inout [Int: [SlotAddress]],
    _ count: inout Int,
    _ eviction: Eviction
  ) throws(CatalogError) {
    let transaction = eviction.transaction
    let pools = Set(try transaction.namespaces().map(\.pool)).subtracting([0])
    var rounds = 0
    while count > 0, rounds < Self.roundCountMax {
      rounds += 1
      let summary = try eviction.evict(pools: pools, blockCount: count)
      guard summary.blockCount > 0 else { return }
      let freed = summary.freedSlots.filter { $0.tier == .disk }.count
      count -= min(count, freed)
      guard count > 0 else { return }
      try take(size, count, &reserved, &count, transaction)
      if count > 0 { try takeLarger(than: size, upTo: bound, &reserved, &count, transaction) }
      if count > 0 { try giveUpFile(besides: size, reserved, eviction) }
      guard eviction.filesToRemove.isEmpty else { return }
    }
  }

  // MARK: Files

  private func grow(_ size: Int, _ eviction: Eviction) throws(CatalogError) -> Bool {
    let transaction = eviction.transaction
    guard !growthFailed, !diskTier.isArchiveStuck else { return false }
    let files = try transaction.slotFiles().filter { $0.tier == .archive }
    // What a process that died left behind: nobody else makes or removes files while this transaction is open.
    diskTier.settleStrayFiles(
      of: .archive,
      known: Set(files.map { SlotFileID(tier: .archive, file: $0.file) }),
      leaving: Set(eviction.filesToRemove)
    )
    let usedByteCount = files.reduce(diskTier.setAsideByteCount(of: .archive)) {
      $0 + Int($1.slotByteCount) * Int($1.slotCount)
    }
    let room = bounds.archive - usedByteCount
    // There is room for it after all.
    if room >= 0, try transaction.takeBackSlotFile(tier: .archive, slotByteCount: size) {
      return true
    }
    let slotCount = min(max(bounds.archiveFile / size, 1), DiskTier.slotCountMax, room / size)
    guard slotCount > 0 else { return false }
    let file = SlotFileID(
      tier: .archive,
      file: try transaction.createSlotFile(
        tier: .archive,
        slotByteCount: UInt32(size),
        slotCount: UInt32(slotCount)
      )
    )
    do throws(FileError) {
      try diskTier.createFile(file, slotByteCount: size, slotCount: slotCount)
    } catch {
      guard error.isNoSpace else { throw .io(errno: error.errno) }
      // The disk is fuller than the bound says: make do with what there is.
      growthFailed = true
      _ = try transaction.removeSlotFile(tier: .archive, file: file.file)
      return false
    }
    return true
  }

  /// Gives an empty file of another class up; its room is there once that is committed and the file removed.
  private func giveUpFile(
    besides size: Int,
    _ reserved: [Int: [SlotAddress]],
    _ eviction: Eviction
  ) throws(CatalogError) {
    let held = Set((Array(stock.values) + Array(reserved.values)).joined().map(\.file))
    let empty = try eviction.transaction.slotFiles().first {
      $0.tier == .archive && Int($0.slotByteCount) != size && $0.usedCount == 0
        && !held.contains($0.file)
    }
    guard let empty else { return }
    try eviction.removeSlotFile(SlotFileID(tier: .archive, file: empty.file))
  }

  /// Frees what is held reserved; at close, and when sizes are wanted of which none is held.
  func releaseAll(_ transaction: WriteTransaction) throws(CatalogError) {
    for slots in stock.values where !slots.isEmpty {
      try transaction.releaseReservation(slots, owner: owner)
    }
  }

  var isEmpty: Bool { stock.values.allSatisfy(\.isEmpty) }

  func forgetAll() { stock = [:] }
}
