internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVTiers

/// The slots and generations that this process has reserved and not used yet.
///
/// Belongs to the writer's thread.
final class SlotReserve {
  private let catalog: Catalog
  private let writer: CatalogWriter
  private let diskTier: DiskTier
  private let ownerFiles: OwnerFiles
  private let owner: OwnerID
  private let bounds: SlotBounds
  private let state: Monitor<StoreState>
  private let health: Health
  private let sweeper: NamespaceSweeper
  /// What makes room on the disk without a loss, where there is an archive; set before the first use.
  var moves: TierMoves?
  /// By slot size; the next one to take is the last.
  private var stock: [Int: [SlotAddress]] = [:]
  /// Sizes for which something had to be evicted, and how many slots there are of each size.
  private var isFullSize: Set<Int> = []
  private var slotCounts: [Int: Int] = [:]
  private var nextGeneration: UInt64 = 0
  private var endGeneration: UInt64 = 0
  /// Why a slot file could not be made although the bound has room: giving others up would not help.
  private(set) var growthError: StoreError?

  /// What may leave the store for slots.
  private enum Removable {
    case nothing
    /// Expired blocks alone: while others could go to the archive.
    case expired
    case anything
  }

  /// Reserved at a time where they are free (syncs are what an SSD charges for); evictions are made for what is needed only.
  private static let aheadCount = 256
  private static let generationsAhead: UInt64 = 4096

  init(
    _ catalog: Catalog,
    _ writer: CatalogWriter,
    _ diskTier: DiskTier,
    _ ownerFiles: OwnerFiles,
    owner: OwnerID,
    bounds: SlotBounds,
    state: Monitor<StoreState>,
    health: Health,
    sweeper: NamespaceSweeper
  ) {
    self.catalog = catalog
    self.writer = writer
    self.diskTier = diskTier
    self.ownerFiles = ownerFiles
    self.owner = owner
    self.bounds = bounds
    self.state = state
    self.health = health
    self.sweeper = sweeper
  }

  func takeSlot(_ slotByteCount: Int) -> SlotAddress? { stock[slotByteCount]?.popLast() }

  /// What could not be written comes last: where one place is bad, the next blocks lie elsewhere.
  func giveBack(_ slot: SlotAddress, _ slotByteCount: Int, hasFailed: Bool = false) {
    let index = hasFailed ? 0 : stock[slotByteCount]?.count ?? 0
    stock[slotByteCount, default: []].insert(slot, at: index)
  }

  func takeGeneration() -> Generation? {
    guard nextGeneration < endGeneration else { return nil }
    defer { nextGeneration += 1 }
    return Generation(rawValue: nextGeneration)
  }

  /// Gives up the generations that were reserved ahead.
  func dropGenerations() { nextGeneration = endGeneration }

  /// Makes sure that there is a slot and a generation for each block, as far as there is room.
  ///
  /// What is evicted and reserved for it is committed and synced before this returns, since the slots are overwritten next.
  /// - Returns: whether there was a commit, which has recorded `touches`.
  func prepare(
    _ blocks: [PendingBlock],
    touches: (WriteTransaction) throws(CatalogError) -> Void
  ) throws(StoreError) -> Bool {
    try prepare(slotCounts(of: blocks), blocks.count, touches: touches)
  }

  /// Makes sure of the same if no block has to leave for it; returns whether that was so.
  ///
  /// What could be had is kept.
  func prepareWithoutRemoval(_ blocks: [PendingBlock]) throws(StoreError) -> Bool {
    let needed = slotCounts(of: blocks)
    guard !isReady(needed, blocks.count) else { return true }
    // Where slots are short there is no room to be found without a removal.
    guard !needed.keys.contains(where: isFullSize.contains) else { return false }
    _ = try prepareOnce(needed, blocks.count, removing: .nothing) { _ in }
    return isReady(needed, blocks.count)
  }

  private func lacksSlots(_ needed: [Int: Int]) -> Bool {
    needed.contains { (stock[$0.key]?.count ?? 0) < $0.value }
  }

  private func isReady(_ needed: [Int: Int], _ blockCount: Int) -> Bool {
    !lacksSlots(needed) && endGeneration - nextGeneration >= UInt64(blockCount)
  }

  private func slotCounts(of blocks: [PendingBlock]) -> [Int: Int] {
    var counts: [Int: Int] = [:]
    for block in blocks where !block.namespace.isInline {
      counts[block.namespace.layout.slotByteCount, default: 0] += 1
    }
    return counts
  }

  /// As above, for so many slots of each size and so many generations.
  func prepare(
    _ needed: [Int: Int],
    _ blockCount: Int,
    touches: (WriteTransaction) throws(CatalogError) -> Void
  ) throws(StoreError) -> Bool {
    growthError = nil
    guard !isReady(needed, blockCount) else { return false }
    var hasCommitted = false
    let touchesOnce: (WriteTransaction) throws(CatalogError) -> Void = {
      (transaction) throws(CatalogError) in
      if !hasCommitted { try touches(transaction) }
    }
    if lacksSlots(needed), moves?.isPossible == true {
      _ = try prepareOnce(needed, blockCount, removing: .expired, touches: touchesOnce)
      hasCommitted = true
      // Blocks leave the disk for the archive before any leaves the store.
      for (slotByteCount, count) in needed {
        let lacking = count - (stock[slotByteCount]?.count ?? 0)
        guard lacking > 0 else { continue }
        noteFull(slotByteCount)
        stock[slotByteCount, default: []] += demote(slotByteCount, lacking)
      }
      guard lacksSlots(needed) else { return true }
    }
    // Each round but the last gives up a file of another slot size.
    for _ in 0..<1024 {
      let gaveUpFile = try prepareOnce(
        needed,
        blockCount,
        removing: .anything,
        touches: touchesOnce
      )
      hasCommitted = true
      guard gaveUpFile, lacksSlots(needed) else { break }
    }
    return true
  }

  /// Disk slots that blocks leave for the archive; where that fails, eviction sees to the rest.
  private func demote(_ slotByteCount: Int, _ count: Int) -> [SlotAddress] {
    do throws(StoreError) {
      return try moves?.demote(slotByteCount, count: count) ?? []
    } catch {
      health.poisonIfInternal(error)
      return []
    }
  }

  /// Makes sure of so many generations.
  func prepareGenerations(_ count: Int) throws(StoreError) {
    guard endGeneration - nextGeneration < UInt64(count) else { return }
    // Those that are left are given up, whether it succeeds or not.
    nextGeneration = endGeneration
    let first = try writer.commit { (transaction) throws(CatalogError) in
      transaction.reserveGenerations(count + Int(Self.generationsAhead))
    }
    setGenerations(from: first, count)
  }

  private func setGenerations(from first: Generation, _ count: Int) {
    nextGeneration = first.rawValue
    endGeneration = first.rawValue + UInt64(count) + Self.generationsAhead
  }

  /// Returns whether a file of another slot size was given up, whose room is free now.
  private func prepareOnce(
    _ needed: [Int: Int],
    _ blockCount: Int,
    removing removable: Removable,
    touches: (WriteTransaction) throws(CatalogError) -> Void
  ) throws(StoreError) -> Bool {
    let result = try evict { (eviction) throws(CatalogError) in
      try touches(eviction.transaction)
      var reserved: [Int: [SlotAddress]] = [:]
      // Once a file is given up, the next round sees to the rest: no other may grow into its room yet.
      for (slotByteCount, count) in needed.sorted(by: { $0.key < $1.key })
      where eviction.filesToRemove.isEmpty {
        let lacking = count - (stock[slotByteCount]?.count ?? 0)
        guard lacking > 0 else { continue }
        let slots = try reserve(lacking, slotByteCount, removing: removable, eviction)
        reserved[slotByteCount] = slots
        if removable == .anything, slots.count < lacking, growthError == nil {
          try giveUpFile(
            of: slotByteCount,
            sparing: filesHeld(for: needed, reserved),
            eviction
          )
        }
      }
      let generations = eviction.transaction.reserveGenerations(
        blockCount + Int(Self.generationsAhead)
      )
      return (reserved, generations, !eviction.filesToRemove.isEmpty)
    }
    let (reserved, generations, gaveUpFile) = result
    for (slotByteCount, slots) in reserved { keep(slots, slotByteCount) }
    setGenerations(from: generations, blockCount)
    return gaveUpFile
  }

  /// Lowest address last, so that a chain's blocks lie side by side.
  private func keep(_ slots: [SlotAddress], _ slotByteCount: Int) {
    stock[slotByteCount] = slots.reversed() + (stock[slotByteCount] ?? [])
  }

  /// `CatalogWriter.evict`, with the stock as it was when it is run again or fails.
  private func evict<Result>(
    _ body: (Eviction) throws(CatalogError) -> Result
  ) throws(StoreError) -> Result {
    let before = stock
    growthError = nil
    do throws(StoreError) {
      return try writer.evict { (eviction) throws(CatalogError) in
        stock = before
        return try body(eviction)
      }
    } catch {
      stock = before
      // Of a file that could not be made the catalog knows the number of the error only.
      guard let growthError, error == .full || error.errorNumber == growthError.errorNumber else {
        throw error
      }
      throw growthError
    }
  }

  private func reserve(
    _ lacking: Int,
    _ slotByteCount: Int,
    removing removable: Removable,
    _ eviction: Eviction
  ) throws(CatalogError) -> [SlotAddress] {
    let transaction = eviction.transaction
    var slots: [SlotAddress] = []
    func take(_ count: Int) throws(CatalogError) {
      slots += try transaction.reserveSlots(
        tier: .disk,
        slotByteCount: UInt32(slotByteCount),
        count: count,
        owner: owner
      )
    }
    try take(max(lacking, Self.aheadCount))
    if slots.count < lacking, try freeDeadOwners(transaction) { try take(lacking - slots.count) }
    while slots.count < lacking, try grow(slotByteCount, eviction) {
      try take(max(lacking - slots.count, Self.aheadCount))
    }
    if slots.count < lacking, removable != .nothing, !eviction.hasConflicted {
      try eviction.removeExpired(
        pool: SizeClass.number(slotByteCount: slotByteCount),
        blockCount: lacking - slots.count
      )
      try take(lacking - slots.count)
    }
    if slots.count < lacking, removable == .anything {
      try evictFromDisk(slotByteCount, lacking - slots.count, eviction)
      try take(lacking - slots.count)
    }
    noteSize(slotByteCount, isFull: eviction.hasRemoved, try transaction.slotFiles())
    return slots
  }

  /// Removes the coldest blocks of a slot size that free slots of the disk.
  private func evictFromDisk(
    _ slotByteCount: Int,
    _ count: Int,
    _ eviction: Eviction
  ) throws(CatalogError) {
    let pool = SizeClass.number(slotByteCount: slotByteCount)
    guard try eviction.transaction.slotFiles().contains(where: { $0.tier == .archive }) else {
      try eviction.evict(pools: [pool], blockCount: count)
      return
    }
    // The coldest of all are in the archive: it would be emptied before the first slot of the disk is free.
    try eviction.evictColdest(pool: pool, in: .disk, blockCount: count)
  }

  /// The files in which this process holds slots for the blocks that it is about to write.
  private func filesHeld(
    for needed: [Int: Int],
    _ reserved: [Int: [SlotAddress]]
  ) -> Set<UInt32> {
    let held = needed.keys.flatMap { (stock[$0] ?? []) + (reserved[$0] ?? []) }
    return Set(held.map(\.file))
  }

  private func noteFull(_ slotByteCount: Int) {
    guard isFullSize.insert(slotByteCount).inserted else { return }
    state.withLock { $0.fullness.noteFull(slotByteCount: slotByteCount) }
  }

  private func noteSize(_ slotByteCount: Int, isFull: Bool, _ files: [SlotFileRow]) {
    if isFull { noteFull(slotByteCount) }
    slotCounts[slotByteCount] = files.reduce(0) {
      $1.tier == .disk && Int($1.slotByteCount) == slotByteCount ? $0 + Int($1.slotCount) : $0
    }
  }

  // MARK: Ahead

  /// Whether `keepAhead` would evict.
  var isLow: Bool {
    stock.contains { slotByteCount, slots in
      isFullSize.contains(slotByteCount)
        && slots.count < Self.watermark(slotCount: slotCounts[slotByteCount] ?? 0) / 2
    }
  }

  /// Evicts for slots that are not needed yet, so that the next offload waits for none.
  ///
  /// Only where the slots of that size cannot become more: else they are taken as they come.
  func keepAhead() {
    for (slotByteCount, slots) in stock where isFullSize.contains(slotByteCount) {
      let watermark = Self.watermark(slotCount: slotCounts[slotByteCount] ?? 0)
      guard slots.count < watermark / 2 else { continue }
      do throws(StoreError) {
        if moves?.isPossible == true {
          let count = watermark - slots.count
          stock[slotByteCount, default: []] += demote(slotByteCount, count)
        }
        let count = watermark - (stock[slotByteCount]?.count ?? 0)
        guard count > 0 else { continue }
        let more = try evict { (eviction) throws(CatalogError) in
          try reserve(count, slotByteCount, removing: .anything, eviction)
        }
        stock[slotByteCount] = (stock[slotByteCount] ?? []) + more.reversed()
      } catch {
        health.poisonIfInternal(error)
      }
    }
  }

  /// Slots kept free of so many: a fiftieth, at least 256 where that is no large part of them.
  static func watermark(slotCount: Int) -> Int { max(slotCount / 50, min(256, slotCount / 32)) }

  // MARK: Slot files

  /// Takes a file into use again that was being emptied, or preallocates one more of this slot size within the bound; false
  /// when there is no room.
  private func grow(
    _ slotByteCount: Int,
    _ eviction: Eviction
  ) throws(CatalogError) -> Bool {
    let transaction = eviction.transaction
    let files = try transaction.slotFiles().filter { $0.tier == .disk }
    diskTier.settleStrayFiles(
      of: .disk,
      known: Set(files.map { SlotFileID(tier: .disk, file: $0.file) }),
      leaving: Set(eviction.filesToRemove)
    )
    let usedByteCount = files.reduce(diskTier.setAsideByteCount(of: .disk)) {
      $0 + Int($1.slotByteCount) * Int($1.slotCount)
    }
    let room = bounds.disk - usedByteCount
    // There is room for it after all.
    if room >= 0, try transaction.takeBackSlotFile(tier: .disk, slotByteCount: slotByteCount) {
      return true
    }
    let slotCount = min(
      max(bounds.diskFile / slotByteCount, 1),
      DiskTier.slotCountMax,
      room / slotByteCount
    )
    guard slotCount > 0 else { return false }
    let file = try transaction.createSlotFile(
      tier: .disk,
      slotByteCount: UInt32(slotByteCount),
      slotCount: UInt32(slotCount)
    )
    do throws(FileError) {
      try diskTier.createFile(
        SlotFileID(tier: .disk, file: file),
        slotByteCount: slotByteCount,
        slotCount: slotCount
      )
    } catch {
      growthError = StoreError(error, .allocateSlotFile)
      // Nothing leaves for what could not be written anyway.
      guard error.isNoSpace else { throw .io(errno: error.errno) }
      // The disk is fuller than the bound says: make do with what there is.
      _ = try transaction.removeSlotFile(tier: .disk, file: file)
      return false
    }
    return true
  }

  /// Makes another slot size give up a file: this one has none to evict from.
  ///
  /// Its oldest blocks go until a file is empty. The room is not used before the commit: until then the file has to stay, and both
  /// at once would be more than the bound.
  private func giveUpFile(
    of slotByteCount: Int,
    sparing heldFiles: Set<UInt32>,
    _ eviction: Eviction
  ) throws(CatalogError) {
    let transaction = eviction.transaction
    for _ in 0..<1024 {
      let others = try transaction.slotFiles().filter {
        $0.tier == .disk && Int($0.slotByteCount) != slotByteCount && !heldFiles.contains($0.file)
      }
      if let empty = others.first(where: { $0.usedCount == 0 }) {
        return try eviction.removeSlotFile(SlotFileID(tier: .disk, file: empty.file))
      }
      // Reserved slots of this process count as used: let them go first.
      for (size, slots) in stock where size != slotByteCount && !slots.isEmpty {
        let spare = slots.filter { !heldFiles.contains($0.file) }
        try transaction.releaseReservation(spare, owner: owner)
        stock[size] = slots.filter { heldFiles.contains($0.file) }
      }
      let pools = Set(others.map { SizeClass.number(slotByteCount: Int($0.slotByteCount)) })
      var evictedCount = 0
      for pool in pools.sorted() {
        evictedCount += try eviction.evict(pools: [pool], blockCount: 64).blockCount
      }
      if evictedCount == 0 { return }
    }
  }

  private func freeDeadOwners(
    _ transaction: WriteTransaction
  ) throws(CatalogError) -> Bool {
    var freedAny = false
    for owner in try transaction.ownersWithReservations() where owner != self.owner {
      guard ownerFiles.isDead(owner) else { continue }
      _ = try transaction.freeReservations(ofOwner: owner)
      freedAny = true
    }
    return freedAny
  }

  // MARK: Catalog room

  /// Evicts rows once the catalog is over 80 % of its map (LMDB never shrinks, so its map is the budget).
  func keepCatalogInBounds() {
    // Each round evicts a twentieth: twenty are all there is.
    var roundCount = 0
    while roundCount < 20 {
      guard let usage = try? catalog.usage(), usage.usedByteCount > usage.mapByteCount / 10 * 8
      else {
        return
      }
      do throws(StoreError) {
        guard try sweeper.sweepSome() == 0 else { continue }
        roundCount += 1
        guard try makeCatalogRoom() > 0 else { return }
      } catch {
        health.poisonIfInternal(error)
        return
      }
    }
  }

  /// Evicts about a twentieth of the rows, the oldest of all pools, and at least as many as are wanted.
  ///
  /// Fewer where the pages that LMDB copies for it do not fit either: rows that leave lie all over a small catalog.
  @discardableResult
  func makeCatalogRoom(
    atLeast wantedCount: Int = 16,
    keeping: [RunID: UInt32] = [:]
  ) throws(StoreError) -> Int {
    var blockCount = min(max(catalogBlockCount() / 20, wantedCount), 4096)
    while true {
      do throws(StoreError) {
        return try writer.evict(keeping: keeping) { (eviction) throws(CatalogError) in
          try eviction.evict(pools: nil, blockCount: blockCount).blockCount
        }
      } catch {
        guard error == .full, blockCount > 1 else { throw error }
        blockCount /= 4
      }
    }
  }

  private func catalogBlockCount() -> Int {
    let count = try? catalog.read { (transaction) throws(CatalogError) in
      var count: UInt64 = 0
      for namespace in try transaction.namespaces() {
        count += try transaction.accounting(namespace.id).blockCount
      }
      return count
    }
    return Int(clamping: count ?? 0)
  }

  /// Frees what this process holds reserved; at close.
  func releaseAll() throws(StoreError) {
    guard stock.contains(where: { !$0.value.isEmpty }) || moves?.archive.isEmpty == false else {
      return
    }
    try writer.commit { (transaction) throws(CatalogError) in
      for slots in stock.values where !slots.isEmpty {
        try transaction.releaseReservation(slots, owner: owner)
      }
      try moves?.archive.releaseAll(transaction)
    }
    stock = [:]
    moves?.archive.forgetAll()
  }
}
