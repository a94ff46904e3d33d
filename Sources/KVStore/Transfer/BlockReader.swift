internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVIndex
internal import KVTiers

/// What the windows of one call that brings blocks out have in common.
struct Reading {
  enum Destination {
    /// The caller's memory; slots of the arena are taken as there is room, so that blocks are promoted.
    case memory
    /// The arena, whole blocks, lent until the caller ends that.
    case view
    /// The arena, whole blocks, to be there for later calls.
    case cache
  }

  let core: StoreCore
  let namespace: NamespaceCore
  let prompt: Prompt
  let selection: RegionSelection
  let limit: TransferLimit
  let destination: Destination
}

/// Brings the blocks of one window out: plans, reads, checks, hands over, and makes what was read the blocks' host
/// copies.
///
/// The one way out of the store: restores, views, prefetches and device copies take it. `finish` has to be called.
struct BlockReader {
  private let reading: Reading
  private(set) var plan: [PlannedBlock]
  private let reads: PlannedReads
  private var doneCount = 0
  /// Why the block behind those that were brought is not among them; `done` when the window ends there.
  private(set) var end: BlockOutcome
  /// That block lies in another tier since it was planned: a look-up finds it there.
  private(set) var hasMoved = false

  /// Plans a window and starts its reads.
  ///
  /// - Parameters:
  ///   - reading: the call's.
  ///   - window: blocks, not more than fit in a quarter of the arena.
  ///   - path: where the last window ended; set to where this one does.
  ///   - slotInHand: a pinned slot that the caller waited for; it is used first, and nil then.
  /// - Throws: `StoreError`, when the catalog cannot be read.
  init(
    _ reading: Reading,
    _ window: Range<Int>,
    after path: inout PathMark,
    slotInHand: inout HostSlot?
  ) throws(StoreError) {
    self.reading = reading
    (plan, end, path) = try reading.core.withStoredPrefix(
      reading.namespace,
      reading.prompt,
      blockCount: window.upperBound,
      touch: true,
      after: path.blockCount <= window.lowerBound ? path : PathMark()
    ) { state, prefix in
      var plan = exchange(&state.spare.plan, with: [])
      let end = reading.plan(window, prefix, &slotInHand, &plan, &state)
      return (plan, end, prefix.end)
    }
    reads = PlannedReads(reading, plan)
  }

  /// Brings the planned blocks in order, up to the first that is not to be had.
  ///
  /// - Parameter take: gets a block, or nil when nothing of it is needed, and goes through the regions that it wants;
  ///   `miss` says that one was not sound.
  /// - Returns: how many blocks it took.
  mutating func bring(_ take: (PlannedBlock, BlockBytes?) -> BlockOutcome) -> Int {
    while doneCount < plan.count {
      let planned = plan[doneCount]
      let outcome = reading.limit.isOver ? .busy : bring(planned, take)
      guard outcome == .done else {
        end = outcome
        break
      }
      if let place = planned.place, place.tier == .archive {
        reading.core.noteArchiveUse(reading.namespace, planned.position)
      }
      doneCount += 1
    }
    return doneCount
  }

  private mutating func bring(
    _ planned: PlannedBlock,
    _ take: (PlannedBlock, BlockBytes?) -> BlockOutcome
  ) -> BlockOutcome {
    let core = reading.core
    let namespace = reading.namespace
    switch planned.source {
    case .nothing: return take(planned, nil)
    case .host(let slot):
      guard let bytes = unsafe BlockBytes(hostCopy: core.hostMemory(of: slot), namespace.layout)
      else { return .miss }
      return take(planned, bytes)
    case .disk(let place, _):
      let memory: PlannedReads.Memory?
      do throws(PlannedReads.GaveUp) {
        memory = try reads.wait(doneCount, reading.limit)
      } catch {
        return .busy
      }
      guard let memory else {
        hasMoved = core.checkHasFile(namespace, planned.position, place)
        return .miss
      }
      if let failure = memory.failure {
        hasMoved = core.failedRead(namespace, planned.position, place, failure)
        return .miss
      }
      let bytes = unsafe BlockBytes(read: memory.base, memory.pieces, place, planned, reading)
      let outcome = bytes.map { take(planned, $0) } ?? .miss
      if outcome == .miss { hasMoved = core.failedCheck(namespace, planned.position, place) }
      return outcome
    case .inline(let place, _):
      guard let position = planned.position else { return .miss }
      var outcome = BlockOutcome.miss
      do throws(StoreError) {
        try core.catalogRead { (transaction) throws(CatalogError) in
          _ = unsafe try transaction.inlinePayload(namespace.id, position) { row in
            if let bytes = unsafe BlockBytes(packed: row, place, planned, reading) {
              outcome = take(planned, bytes)
            }
          }
        }
      } catch {
        return .miss
      }
      if outcome == .miss { hasMoved = core.failedCheck(namespace, position, place) }
      return outcome
    }
  }

  /// Makes what was read the blocks' host copies and gives every slot back, but for those that a view has now.
  mutating func finish() {
    let core = reading.core
    let destination = reading.destination
    let namespace = reading.namespace.id
    reading.limit.cancellation?.watch(nil)
    // A slot comes back when nothing is read into it any more.
    for index in plan.indices.dropFirst(doneCount) {
      guard case .disk(_, let slot) = plan[index].source else { continue }
      if destination == .view, let slot { core.state.withLock { $0.arena.endLoan(slot) } }
      reads.abandon(index) {
        guard let slot else { return }
        core.state.withLock { $0.dropHostSlot(slot) }
        core.state.notifyAll()
      }
    }
    let hasChanged = core.state.withLock { state in
      var hasChanged = false
      for (index, planned) in plan.enumerated() {
        guard let slot = planned.slot else { continue }
        if index < doneCount {
          if let place = planned.place { state.keep(slot, of: planned, place, namespace) }
          if destination != .view { state.arena.unpin(slot) }
        } else {
          if case .disk = planned.source { continue }
          if destination == .view { state.arena.endLoan(slot) }
          if planned.isInHost { state.arena.unpin(slot) } else { state.dropHostSlot(slot) }
        }
        hasChanged = true
      }
      plan.removeAll(keepingCapacity: true)
      swap(&state.spare.plan, &plan)
      return hasChanged
    }
    if hasChanged { core.state.notifyAll() }
  }
}

extension Reading {
  /// The window's stored blocks, their host copies pinned and slots of the arena taken for the others.
  ///
  /// - Returns: why the next one is not among them, if it should be.
  fileprivate func plan(
    _ window: Range<Int>,
    _ prefix: StoredPrefix,
    _ slotInHand: inout HostSlot?,
    _ plan: inout [PlannedBlock],
    _ state: inout StoreState
  ) -> BlockOutcome {
    var next = prefix.firstBlock
    for segment in prefix.segments {
      let first = next
      next += Int(segment.blockCount)
      for block in max(first, window.lowerBound)..<max(next, window.lowerBound) {
        let location = segment.location(at: block - first)
        guard let entry = state.index.entry(at: location) else { return .miss }
        let source: PlannedBlock.Source
        do throws(Refusal) {
          source = try self.source(block, entry, &slotInHand, &state)
        } catch {
          return error.outcome
        }
        plan.append(
          PlannedBlock(
            block: block,
            blockKey: entry.blockKey,
            position: state.index.position(of: location),
            source: source
          )
        )
      }
    }
    return prefix.blockCount >= window.upperBound ? .done : .miss
  }

  /// Why a block cannot be planned.
  private struct Refusal: Error { let outcome: BlockOutcome }

  private func source(
    _ block: Int,
    _ entry: IndexEntry,
    _ slotInHand: inout HostSlot?,
    _ state: inout StoreState
  ) throws(Refusal) -> PlannedBlock.Source {
    let regions = selection.ranges(ofBlock: block)
    if regions.isEmpty { return .nothing }
    if entry.hostSlot >= 0 {
      let slot = HostSlot(rawValue: entry.hostSlot)
      state.arena.pin(slot)
      guard destination != .view || state.arena.lend(slot) else {
        state.arena.unpin(slot)
        throw Refusal(outcome: .full)
      }
      return .host(slot)
    }
    guard let place = entry.place else { throw Refusal(outcome: .miss) }
    var slot: HostSlot?
    // What is copied out of the catalog, or read in part, is not promoted.
    if destination != .memory
      || !place.isInline && regions == namespace.wholeBlocks.ranges(ofBlock: block)
    {
      slot = slotInHand ?? state.allocateHostSlot(namespace.layout.slotByteCount)
      slotInHand = nil
      guard slot != nil || destination == .memory else { throw Refusal(outcome: .busy) }
    }
    if destination == .view, let slot, !state.arena.lend(slot) {
      state.dropHostSlot(slot)
      throw Refusal(outcome: .full)
    }
    return place.isInline ? .inline(place, into: slot) : .disk(place, into: slot)
  }
}

extension StoreState {
  /// Makes a pinned slot that was read into the block's host copy.
  ///
  /// If the block has moved on, or another thread was first, the bytes are good, but the copy is nobody's.
  fileprivate mutating func keep(
    _ slot: HostSlot,
    of planned: PlannedBlock,
    _ place: BlockPlace,
    _ namespace: NamespaceID
  ) {
    if let position = planned.position, let location = index.locate(namespace, position),
      let entry = index.entry(at: location), entry.hostSlot < 0, entry.place == place
    {
      index.updateEntry(at: location) { $0.hostSlot = slot.rawValue }
      hostBlocks.attach(slot.rawValue, at: location)
    } else {
      arena.discard(slot)
    }
  }
}
