internal import Glibc
internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVIndex
internal import KVTiers

/// Moves blocks between disk and archive, slot to slot, with the catalog in step.
///
/// The new slot is durable before the row names it, and the old one is used again once that commit is: whenever the process dies, the row names
/// a slot whose bytes are whole. Belongs to the writer's thread. See docs/internals/tiers.md.
final class TierMoves {
  private let catalog: Catalog
  private let writer: CatalogWriter
  private let diskTier: DiskTier
  private let leases: ActiveLeases
  private let owner: OwnerID
  private let state: Monitor<StoreState>
  private unowned let reserve: SlotReserve
  let archive: ArchiveSlots
  private let files: ArchiveFiles
  private let coders: SlotCoders
  private let limitNanoseconds: UInt64
  /// Is told of a block whose bytes are not what the catalog promised, or could not be read.
  private let onFailedCheck: (PlacedBlock, _ isUnreadable: Bool) -> Void
  private var namespaces: [NamespaceID: ArchivedNamespace] = [:]
  /// Where the search for cold blocks goes on, by slot size.
  private var resume: [Int: StampOrder] = [:]
  /// After a failure nothing is tried for a while: the archive's disk may be away.
  private var failedUntil: UInt64 = 0
  /// Archive slots whose writes were given up before they were over: nobody else gets them until the archive answers again.
  private var lateSlots: [(slot: SlotAddress, slotByteCount: Int)] = []

  /// Blocks that one step moves back to disk.
  static let promotionCount = 64
  /// Bytes of slots that are on their way at once.
  private static let windowByteCount = 32 << 20
  private static let retryNanoseconds: UInt64 = 1_000_000_000

  init(
    _ catalog: Catalog,
    _ writer: CatalogWriter,
    _ diskTier: DiskTier,
    _ leases: ActiveLeases,
    owner: OwnerID,
    state: Monitor<StoreState>,
    reserve: SlotReserve,
    archive: ArchiveSlots,
    files: ArchiveFiles,
    coders: SlotCoders,
    limitNanoseconds: UInt64,
    onFailedCheck: @escaping (PlacedBlock, _ isUnreadable: Bool) -> Void
  ) {
    self.catalog = catalog
    self.writer = writer
    self.diskTier = diskTier
    self.leases = leases
    self.owner = owner
    self.state = state
    self.reserve = reserve
    self.archive = archive
    self.files = files
    self.coders = coders
    self.limitNanoseconds = limitNanoseconds
    self.onFailedCheck = onFailedCheck
  }

  /// Whether blocks that have to leave the disk may go to the archive.
  var isPossible: Bool {
    monotonicNanoseconds() >= failedUntil && !diskTier.isArchiveStuck
  }

  // MARK: Demotion

  /// Moves the coldest blocks of a slot size to the archive; returns the disk slots that are free by that, reserved for this process.
  func demote(
    _ slotByteCount: Int,
    count: Int
  ) throws(StoreError) -> [SlotAddress] {
    var freed: [SlotAddress] = []
    if isPossible {
      for (slot, slotByteCount) in lateSlots { archive.giveBack(slot, slotByteCount) }
      lateSlots = []
    }
    while freed.count < count, isPossible {
      let window = min(count - freed.count, max(1, Self.windowByteCount / slotByteCount))
      let more = try demoteWindow(slotByteCount, window)
      if more.isEmpty { break }
      freed += more
    }
    return freed
  }

  private func demoteWindow(
    _ slotByteCount: Int,
    _ count: Int
  ) throws(StoreError) -> [SlotAddress] {
    let blocks = try coldest(slotByteCount, count)
    let encodings = encode(blocks)
    guard !encodings.isEmpty else { return [] }
    let bound = ArchiveSlotSize.holding(slotByteCount)
    var needed: [Int: Int] = [:]
    for encoding in encodings {
      needed[ArchiveSlotSize.holding(encoding.result?.byteCount ?? 0), default: 0] += 1
    }
    try archive.prepare(needed, upTo: bound, diskSlotByteCount: slotByteCount)
    try reserve.prepareGenerations(encodings.count)
    // What left for the archive's slots may be what was to move.
    let areThere = try areThere(encodings.map(\.block))
    var moves: [Move] = []
    var writes: [DiskTier.Write] = []
    for (encoding, isThere) in zip(encodings, areThere) where isThere {
      guard let result = encoding.result,
        let (slot, size) = archive.take(ArchiveSlotSize.holding(result.byteCount), upTo: bound)
      else { continue }
      guard let generation = reserve.takeGeneration(),
        let place = encoding.seal(slot, size, generation)
      else {
        archive.giveBack(slot, size)
        continue
      }
      moves.append(
        Move(
          block: encoding.block,
          to: place,
          slotByteCount: size,
          payloadByteCount: encoding.payloadByteCount
        )
      )
      unsafe writes.append(
        DiskTier.Write(
          address: slot,
          slotByteCount: size,
          bytes: UnsafeRawBufferPointer(rebasing: encoding.target.readOnly[..<result.byteCount]),
          owner: encoding.target
        )
      )
    }
    guard !moves.isEmpty else { return [] }
    do throws(FileError) {
      try diskTier.write(writes)
      try diskTier.sync(files: Set(writes.map(\.address.fileID)))
    } catch {
      failedUntil = monotonicNanoseconds() &+ Self.retryNanoseconds
      for move in moves {
        if error.errno == ETIMEDOUT {
          lateSlots.append((move.to.address, move.slotByteCount))
        } else {
          archive.giveBack(move.to.address, move.slotByteCount, hasFailed: true)
        }
      }
      return []
    }
    return try withExtendedLifetime(encodings) { () throws(StoreError) in
      try commit(moves, freeing: slotByteCount)
    }
  }

  /// Whether each block is still where it was: nothing is written for a move that would come to nothing.
  private func areThere(_ blocks: [PlacedBlock]) throws(StoreError) -> [Bool] {
    try catalog.lookUp { (transaction) throws(CatalogError) in
      var areThere: [Bool] = []
      for block in blocks {
        areThere.append(
          try transaction.row(block.namespace, block.position)?.places.first == block.place
        )
      }
      return areThere
    }
  }

  private func coldest(
    _ slotByteCount: Int,
    _ count: Int
  ) throws(StoreError) -> [PlacedBlock] {
    // A block that moves stays in the store, so a lease only says that it will soon be used: it moves when nothing else can.
    let leased = leases.deepestPositions(deadOwners: [])
    for isProtecting in leased.isEmpty ? [false] : [true, false] {
      // What is behind the place where the last search ended is looked at again when there is too little before the end.
      for isAgain in [false, true] {
        if isAgain, resume[slotByteCount] == nil { break }
        if isAgain || !isProtecting { resume[slotByteCount] = nil }
        var at = resume[slotByteCount]
        let found = try catalog.lookUp { (transaction) throws(CatalogError) in
          try transaction.coldest(
            pool: SizeClass.number(slotByteCount: slotByteCount),
            in: .disk,
            blockCount: count,
            resume: &at,
            isProtected: { _, run, position in
              isProtecting && (leased[run].map { position <= $0 } ?? false)
            }
          )
        }
        resume[slotByteCount] = at
        if !found.isEmpty { return found }
      }
    }
    return []
  }

  /// Reads blocks and encodes them, several at once; those that are not what they should be are dealt with and left out.
  private func encode(_ blocks: [PlacedBlock]) -> [SlotEncoding] {
    var encodings: [SlotEncoding] = []
    for block in blocks {
      guard let namespace = namespace(block.namespace),
        let encoding = SlotEncoding(coders, block, namespace)
      else { continue }
      encodings.append(encoding)
    }
    let batch = diskTier.startReads(encodings.compactMap(\.request), mayReadHere: true)
    for (index, encoding) in encodings.enumerated() {
      let error = batch.wait(index)
      let isUnreadable = error.map { $0 != .unsound && !$0.isOfProcess } ?? false
      guard isUnreadable || encoding.isDamaged else { continue }
      onFailedCheck(encoding.block, isUnreadable)
    }
    return encodings.filter { $0.result != nil }
  }

  private func namespace(_ id: NamespaceID) -> ArchivedNamespace? {
    if let known = namespaces[id] { return known }
    let row = try? catalog.lookUp { (transaction) throws(CatalogError) in
      try transaction.namespace(id)
    }
    guard let row = row ?? nil, let namespace = ArchivedNamespace(row) else { return nil }
    namespaces[id] = namespace
    return namespace
  }

  // MARK: Promotion

  /// Moves blocks from the archive back to disk; room is made for them as for new ones.
  func promote(_ uses: [ArchiveUse], maySpend: (Int) -> Bool) throws(StoreError) {
    for (slotByteCount, some) in Dictionary(grouping: uses, by: \.slotByteCount) where isPossible {
      let window = max(1, Self.windowByteCount / slotByteCount)
      var next = 0
      while next < some.count {
        try promote(some[next..<min(next + window, some.count)], slotByteCount, maySpend)
        next += window
      }
    }
  }

  private func promote(
    _ uses: ArraySlice<ArchiveUse>,
    _ slotByteCount: Int,
    _ maySpend: (Int) -> Bool
  ) throws(StoreError) {
    let wanted = try catalog.lookUp { (transaction) throws(CatalogError) in
      var blocks: [(block: PlacedBlock, payloadByteCount: Int)] = []
      for use in uses {
        guard let row = try transaction.row(use.namespace, use.position),
          let place = row.places.first, place.tier == .archive, maySpend(slotByteCount)
        else { continue }
        let block = PlacedBlock(namespace: use.namespace, position: use.position, place: place)
        blocks.append((block, Int(row.payloadByteCount)))
      }
      return blocks
    }
    guard !wanted.isEmpty else { return }
    _ = try reserve.prepare([slotByteCount: wanted.count], wanted.count) { _ in }
    // Of what left for this room nothing is read.
    let areThere = try areThere(wanted.map(\.block))
    let blocks = zip(wanted, areThere).filter(\.1).map(\.0)
    let raw = decode(blocks.map(\.block), slotByteCount)
    var moves: [Move] = []
    var writes: [DiskTier.Write] = []
    for (index, (block, payloadByteCount)) in blocks.enumerated() {
      guard let namespace = namespace(block.namespace), let buffer = raw[index],
        let slot = reserve.takeSlot(slotByteCount)
      else { continue }
      let header = unsafe UnsafeMutableRawBufferPointer(
        rebasing: buffer.bytes[0..<namespace.layout.headerByteCount]
      )
      guard let generation = reserve.takeGeneration(),
        let checksum = unsafe SlotHeader.seal(header, generation: generation)
      else {
        reserve.giveBack(slot, slotByteCount)
        continue
      }
      let place = BlockPlace(
        tier: .disk,
        group: block.place.group,
        isInline: false,
        file: slot.file,
        slot: slot.slot,
        storedByteCount: UInt32(payloadByteCount),
        generation: generation,
        headerChecksum: checksum
      )
      moves.append(
        Move(
          block: block,
          to: place,
          slotByteCount: slotByteCount,
          payloadByteCount: payloadByteCount
        )
      )
      let byteCount = roundUp(namespace.layout.headerByteCount + payloadByteCount, to: 4096)
      unsafe writes.append(
        DiskTier.Write(
          address: slot,
          slotByteCount: slotByteCount,
          bytes: UnsafeRawBufferPointer(rebasing: buffer.readOnly[..<byteCount])
        )
      )
    }
    guard !moves.isEmpty else { return }
    do throws(FileError) {
      try diskTier.write(writes)
      try diskTier.sync(files: Set(writes.map(\.address.fileID)))
    } catch {
      for move in moves { reserve.giveBack(move.to.address, slotByteCount, hasFailed: true) }
      throw StoreError(error, .writeSlot)
    }
    _ = try withExtendedLifetime(raw) { () throws(StoreError) in try commit(moves, freeing: nil) }
  }

  /// Raw slots of archived blocks; nil where a read or a check failed, which the next look-up deals with.
  private func decode(_ blocks: [PlacedBlock], _ slotByteCount: Int) -> [AlignedBuffer?] {
    var buffers: [AlignedBuffer?] = Array(repeating: nil, count: blocks.count)
    var requests: [ReadRequest] = []
    var indices: [Int] = []
    for (index, block) in blocks.enumerated() {
      guard let namespace = namespace(block.namespace),
        let buffer = try? AlignedBuffer(byteCount: slotByteCount, isZeroed: true),
        let decoding = unsafe SlotDecoding(
          coders,
          block.place,
          namespace.layout,
          regions: [0..<namespace.identity.regionByteCounts.count],
          into: buffer.bytes,
          owner: buffer
        ), let request = decoding.request(files)
      else { continue }
      buffers[index] = buffer
      requests.append(request)
      indices.append(index)
    }
    let batch = diskTier.startReads(requests)
    // As long as the archive's other operations, for all of them together.
    let end = deadline(after: limitNanoseconds)
    for (request, index) in indices.enumerated() {
      switch batch.wait(request, until: end) {
      case .finished(nil): continue
      case .finished: break
      case .unfinished:
        failedUntil = monotonicNanoseconds() &+ Self.retryNanoseconds
        let (buffer, completion) = (buffers[index], requests[request].completion)
        batch.abandon(request) { withExtendedLifetime((buffer, completion)) {} }
      }
      buffers[index] = nil
    }
    return buffers
  }

  // MARK: The commit

  /// A block whose bytes are durable at its new place.
  private struct Move {
    let block: PlacedBlock
    let to: BlockPlace
    /// Of the new slot.
    let slotByteCount: Int
    let payloadByteCount: Int
  }

  /// Lets the rows name the new places; returns the disk slots that this frees, reserved for this process, if a size is given.
  private func commit(
    _ moves: [Move],
    freeing slotByteCount: Int?
  ) throws(StoreError) -> [SlotAddress] {
    let isMoved: [Bool]
    let freed: [SlotAddress]
    do throws(StoreError) {
      (isMoved, freed) = try writer.commit { (transaction) throws(CatalogError) in
        var isMoved: [Bool] = []
        for move in moves {
          // A repair would take it for removed; the next try has another.
          guard
            move.to.generation.rawValue
              >= (try transaction.generationFloor(of: move.block.namespace)).rawValue
          else {
            isMoved.append(false)
            reserve.dropGenerations()
            continue
          }
          isMoved.append(
            try transaction.move(
              move.block.namespace,
              move.block.position,
              from: move.block.place,
              to: move.to,
              owner: owner
            )
          )
        }
        guard let slotByteCount else { return (isMoved, []) }
        let freed = try transaction.reserveSlots(
          tier: .disk,
          slotByteCount: UInt32(slotByteCount),
          count: isMoved.count { $0 },
          owner: owner
        )
        return (isMoved, freed)
      }
    } catch {
      for move in moves { giveBack(move) }
      throw error
    }
    for (index, move) in moves.enumerated() where !isMoved[index] { giveBack(move) }
    let moved = zip(moves, isMoved).filter(\.1).map(\.0)
    state.withLock { state in
      for move in moved {
        let block = move.block
        state.tree.move(block.namespace, block.position, from: block.place, to: move.to)
        state.meters.noteMove(to: move.to, payloadByteCount: Int(move.payloadByteCount))
      }
    }
    return freed
  }

  /// The slot of a move that was not to be is still reserved by this process.
  private func giveBack(_ move: Move) {
    if move.to.tier == .archive {
      archive.giveBack(move.to.address, move.slotByteCount)
    } else {
      reserve.giveBack(move.to.address, move.slotByteCount)
    }
  }
}

extension BlockPlace {
  /// The slot it names, if it is none in the catalog.
  var address: SlotAddress { SlotAddress(tier: tier, file: file, slot: slot) }
}
