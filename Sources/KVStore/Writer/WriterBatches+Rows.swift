internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVTiers

/// What the writer puts into the catalog, and in how many commits.
extension WriterBatches {
  /// In one commit, or in as many as it takes: the pages that LMDB copies for one may be more than a small catalog has left.
  func publishRows(
    _ operations: ArraySlice<WriterOperation>,
    _ placed: inout [Placed]
  ) throws(StoreError) {
    var commits = [RowsCommit(operations: operations, firstBlock: 0)]
    while let commit = commits.popLast() {
      do throws(StoreError) {
        try publishRows(commit, &placed)
      } catch {
        guard error == .full, let halves = commit.halves else { throw error }
        commits += [halves.second, halves.first]
      }
    }
  }

  /// Operations whose rows go into the catalog at once.
  private struct RowsCommit {
    var operations: ArraySlice<WriterOperation>
    /// The place of its first block among all.
    var firstBlock: Int

    /// The places of its blocks among all.
    var blocks: Range<Int> {
      let count = operations.reduce(0) { if case .publish = $1 { $0 + 1 } else { $0 } }
      return firstBlock..<firstBlock + count
    }

    var halves: (first: RowsCommit, second: RowsCommit)? {
      guard operations.count > 1 else { return nil }
      let middle = operations.startIndex + operations.count / 2
      let first = operations[..<middle]
      let blockCount = first.reduce(0) { if case .publish = $1 { $0 + 1 } else { $0 } }
      return (
        RowsCommit(operations: first, firstBlock: firstBlock),
        RowsCommit(operations: operations[middle...], firstBlock: firstBlock + blockCount)
      )
    }
  }

  private func publishRows(
    _ commit: RowsCommit,
    _ placed: inout [Placed]
  ) throws(StoreError) {
    let seconds = UInt32(
      truncatingIfNeeded: core.time.now() / 1_000_000_000
    )
    // Room in the catalog is made once before the commit is halved: else much is evicted for little.
    let roomCountMax = commit.operations.count > 1 ? 1 : 7
    var roomCount = 0
    for _ in 0..<8 {
      var isOutdated = false
      do throws(StoreError) {
        let (outcomes, published, removed) = try core.catalogWriter.evict(
          publishing: Set(placed[commit.blocks].map(\.block.ticket))
        ) { (eviction) throws(CatalogError) in
          isOutdated = try hasOutdatedGenerations(placed[commit.blocks], eviction.transaction)
          if isOutdated { throw .closed }
          return try publishRows(commit, placed, eviction, seconds)
        }
        placed = published
        let ranges = removed.flatMap(\.ranges)
        if !ranges.isEmpty {
          for index in placed.indices { placed[index].noteRemoval(ranges) }
        }
        core.pendingParents.remember(outcomes)
        return
      } catch {
        if isOutdated {
          try renewGenerations(&placed, commit.blocks)
          continue
        }
        // Room in the catalog is made by evicting rows; nothing of this transaction has happened.
        guard error == .full, roomCount < roomCountMax,
          try slots.makeCatalogRoom(
            atLeast: max(2 * commit.operations.count, 16),
            keeping: publishedPositions(placed)
          ) > 0
        else { throw error }
        roomCount += 1
      }
    }
  }

  /// Puts the operations of a commit into its transaction; what it returns counts once that is committed.
  private func publishRows(
    _ commit: RowsCommit,
    _ placed: [Placed],
    _ eviction: Eviction,
    _ seconds: UInt32
  ) throws(CatalogError) -> ([UInt64: BlockPosition], [Placed], [RemovedSummary]) {
    var outcomes: [UInt64: BlockPosition] = [:]
    var placed = placed
    var next = commit.firstBlock
    for operation in commit.operations {
      if case .publish = operation {
        try publishRow(&placed[next], eviction.transaction, &outcomes, seconds)
        next += 1
      } else {
        try applyUse(operation, eviction.transaction, outcomes)
      }
    }
    core.state.withLock { [outcomes] state in state.leases.place(outcomes) }
    // In the same commit, so that no reader finds a namespace over its quota. Should leases be taken on the
    // victims again and again, the next batch sees to it.
    if !eviction.isLastAttempt {
      for namespace in Set(placed[commit.blocks].map(\.block.namespace.id)).sorted()
      where try eviction.transaction.quotaExcess(namespace) != nil {
        try eviction.enforceQuota(namespace)
      }
    }
    return (outcomes, placed, eviction.removed)
  }

  /// Whether a removal by another process came after one of the blocks' generations was reserved.
  ///
  /// Its mark in `identities.kvs` would cover them too, and a repair would not give them back.
  private func hasOutdatedGenerations(
    _ placed: ArraySlice<Placed>,
    _ transaction: WriteTransaction
  ) throws(CatalogError) -> Bool {
    var floors: [NamespaceID: Generation] = [:]
    for item in placed {
      guard case .waiting = item.outcome else { continue }
      let namespace = item.block.namespace.id
      if floors[namespace] == nil {
        floors[namespace] = try transaction.generationFloor(of: namespace)
      }
      if let floor = floors[namespace], item.place.generation.rawValue < floor.rawValue {
        return true
      }
    }
    return false
  }

  /// Gives blocks that are written, and not published, new generations: in their headers, in memory and on disk.
  private func renewGenerations(
    _ placed: inout [Placed],
    _ blocks: Range<Int>
  ) throws(StoreError) {
    slots.dropGenerations()
    try slots.prepareGenerations(blocks.count)
    var writes: [DiskTier.Write] = []
    for index in blocks {
      guard case .waiting = placed[index].outcome else { continue }
      let block = placed[index].block
      let namespace = block.namespace
      let header = unsafe UnsafeMutableRawBufferPointer(
        start: core.hostMemory(of: block.hostSlot),
        count: namespace.layout.headerByteCount
      )
      guard let generation = slots.takeGeneration(),
        let checksum = unsafe SlotHeader.seal(header, generation: generation)
      else {
        placed[index].outcome = .droppedError(.poisoned)
        continue
      }
      placed[index].place.generation = generation
      placed[index].place.headerChecksum = checksum
      guard !namespace.isInline else { continue }
      unsafe writes.append(
        DiskTier.Write(
          address: placed[index].place.address,
          slotByteCount: namespace.layout.slotByteCount,
          bytes: UnsafeRawBufferPointer(header)
        )
      )
    }
    guard !writes.isEmpty else { return }
    do throws(FileError) {
      try core.diskTier.write(writes)
      try core.diskTier.sync(files: Set(writes.map(\.address.fileID)))
    } catch {
      throw StoreError(error, .writeSlot)
    }
  }

  /// The blocks that an earlier commit of this batch has published: the index does not know yet where they are.
  private func publishedPositions(_ placed: [Placed]) -> [RunID: UInt32] {
    var published: [RunID: UInt32] = [:]
    for item in placed {
      guard case .published(let at, _) = item.outcome else { continue }
      published[at.run] = max(published[at.run] ?? 0, at.position)
    }
    return published
  }

  private func publishRow(
    _ placed: inout Placed,
    _ transaction: WriteTransaction,
    _ outcomes: inout [UInt64: BlockPosition],
    _ seconds: UInt32
  ) throws(CatalogError) {
    guard case .waiting = placed.outcome else { return }
    let block = placed.block
    guard let parent = position(of: block.parent, outcomes) else {
      placed.outcome = .droppedParent
      return
    }
    let memory = unsafe core.hostMemory(of: block.hostSlot)
    guard
      let header = unsafe SlotHeaderView(
        UnsafeRawBufferPointer(start: memory, count: block.namespace.layout.headerByteCount)
      )
    else {
      placed.outcome = .droppedError(.poisoned)
      return
    }
    let inlinePayload: UnsafeRawBufferPointer? =
      block.namespace.isInline
      ? unsafe Self.packInline(memory, header, block.payloadByteCount, block.namespace) : nil
    var row = unsafe NewBlock(
      blockKey: block.blockKey,
      parent: parent,
      words: header.words,
      extra: header.extra,
      payloadByteCount: UInt32(block.payloadByteCount),
      createdSeconds: seconds,
      place: placed.place,
      inlinePayload: inlinePayload
    )
    row.blockExpiry = block.offered.blockExpiry
    row.priority = block.offered.priority
    defer { unsafe inlinePayload?.deallocate() }
    var outcome = try transaction.publish(block.namespace.id, row, owner: core.owner)
    switch outcome {
    case .corruptRow(let position):
      _ = try transaction.removeSubtree(block.namespace.id, at: position, reason: .corrupt)
      outcome = try transaction.publish(block.namespace.id, row, owner: core.owner)
    case .expired(let position):
      // No look-up finds it, so the index has nothing of it either.
      _ = try transaction.removeSubtree(block.namespace.id, at: position, reason: .expired)
      outcome = try transaction.publish(block.namespace.id, row, owner: core.owner)
    default: break
    }
    switch outcome {
    case .stored(let position):
      placed.outcome = .published(position, placed.place)
      outcomes[block.ticket] = position
    case .duplicate(let position):
      // Another process was first: its copy is the one.
      outcomes[block.ticket] = position
      guard let place = try transaction.row(block.namespace.id, position)?.places.first else {
        placed.outcome = .droppedError(.corrupt(.catalogPage))
        return
      }
      // A copy in an archive that is away is of no use: this one takes its place.
      var isMoved = false
      if place.tier == .archive, !core.diskTier.hasFolder(of: .archive) {
        isMoved = try transaction.move(
          block.namespace.id,
          position,
          from: place,
          to: placed.place,
          owner: core.owner
        )
      }
      placed.outcome = .published(position, isMoved ? placed.place : place)
    case .collision:
      core.state.withLock { $0.meters.noteCollisions(1) }
      placed.outcome = .droppedParent
    case .parentMissing:
      placed.outcome = .droppedParent
    case .corruptRow, .expired, .slotNotReserved:
      placed.outcome = .droppedError(.poisoned)
    }
  }

  /// Header without its padding, then the payload: what table `payloads` holds.
  ///
  /// The caller frees it.
  private static func packInline(
    _ memory: UnsafeMutableRawPointer,
    _ header: SlotHeaderView,
    _ payloadByteCount: Int,
    _ namespace: NamespaceCore
  ) -> UnsafeRawBufferPointer {
    let used = Int(header.usedByteCount)
    let packed = UnsafeMutableRawBufferPointer.allocate(
      byteCount: used + payloadByteCount,
      alignment: 8
    )
    if let base = packed.baseAddress {
      unsafe base.copyMemory(from: memory, byteCount: used)
      unsafe base.advanced(by: used).copyMemory(
        from: memory.advanced(by: namespace.layout.headerByteCount),
        byteCount: payloadByteCount
      )
    }
    return UnsafeRawBufferPointer(packed)
  }

  /// Everything but blocks that are to be published.
  func applyUse(
    _ operation: WriterOperation,
    _ transaction: WriteTransaction,
    _ outcomes: [UInt64: BlockPosition]
  ) throws(CatalogError) {
    switch operation {
    case .touch(let namespace, let target, let use):
      guard let position = position(of: target, outcomes) else { return }
      var stamp: UInt64?
      if case .learned(let learned) = use { stamp = learned }
      try transaction.touch(namespace.id, pathEnd: position, use: stamp)
    case .extend(let namespace, let target, let deadline):
      guard let position = position(of: target, outcomes) else { return }
      try transaction.extend(namespace.id, pathEnd: position, until: deadline)
    case .renew(let namespace, let target, let offered):
      guard let position = position(of: target, outcomes) else { return }
      try transaction.renew(
        namespace.id,
        position,
        blockExpiry: offered.blockExpiry,
        priority: offered.hasPriority ? offered.priority : 0
      )
    case .publish, .call: break
    }
  }

  private func position(
    of target: LeaseTable.Target,
    _ outcomes: [UInt64: BlockPosition]
  ) -> BlockPosition? {
    switch target {
    case .published(let position): position
    case .pending(let ticket): outcomes[ticket] ?? core.pendingParents.published[ticket]
    }
  }
}
