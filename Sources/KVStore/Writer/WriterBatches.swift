internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVIndex
internal import KVTiers

/// Turns queued touches and blocks into slots, writes, syncs and commits.
///
/// Payload is written as it is taken from the queue; one sync and one commit publish all that was written since the last.
///
/// Runs on the writer's thread only.
final class WriterBatches: @unchecked Sendable {
  // Unchecked: the writer's thread alone touches the mutable state.
  unowned let core: StoreCore
  let slots: SlotReserve
  private let shrinker: SlotFileShrinker
  /// The store is larger than its capacity, and was so when that was looked at last.
  private(set) var isOverCapacity = false
  /// When the house was kept last, and whether it ever needs it.
  var housekeeping = Housekeeping()
  init(core: StoreCore) {
    self.core = core
    slots = SlotReserve(
      core.catalog,
      core.catalogWriter,
      core.diskTier,
      core.ownerFiles,
      owner: core.owner,
      bounds: core.slotBounds,
      state: core.state,
      health: core.health,
      sweeper: core.namespaceSweeper
    )
    shrinker = SlotFileShrinker(
      core.catalog,
      core.catalogWriter,
      core.diskTier,
      owner: core.owner,
      state: core.state,
      slots: slots
    ) { [unowned core] in core.slotByteBound(of: $0) }
    if core.slotBounds.archive > 0 { slots.moves = tierMoves() }
  }

  private func tierMoves() -> TierMoves {
    TierMoves(
      core.catalog,
      core.catalogWriter,
      core.diskTier,
      core.activeLeases,
      owner: core.owner,
      state: core.state,
      reserve: slots,
      archive: ArchiveSlots(
        core.catalogWriter,
        core.diskTier,
        owner: core.owner,
        bounds: core.slotBounds
      ),
      files: core.archiveFiles,
      coders: core.coders,
      limitNanoseconds: core.configuration.archiveLimitNanoseconds
    ) { [unowned core] block, isUnreadable in
      guard let open = core.state.withLock({ $0.namespaces.namespace(block.namespace) })
      else { return }
      core.failedCheck(open, block.position, block.place, isUnreadable: isUnreadable)
    }
  }

  /// A pending block with its slot.
  struct Placed {
    let block: PendingBlock
    var place: BlockPlace
    var outcome: Outcome = .waiting

    enum Outcome {
      case waiting
      case published(BlockPosition, BlockPlace)
      case droppedFull, droppedParent
      case droppedError(StoreError)
      /// Published, and evicted in the same commit: its namespace has room for less.
      case droppedQuota
    }

    /// What the handles that offloaded the block hear of it.
    var fate: FlushLedger.Fate {
      switch outcome {
      case .published(let position, _): .durable(position)
      case .droppedFull: .full
      case .droppedQuota: .quota
      case .droppedParent: .parent
      case .droppedError(let error): .error(error)
      case .waiting: .error(.poisoned)
      }
    }

    mutating func noteRemoval(_ ranges: [RemovedRange]) {
      guard case .published(let at, _) = outcome else { return }
      let isGone = ranges.contains { range in
        range.run == at.run && range.firstPosition <= at.position
          && UInt64(at.position) < UInt64(range.firstPosition) + UInt64(range.blockCount)
      }
      if isGone { outcome = .droppedQuota }
    }
  }

  /// Operations whose payload is written, and which are in no commit yet.
  private struct Uncommitted {
    var operations: [WriterOperation] = []
    /// Of its blocks.
    var placed: [Placed] = []
    /// Slot files to be synced.
    var files: Set<SlotFileID> = []
    /// Operations at its beginning that the commit which reserved its slots has recorded.
    var recordedCount = 0
    var rowByteCount = 0
  }
  private var uncommitted = Uncommitted()

  // MARK: Writing

  /// Gives the blocks slots and writes their payloads there.
  ///
  /// Commits what their rows and inline payloads would be too much for: together they take a small part of the catalog's map, so that room
  /// can be made in between.
  func write(_ queued: [WriterOperation], willCommit: Bool) {
    let operations = core.density?.learn(queued, willCommit: willCommit, core) ?? queued
    let rowByteCountMax = max((core.catalogUsage?.mapByteCount ?? 0) / 20, 64 << 10)
    var piece: [WriterOperation] = []
    var byteCount = 0
    for operation in operations {
      piece.append(operation)
      guard case .publish(let block) = operation else { continue }
      byteCount += Self.rowByteCount + block.namespace.wordsPerBlock * 4
      if block.namespace.isInline { byteCount += block.payloadByteCount }
      guard uncommitted.rowByteCount + byteCount >= rowByteCountMax else { continue }
      writePiece(piece)
      commit()
      piece = []
      byteCount = 0
    }
    writePiece(piece)
    uncommitted.rowByteCount += byteCount
  }

  /// About what a block's rows take in the catalog, its words and payload excepted.
  private static let rowByteCount = 512

  private func writePiece(_ operations: [WriterOperation]) {
    guard !operations.isEmpty else { return }
    let blocks = operations.compactMap { operation in
      if case .publish(let block) = operation { return block }
      return nil
    }
    // Every pending block is settled, whatever fails from here on.
    var placed = blocks.map { block in
      Placed(
        block: block,
        place: BlockPlace(
          tier: .disk,
          isInline: block.namespace.isInline,
          file: 0,
          slot: 0,
          storedByteCount: UInt32(block.payloadByteCount),
          generation: Generation(rawValue: 0),
          headerChecksum: 0
        )
      )
    }
    do throws(StoreError) {
      if core.health.isPoisoned { throw .poisoned }
      try reserveSlots(blocks, operations)
      try writePayloads(&placed)
    } catch {
      drop(&placed, error)
    }
    uncommitted.operations += operations
    uncommitted.placed += placed
  }

  private func reserveSlots(
    _ blocks: [PendingBlock],
    _ operations: [WriterOperation]
  ) throws(StoreError) {
    if !uncommitted.operations.isEmpty {
      // What leaves for these comes after the uses before them: those are recorded first.
      guard try !slots.prepareWithoutRemoval(blocks) else {
        return
      }
      commit()
    }
    // Touches before the first block come before its evictions.
    let firstBlock = operations.firstIndex { if case .publish = $0 { true } else { false } }
    let leadingTouches = operations[..<(firstBlock ?? operations.endIndex)]
    let hasRecorded = try slots.prepare(blocks) { (transaction) throws(CatalogError) in
      for operation in leadingTouches { try applyUse(operation, transaction, [:]) }
    }
    if hasRecorded { uncommitted.recordedCount = leadingTouches.count }
  }

  /// Blocks whose fate was open go; with no room that is an outcome which the flush counts, and no error.
  private func drop(_ placed: inout [Placed], _ error: StoreError) {
    for index in placed.indices {
      if case .waiting = placed[index].outcome {
        placed[index].outcome = error == .full ? .droppedFull : .droppedError(error)
      }
    }
  }

  // MARK: Committing

  /// Syncs what was written, publishes it, and tells the index.
  func commit() {
    guard !uncommitted.operations.isEmpty else { return }
    var batch = uncommitted
    uncommitted = Uncommitted()
    do throws(StoreError) {
      if core.health.isPoisoned { throw .poisoned }
      do throws(FileError) {
        try core.diskTier.sync(files: batch.files)
      } catch {
        throw StoreError(error, .writeSlot)
      }
      try publishRows(batch.operations[batch.recordedCount...], &batch.placed)
    } catch {
      drop(&batch.placed, error)
    }
    keepUnusedSlots(batch.placed)
    // Before anything else leaves: what leaves without a position in the index would stay there.
    settle(batch.placed)
    slots.keepCatalogInBounds()
  }

  // MARK: Payload

  private func writePayloads(_ placed: inout [Placed]) throws(StoreError) {
    var writes: [DiskTier.Write] = []
    for index in placed.indices {
      let block = placed[index].block
      let namespace = block.namespace
      if !namespace.isInline {
        guard let slot = slots.takeSlot(namespace.layout.slotByteCount) else {
          // A disk that is full before the bound is reached is the system's refusal.
          placed[index].outcome = slots.growthError.map { .droppedError($0) } ?? .droppedFull
          continue
        }
        placed[index].place.file = slot.file
        placed[index].place.slot = slot.slot
      }
      guard let generation = slots.takeGeneration() else {
        placed[index].outcome = .droppedError(.poisoned)
        continue
      }
      placed[index].place.generation = generation
      let memory = unsafe core.hostMemory(of: block.hostSlot)
      let header = unsafe UnsafeMutableRawBufferPointer(
        start: memory,
        count: namespace.layout.headerByteCount
      )
      guard let checksum = unsafe SlotHeader.seal(header, generation: generation) else {
        placed[index].outcome = .droppedError(.poisoned)
        continue
      }
      placed[index].place.headerChecksum = checksum
      if !namespace.isInline {
        let address = SlotAddress(
          tier: .disk,
          file: placed[index].place.file,
          slot: placed[index].place.slot
        )
        // Padding behind the payload stays unwritten where a block is much shorter than its slot.
        let count = roundUp(
          namespace.layout.headerByteCount + block.payloadByteCount,
          to: 4096
        )
        unsafe writes.append(
          DiskTier.Write(
            address: address,
            slotByteCount: namespace.layout.slotByteCount,
            bytes: UnsafeRawBufferPointer(start: memory, count: count)
          )
        )
      }
    }
    guard !writes.isEmpty else { return }
    do throws(FileError) {
      try core.diskTier.write(writes)
      uncommitted.files.formUnion(writes.map(\.address.fileID))
    } catch {
      throw StoreError(error, .writeSlot)
    }
  }

  // MARK: Afterwards

  /// Slots of blocks that were not published are still reserved by this process: the next blocks take them.
  private func keepUnusedSlots(_ placed: [Placed]) {
    for item in placed where !item.block.namespace.isInline && item.place.generation.rawValue > 0 {
      var hasFailed = false
      switch item.outcome {
      case .published(_, let place) where place == item.place: continue
      case .droppedQuota: continue
      case .droppedError: hasFailed = true
      default: break
      }
      slots.giveBack(
        SlotAddress(tier: .disk, file: item.place.file, slot: item.place.slot),
        item.block.namespace.layout.slotByteCount,
        hasFailed: hasFailed
      )
    }
  }

  /// Brings a store that is larger than its capacity a step back into it; true when there is more that can be done.
  func shrinkStep() throws(StoreError) -> Bool {
    // Also after an error there is another try.
    isOverCapacity = true
    let step = try shrinker.step()
    isOverCapacity = step != .done
    return step == .more
  }

  /// What is published from now on gets generations that are yet to be given.
  func dropGenerations() { slots.dropGenerations() }

  /// Frees what this process holds reserved; at close.
  func releaseReservations() throws(StoreError) { try slots.releaseAll() }

  /// Tells the index what became of the blocks, and lets their arena slots go.
  private func settle(_ placed: [Placed]) {
    guard !placed.isEmpty else { return }
    var counts = FlushResult()
    // Ledgers beside the block's own.
    var others: [UInt64: [FlushLedger]] = [:]
    var positions: [UInt64: BlockPosition] = [:]
    for item in placed {
      if case .published(let position, _) = item.outcome { positions[item.block.ticket] = position }
    }
    let heldPools = heldPools(
      Set(
        placed.compactMap { item in
          if case .droppedFull = item.outcome { return item.block.namespace.pool }
          return nil
        }
      )
    )
    core.state.withLock { [positions] state in
      for item in placed {
        let slot = item.block.hostSlot
        switch item.outcome {
        case .published(let position, let place):
          counts.durableBlockCount += 1
          state.tree.publish(slot, as: position, at: place)
        case .waiting, .droppedError:
          // All that waited are settled: by a commit or by its failure.
          counts.droppedErrorBlockCount += 1
          state.tree.remove(inSlot: slot)
        case .droppedFull, .droppedQuota:
          counts.droppedFullBlockCount += 1
          state.tree.remove(inSlot: slot)
        case .droppedParent:
          counts.droppedParentBlockCount += 1
          state.tree.remove(inSlot: slot)
        }
        state.host.unpin(slot)
        let more = state.host.takeOthers(ofTicket: item.block.ticket)
        if !more.isEmpty { others[item.block.ticket] = more }
      }
      // A lease that was taken between the commit and now still names its block by the ticket.
      state.leases.place(positions)
      state.leases.forgetTickets(Set(placed.map(\.block.ticket)))
      for pool in heldPools { state.fullness.noteHeld(pool: pool) }
      state.meters.noteDropped(counts)
    }
    core.state.notifyAll()
    if let remote = core.remote {
      for item in placed {
        guard case .published(let position, _) = item.outcome else { continue }
        remote.noteStored(core, item.block.namespace, position, blockCount: item.block.depth + 1)
      }
      remote.prepareDemotions(core)
    }
    for item in placed {
      let fate = item.fate
      item.block.ledger.note(fate)
      for ledger in others[item.block.ticket] ?? [] { ledger.note(fate) }
    }
  }
}
