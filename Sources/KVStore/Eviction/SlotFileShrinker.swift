internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVTiers

/// Brings a store that is larger than its capacity back into it: a store that was opened with less than before.
///
/// File by file: the blocks of one go to free slots of others of its size, slot to slot, then the file is given back to the
/// file system. Where no file's blocks fit into the others, the blocks go that are next in the order of eviction (to the
/// archive, if there is one). So what stays is what would have stayed had the store never been larger. The new slots are
/// durable before the rows name them (as in `TierMoves`); a process that dies in between leaves a file that nobody puts
/// blocks into, and the next one goes on with it.
///
/// Belongs to the writer's thread.
final class SlotFileShrinker {
  private let catalog: Catalog
  private let writer: CatalogWriter
  private let diskTier: DiskTier
  private let owner: OwnerID
  private let state: Monitor<StoreState>
  private let slots: SlotReserve
  /// What the slot files of a tier may take; nil = whatever they do.
  private let bound: (Tier) -> Int?
  /// Files with slots in use that are no block's as far as their bytes tell: verify and repair deal with those.
  private var stuck: Set<UInt32> = []

  /// Bytes of slots that are on their way at once.
  private static let windowByteCount = 32 << 20
  /// Blocks that leave at a time where a file's blocks do not fit into the others.
  private static let evictedCountMax = 1024

  init(
    _ catalog: Catalog,
    _ writer: CatalogWriter,
    _ diskTier: DiskTier,
    owner: OwnerID,
    state: Monitor<StoreState>,
    slots: SlotReserve,
    bound: @escaping (Tier) -> Int?
  ) {
    self.catalog = catalog
    self.writer = writer
    self.diskTier = diskTier
    self.owner = owner
    self.state = state
    self.slots = slots
    self.bound = bound
  }

  /// What a step came to.
  enum Step {
    /// Every tier is within its bound.
    case done
    /// There is more to do.
    case more
    /// Leases, pins or other processes' slots are in the way.
    case held
  }

  /// One window of blocks, one file, or one eviction.
  func step() throws(StoreError) -> Step {
    for tier in [Tier.disk, .archive] {
      guard let bound = bound(tier), try excess(of: tier, over: bound) > 0 else { continue }
      if tier == .archive, diskTier.isArchiveStuck { continue }
      // Slots that were reserved ahead are in the way.
      try slots.releaseAll()
      return try shrink(tier)
    }
    return .done
  }

  /// Bytes of a tier's slot files over a bound.
  private func excess(of tier: Tier, over bound: Int) throws(StoreError) -> Int {
    let files = try catalog.lookUp { (transaction) throws(CatalogError) in
      try transaction.slotFiles()
    }
    let byteCount = files.reduce(0) { $0 + ($1.tier == tier ? $1.byteCount : 0) }
    return byteCount - bound
  }

  private func shrink(_ tier: Tier) throws(StoreError) -> Step {
    let candidates = try candidates(tier)
    guard let best = candidates.first else { return .held }
    if best.lackingCount == 0 { return try empty(best.file) }
    return try makeRoom(tier, best.lackingCount) ? .more : .held
  }

  // MARK: The file to give up

  private struct Candidate {
    let file: SlotFileRow
    /// So many of its blocks fit nowhere else.
    let lackingCount: Int
  }

  /// The files that can be emptied, the easiest first: one that was begun, then the one with the fewest bytes to move.
  private func candidates(_ tier: Tier) throws(StoreError) -> [Candidate] {
    let (files, held) = try catalog.lookUp { (transaction) throws(CatalogError) in
      let files = try transaction.slotFiles().filter { $0.tier == tier }
      // Nobody moves what another process is about to write, or what is about to be overwritten.
      let held = Set(try transaction.reservations().flatMap(\.slots).map(\.fileID))
      return (files, held)
    }
    var candidates: [Candidate] = []
    for file in files
    where !held.contains(SlotFileID(tier: tier, file: file.file)) && !stuck.contains(file.file) {
      let freeElsewhere = files.reduce(0) { count, other in
        guard other.file != file.file, other.slotByteCount == file.slotByteCount,
          !other.isBeingEmptied
        else { return count }
        return count + Int(other.slotCount) - Int(other.usedCount)
      }
      let lacking = max(0, Int(file.usedCount) - freeElsewhere)
      candidates.append(Candidate(file: file, lackingCount: lacking))
    }
    return candidates.sorted { a, b in
      let left = (a.lackingCount, a.file.isBeingEmptied ? 0 : 1, a.file.usedByteCount)
      return left < (b.lackingCount, b.file.isBeingEmptied ? 0 : 1, b.file.usedByteCount)
    }
  }

  /// Lets blocks go in the order of eviction; false when none may.
  private func makeRoom(_ tier: Tier, _ lackingCount: Int) throws(StoreError) -> Bool {
    let count = min(lackingCount, Self.evictedCountMax)
    if tier == .disk, try demote(count) { return true }
    return try writer.evict { (eviction) throws(CatalogError) in
      let pools = Set(try eviction.transaction.namespaces().map(\.pool)).subtracting([0])
      if tier == .disk {
        try eviction.evict(pools: pools, blockCount: count)
      } else {
        let share = (count + pools.count - 1) / max(pools.count, 1)
        for pool in pools.sorted() {
          try eviction.evictColdest(pool: pool, in: tier, blockCount: share)
        }
      }
      return eviction.removedBlockCount > 0
    }
  }

  /// Moves cold blocks of each slot size to the archive, as many of each as its part of the disk is; false when none went.
  private func demote(_ count: Int) throws(StoreError) -> Bool {
    guard let moves = slots.moves, moves.isPossible else { return false }
    let files = try catalog.lookUp { (transaction) throws(CatalogError) in
      try transaction.slotFiles().filter { $0.tier == .disk }
    }
    let usedCounts = Dictionary(grouping: files, by: \.slotByteCount)
      .mapValues { $0.reduce(0) { $0 + Int($1.usedCount) } }
    let usedCount = usedCounts.values.reduce(0, +)
    var freed: [SlotAddress] = []
    for (size, used) in usedCounts.sorted(by: { $0.key < $1.key }) where used > 0 {
      let share = (count * used + usedCount - 1) / usedCount
      freed += try moves.demote(Int(size), count: share)
    }
    if !freed.isEmpty { try release(freed) }
    return !freed.isEmpty
  }

  // MARK: Moving its blocks

  private struct Move {
    let block: PlacedBlock
    let to: BlockPlace
  }

  /// Moves a window of a file's blocks elsewhere; the last one gives the file back.
  private func empty(_ file: SlotFileRow) throws(StoreError) -> Step {
    let size = Int(file.slotByteCount)
    let window = max(1, Self.windowByteCount / size)
    let (used, targets) = try writer.commit { (transaction) throws(CatalogError) in
      try transaction.beginEmptying(tier: file.tier, file: file.file)
      let used = try transaction.usedSlots(file.tier, file.file) ?? []
      let targets = try transaction.reserveSlots(
        tier: file.tier,
        slotByteCount: file.slotByteCount,
        count: min(used.count, window),
        owner: owner
      )
      return (used, targets)
    }
    var moves: [Move] = []
    do throws(StoreError) {
      moves = try copy(used.prefix(targets.count), of: file, to: targets)
    } catch {
      try release(targets)
      throw error
    }
    let unused = Set(targets).subtracting(moves.map(\.to.address))
    if try !commit(moves, unused: unused, file) { stuck.insert(file.file) }
    return .more
  }

  private func release(_ targets: [SlotAddress]) throws(StoreError) {
    try writer.commit { (transaction) throws(CatalogError) in
      try transaction.releaseReservation(targets, owner: owner)
    }
  }

  /// Reads slots, and writes those that are blocks of the catalog into others, synced.
  private func copy(
    _ used: ArraySlice<UInt32>,
    of file: SlotFileRow,
    to targets: [SlotAddress]
  ) throws(StoreError) -> [Move] {
    let size = Int(file.slotByteCount)
    var buffers: [AlignedBuffer] = []
    var requests: [ReadRequest] = []
    for slot in used {
      guard let buffer = try? AlignedBuffer(byteCount: size) else { throw .outOfMemory }
      unsafe requests.append(
        ReadRequest(
          address: SlotAddress(tier: file.tier, file: file.file, slot: slot),
          slotByteCount: size,
          offset: 0,
          buffer: buffer.bytes
        )
      )
      buffers.append(buffer)
    }
    let batch = diskTier.startReads(requests)
    var moves: [Move] = []
    var writes: [DiskTier.Write] = []
    try slots.prepareGenerations(requests.count)
    var free = targets[...]
    for index in requests.indices {
      guard batch.wait(index) == nil, let target = free.first,
        let block = try block(in: buffers[index], at: requests[index].address)
      else { continue }
      guard let place = seal(buffers[index], block.place, target) else { continue }
      free = free.dropFirst()
      moves.append(Move(block: block, to: place))
      unsafe writes.append(
        DiskTier.Write(
          address: target,
          slotByteCount: size,
          bytes: buffers[index].readOnly,
          owner: buffers[index]
        )
      )
    }
    guard !writes.isEmpty else { return [] }
    do throws(FileError) {
      try diskTier.write(writes)
      try diskTier.sync(files: Set(writes.map(\.address.fileID)))
    } catch {
      throw StoreError(error, .writeSlot)
    }
    return moves
  }

  /// The block whose row names a slot with these bytes; nil for bytes that no row means.
  private func block(
    in buffer: AlignedBuffer,
    at address: SlotAddress
  ) throws(StoreError) -> PlacedBlock? {
    guard let header = unsafe SlotHeaderView(buffer.readOnly) else { return nil }
    let (namespace, key) = (header.namespaceID, header.blockKey)
    return try catalog.lookUp { (transaction) throws(CatalogError) in
      guard let position = try transaction.find(namespace, key),
        let place = try transaction.row(namespace, position)?.places.first,
        place.address == address, !place.isInline, place.headerChecksum == header.checksum
      else { return nil }
      return PlacedBlock(namespace: namespace, position: position, place: place)
    }
  }

  /// Gives a copy a generation of its own; nil when none is left.
  private func seal(
    _ buffer: AlignedBuffer,
    _ place: BlockPlace,
    _ target: SlotAddress
  ) -> BlockPlace? {
    guard let header = unsafe SlotHeaderView(buffer.readOnly), header.headerByteCount > 0,
      unsafe header.headerByteCount <= buffer.bytes.count
    else { return nil }
    let bytes = unsafe UnsafeMutableRawBufferPointer(
      rebasing: buffer.bytes[0..<header.headerByteCount]
    )
    guard let generation = slots.takeGeneration(),
      let checksum = unsafe SlotHeader.seal(bytes, generation: generation)
    else { return nil }
    var place = place
    place.file = target.file
    place.slot = target.slot
    place.generation = generation
    place.headerChecksum = checksum
    return place
  }

  /// Lets the rows name the new slots, and gives the file back if nothing is left in it; false when nothing has changed.
  private func commit(
    _ moves: [Move],
    unused: Set<SlotAddress>,
    _ file: SlotFileRow
  ) throws(StoreError) -> Bool {
    var moved: [Move] = []
    let isGone = try writer.evict { (eviction) throws(CatalogError) in
      let transaction = eviction.transaction
      moved = []
      var left = Array(unused)
      for move in moves {
        // A repair would take it for removed.
        let floor = try transaction.generationFloor(of: move.block.namespace)
        let isMoved =
          move.to.generation.rawValue >= floor.rawValue
          ? try transaction.move(
            move.block.namespace,
            move.block.position,
            from: move.block.place,
            to: move.to,
            owner: owner
          ) : false
        if isMoved { moved.append(move) } else { left.append(move.to.address) }
      }
      try transaction.releaseReservation(left, owner: owner)
      guard try transaction.usedSlots(file.tier, file.file)?.isEmpty == true else { return false }
      try eviction.removeSlotFile(SlotFileID(tier: file.tier, file: file.file))
      return true
    }
    state.withLock { [moved] state in
      for move in moved {
        let block = move.block
        state.tree.move(block.namespace, block.position, from: block.place, to: move.to)
      }
    }
    return isGone || !moved.isEmpty
  }
}

extension SlotFileRow {
  fileprivate var byteCount: Int { Int(slotByteCount) * Int(slotCount) }
  fileprivate var usedByteCount: Int { Int(slotByteCount) * Int(usedCount) }
}
