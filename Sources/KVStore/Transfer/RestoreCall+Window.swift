internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVIndex
internal import KVTiers

// What is done for each block is inlined into its loop: of a short restore the calls were a tenth.

/// The reader: one window from its plan to its host copies.
extension RestoreCall {
  // MARK: Planning

  /// Plans a window (blocks, whose bytes fit in a quarter of the arena) and starts its reads; one that has no room for
  /// all of the blocks ends before.
  mutating func begin(_ window: Range<Int>) throws(StoreError) {
    (doneCount, hasMoved, isMixed) = (0, false, false)
    try core.withStoredPrefix(
      namespace,
      prompt,
      blockCount: window.upperBound,
      touch: true,
      after: path.blockCount <= window.lowerBound ? path : PathMark()
    ) { state, prefix in
      swap(&plan, &state.spare.plan)
      path = prefix.end
      end = append(window, of: prefix, &state)
    }
    reads = isMixed ? PlannedReads(self) : PlannedReads()
  }

  /// Plans the window's stored blocks, pins their host copies and takes slots of the arena for the others.
  ///
  /// - Returns: why the next one is not among them, if it should be.
  private mutating func append(
    _ window: Range<Int>,
    of prefix: StoredPrefix,
    _ state: inout StoreState
  ) -> BlockOutcome {
    let byteCountMax = core.windowByteCount
    var byteCount = 0
    var next = prefix.firstBlock
    for segment in prefix.segments {
      let first = next
      next += Int(segment.blockCount)
      for block in max(first, window.lowerBound)..<max(next, window.lowerBound) {
        let location = segment.location(at: block - first)
        guard let entry = state.tree.entry(at: location) else { return .miss }
        // What is stored encoded is read whole, however little of it is wanted.
        if entry.place?.tier == .archive {
          byteCount += namespace.layout.slotByteCount
          if byteCount > byteCountMax, !plan.isEmpty { return .done }
        }
        let source: PlannedBlock.Source
        do throws(Refusal) {
          let position = state.tree.position(of: location)
          source = try self.source(block, entry, position, &state)
        } catch {
          return error.outcome
        }
        plan.append(
          PlannedBlock(
            block: block,
            blockKey: entry.blockKey,
            position: state.tree.position(of: location),
            source: source
          )
        )
      }
    }
    return prefix.blockCount >= window.upperBound ? .done : .miss
  }

  /// Why a block cannot be planned.
  private struct Refusal: Error { let outcome: BlockOutcome }

  @inline(__always) private mutating func source(
    _ block: Int,
    _ entry: IndexEntry,
    _ position: BlockPosition?,
    _ state: inout StoreState
  ) throws(Refusal) -> PlannedBlock.Source {
    let regions = selection.ranges(ofBlock: block)
    if regions.isEmpty {
      isMixed = true
      return .nothing
    }
    if entry.hostSlot >= 0 {
      let slot = HostSlot(rawValue: entry.hostSlot)
      state.host.pin(slot)
      guard destination != .view || state.host.lend(slot) else {
        state.host.unpin(slot)
        throw Refusal(outcome: .full)
      }
      return .host(slot)
    }
    guard let place = entry.place else { throw Refusal(outcome: .miss) }
    isMixed = true
    if let copies, regions == [range.regions],
      let slot = copies.slot(ofBlock: block, entry, position, range.regions, &state)
    {
      return .piece(place, of: slot)
    }
    var slot: HostSlot?
    // What is copied out of the catalog, or read in part, is not promoted.
    if destination != .memory
      || !place.isInline && regions == namespace.wholeBlocks.ranges(ofBlock: block)
    {
      slot = slotInHand ?? state.host.allocate(namespace.layout.slotByteCount)
      slotInHand = nil
      guard slot != nil || destination == .memory else { throw Refusal(outcome: .busy) }
    }
    if destination == .view, let slot, !state.host.lend(slot) {
      state.host.drop(slot)
      throw Refusal(outcome: .full)
    }
    return place.isInline ? .inline(place, into: slot) : .disk(place, into: slot)
  }

  // MARK: Reading

  /// Brings the planned blocks in order, up to the first that is not to be had.
  mutating func bring() {
    while doneCount < plan.count {
      let planned = plan[doneCount]
      let outcome = limit.isOver ? .busy : bring(planned)
      guard outcome == .done else {
        end = outcome
        return
      }
      noteDone(planned)
      doneCount += 1
    }
  }

  @inline(__always) private mutating func bring(_ planned: PlannedBlock) -> BlockOutcome {
    switch planned.source {
    case .nothing: return .done
    case .host(let slot):
      let memory = unsafe core.hostMemory(of: slot)
      guard let bytes = unsafe BlockBytes(hostCopy: memory, namespace) else { return .miss }
      return take(bytes, of: planned)
    case .disk(let place, _), .piece(let place, _): return read(planned, place)
    case .inline(let place, _): return readRow(planned, place)
    }
  }

  /// From a slot file.
  private mutating func read(_ planned: PlannedBlock, _ place: BlockPlace) -> BlockOutcome {
    let memory: PlannedReads.Memory?
    do throws(PlannedReads.GaveUp) {
      memory = try reads.wait(doneCount, limit)
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
    let bytes = unsafe BlockBytes(read: memory.base, memory.pieces, place, planned, self)
    let outcome = bytes.map { take($0, of: planned) } ?? .miss
    if outcome == .done, let bytes, case .piece = planned.source {
      copies?.noteSound(bytes, ofBlock: planned.block, range.regions)
    }
    if outcome == .miss { hasMoved = core.failedCheck(namespace, planned.position, place) }
    return outcome
  }

  /// From the catalog.
  private mutating func readRow(_ planned: PlannedBlock, _ place: BlockPlace) -> BlockOutcome {
    guard let position = planned.position else { return .miss }
    var outcome = BlockOutcome.miss
    do throws(StoreError) {
      try core.catalogRead { (transaction) throws(CatalogError) in
        _ = unsafe try transaction.inlinePayload(namespace.id, position) { row in
          if let bytes = unsafe BlockBytes(packed: row, place, planned, self) {
            outcome = take(bytes, of: planned)
          }
        }
      }
    } catch {
      return .miss
    }
    if outcome == .miss { hasMoved = core.failedCheck(namespace, position, place) }
    return outcome
  }

  // MARK: Host copies

  /// Makes what was read the blocks' host copies and gives every slot back, but for those that a view has now.
  mutating func finish() {
    limit.cancellation?.watch(nil)
    if doneCount < plan.count { abandonReads() }
    let hasChanged = core.state.withLock { state in
      var hasChanged = false
      for index in plan.indices {
        let planned = plan[index]
        guard let slot = planned.slot else { continue }
        if index < doneCount {
          if let place = planned.place {
            state.tree.keepCopy(slot, of: planned.position, namespace.id, readFrom: place)
          }
          if destination != .view { state.host.unpin(slot) }
        } else {
          if case .disk = planned.source { continue }
          if destination == .view { state.host.endLoan(slot) }
          if planned.isInHost { state.host.unpin(slot) } else { state.host.drop(slot) }
        }
        hasChanged = true
      }
      plan.removeAll(keepingCapacity: true)
      swap(&state.spare.plan, &plan)
      return hasChanged
    }
    if hasChanged { core.state.notifyAll() }
  }

  /// Gives up the reads of blocks that were not brought; a slot comes back when nothing is read into it any more.
  private func abandonReads() {
    for index in doneCount..<plan.count {
      switch plan[index].source {
      case .disk(_, let slot):
        if destination == .view, let slot { core.state.withLock { $0.host.endLoan(slot) } }
        reads.abandon(index) { [core] in
          if let slot { core.drop(slot) }
        }
      case .piece(_, let slot):
        copies?.giveUp(plan[index].block)
        reads.abandon(index) { [core] in core.drop(slot) }
      case .host, .inline, .nothing: continue
      }
    }
  }
}
