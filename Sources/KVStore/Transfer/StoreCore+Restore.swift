internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVIndex
internal import KVTiers

extension StoreCore {
  /// Copies the range's blocks out, a window at a time; stops at the first block that is not there, or at the limit.
  func restore(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    limit: TransferLimit = .none
  ) throws(StoreError) -> TransferResult {
    var result = TransferResult(.miss, blockCount: range.blocks.count)
    if isPoisoned { return result }
    var meter = RestoreMeter()
    var movedCount = 0
    var next = range.blocks.lowerBound
    while next < range.blocks.upperBound {
      let window = next..<min(next + windowBlockCount(namespace), range.blocks.upperBound)
      var windowMeter = RestoreMeter()
      let started = monotonicNanoseconds()
      var plan = try planRestore(namespace, prompt, window, range)
      let plannedCount = plan.count
      let end = move(plan, namespace, prompt, range, limit, &windowMeter, &result)
      release(&plan)
      if end == .gaveUp {
        let rest = next + plannedCount - range.blocks.lowerBound..<result.outcomes.count
        for index in rest { result.outcomes[index] = .busy }
      }
      if end == .moved, movedCount < Self.movedCountMax {
        // A block went from one tier to another since it was planned: what is left is looked up again.
        movedCount += 1
        let done = result.outcomes[(next - range.blocks.lowerBound)...].prefix { $0 == .done }
        next += done.count
        continue
      }
      if end != .whole || plannedCount < window.count { break }
      windowMeter.divide(monotonicNanoseconds() - started) {
        state.withLock { $0.restoreBandwidth.disk.bytesPerSecond }
      }
      meter.add(windowMeter)
      next = window.upperBound
    }
    result.countLeading()
    let absentCount = result.outcomes.reduce(0) { $0 + ($1 == .miss ? 1 : 0) }
    state.withLock { state in
      state.statistics.blocksRestoredHost += UInt64(result.hostBlockCount)
      state.statistics.blocksRestoredDisk += UInt64(
        result.diskBlockCount - meter.archiveBlockCount
      )
      state.statistics.restoredBytes += UInt64(result.byteCount)
      state.statistics.missesAbsent += UInt64(absentCount)
      meter.enter(&state.restoreBandwidth, &state.statistics)
    }
    return result
  }

  /// How often a restore looks again for blocks that moved to another tier before they were read.
  private static let movedCountMax = 16

  // MARK: Planning

  /// The window's stored blocks, their host copies pinned and arena slots taken for the others.
  private func planRestore(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ window: Range<Int>,
    _ range: NamespaceCore.Range
  ) throws(StoreError) -> [PlannedBlock] {
    let allRegions = [0..<namespace.regionCount]
    return try withStoredPrefix(
      namespace,
      prompt,
      blockCount: window.upperBound,
      touch: true
    ) { state, prefix in
      var plan = exchange(&state.spare.plan, with: [])
      var block = 0
      for segment in prefix.segments {
        let count = Int(segment.blockCount)
        defer { block += count }
        for offset in max(
          0,
          window.lowerBound - block
        )..<max(count, max(0, window.lowerBound - block)) {
          let location = segment.location(at: offset)
          guard let entry = state.index.entry(at: location) else { return plan }
          let source: PlannedBlock.Source
          let regions = range.selection.ranges(ofBlock: block + offset)
          if regions.isEmpty {
            source = .none
          } else if entry.hostSlot >= 0 {
            let slot = HostSlot(rawValue: entry.hostSlot)
            state.arena.pin(slot)
            source = .host(slot)
          } else if let place = entry.place {
            source =
              place.isInline
              ? .inline(place)
              : .disk(
                place,
                promoteTo: regions == allRegions
                  ? state.allocateHostSlot(namespace.layout.slotByteCount) : nil
              )
          } else {
            return plan
          }
          plan.append(
            PlannedBlock(
              block: block + offset,
              blockKey: entry.blockKey,
              position: state.index.position(of: location),
              source: source
            )
          )
        }
      }
      return plan
    }
  }

  // MARK: Moving

  private enum MoveEnd {
    case whole
    /// A block failed; those before it are good.
    case failed
    /// A block had moved to another tier; those before it are good.
    case moved
    /// The limit came first.
    case gaveUp
  }

  /// Starts the reads, copies each block as it comes, and gives every slot back.
  private func move(
    _ plan: [PlannedBlock],
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    _ limit: TransferLimit,
    _ meter: inout RestoreMeter,
    _ result: inout TransferResult
  ) -> MoveEnd {
    let reads = PlannedReads(self, plan, namespace, range.selection, limit: limit)
    // Where all is in RAM the window's time is the copies'.
    let timesCopies = plan.contains { planned in
      if case .host = planned.source { return false }
      return true
    }
    var end = MoveEnd.whole
    var hasMoved = false
    for (index, planned) in plan.enumerated() {
      if end == .whole, limit.isOver { end = .gaveUp }
      var outcome = end == .gaveUp ? BlockOutcome.busy : .miss
      let byteCountBefore = result.byteCount
      switch planned.source {
      case .none:
        if end == .whole {
          range.clearLengths(ofBlock: planned.block)
          outcome = .done
        }
      case .host(let slot):
        if end == .whole {
          let started = timesCopies ? monotonicNanoseconds() : 0
          outcome = unsafe copyOut(
            hostMemory(of: slot, namespace),
            SlotPieces(byteCount: namespace.layout.slotByteCount),
            planned,
            namespace,
            range,
            verifies: false,
            &result
          )
          if timesCopies { meter.hostNanoseconds += monotonicNanoseconds() - started }
          meter.hostByteCount += result.byteCount - byteCountBefore
        }
        if outcome == .done { result.hostBlockCount += 1 }
      case .disk(let place, let promoteTo):
        if end == .whole {
          do throws(PlannedReads.GaveUp) {
            outcome = finishRead(
              try reads.wait(index, limit),
              place,
              planned,
              namespace,
              prompt,
              range,
              &result,
              &hasMoved
            )
            if let promoteTo {
              keep(promoteTo, of: planned, place, namespace, isGood: outcome == .done)
            }
          } catch {
            end = .gaveUp
            outcome = .busy
            abandon(index, of: reads, promoteTo)
          }
        } else {
          abandon(index, of: reads, promoteTo)
        }
        if place.tier == .archive {
          meter.archiveByteCount += result.byteCount - byteCountBefore
          if outcome == .done {
            meter.archiveBlockCount += 1
            noteArchiveUse(namespace, planned.position)
          }
        } else {
          meter.diskByteCount += result.byteCount - byteCountBefore
        }
      case .inline(let place):
        if end == .whole {
          outcome = copyInline(place, planned, namespace, prompt, range, &result)
        }
        meter.diskByteCount += result.byteCount - byteCountBefore
      }
      result.outcomes[planned.block - range.blocks.lowerBound] = outcome
      if end == .whole, outcome != .done { end = hasMoved ? .moved : .failed }
    }
    limit.cancellation?.watch(nil)
    return end
  }

  /// Leaves a block's read to itself; its arena slot comes back when it is over.
  private func abandon(_ index: Int, of reads: PlannedReads, _ promoteTo: HostSlot?) {
    reads.abandon(index) { [self] in
      guard let promoteTo else { return }
      state.withLock { $0.dropHostSlot(promoteTo) }
      state.notifyAll()
    }
  }

  private func finishRead(
    _ memory: PlannedReads.Memory?,
    _ place: BlockPlace,
    _ planned: PlannedBlock,
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    _ result: inout TransferResult,
    _ hasMoved: inout Bool
  ) -> BlockOutcome {
    guard let memory else {
      hasMoved = checkHasFile(namespace, planned.position, place)
      return .miss
    }
    if let failure = memory.failure {
      hasMoved = failedRead(namespace, planned.position, place, failure)
      return .miss
    }
    let headerBytes = unsafe UnsafeRawBufferPointer(
      start: memory.base,
      count: namespace.layout.headerByteCount
    )
    guard unsafe headerMatches(headerBytes, place, planned, namespace, prompt) else {
      hasMoved = failedCheck(namespace, planned.position, place)
      return .miss
    }
    let outcome = unsafe copyOut(
      memory.base,
      memory.pieces,
      planned,
      namespace,
      range,
      // What was decoded has been checked as it was stored.
      verifies: place.tier != .archive,
      &result
    )
    if outcome == .miss { hasMoved = failedCheck(namespace, planned.position, place) }
    if outcome == .done { result.diskBlockCount += 1 }
    return outcome
  }

  private func copyInline(
    _ place: BlockPlace,
    _ planned: PlannedBlock,
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    _ result: inout TransferResult
  ) -> BlockOutcome {
    guard let position = planned.position else { return .miss }
    var outcome = BlockOutcome.miss
    var copied = result
    do throws(StoreError) {
      try catalogRead { (transaction) throws(CatalogError) in
        _ = unsafe try transaction.inlinePayload(namespace.id, position) { payload in
          guard let base = payload.baseAddress,
            unsafe headerMatches(payload, place, planned, namespace, prompt)
          else { return }
          unsafe outcome = copyOut(
            UnsafeMutableRawPointer(mutating: base),
            SlotPieces(
              packed: payload.count,
              usedByteCount: SlotHeaderView(payload).map { Int($0.usedByteCount) } ?? 0,
              namespace.layout
            ),
            planned,
            namespace,
            range,
            verifies: true,
            &copied
          )
        }
      }
    } catch {
      return .miss
    }
    result = copied
    if outcome == .miss { failedCheck(namespace, position, place) }
    if outcome == .done { result.diskBlockCount += 1 }
    return outcome
  }

  // MARK: Slots back

  /// Ends the pins on the plan's host copies, and the plan.
  private func release(_ plan: inout [PlannedBlock]) {
    let hasReleased = state.withLock { state in
      var hasReleased = false
      for planned in plan {
        guard case .host(let slot) = planned.source else { continue }
        state.arena.unpin(slot)
        hasReleased = true
      }
      plan.removeAll(keepingCapacity: true)
      swap(&state.spare.plan, &plan)
      return hasReleased
    }
    if hasReleased { state.notifyAll() }
  }

  /// Makes a slot that was read into the block's host copy, unless the block has moved on.
  private func keep(
    _ slot: HostSlot,
    of planned: PlannedBlock,
    _ place: BlockPlace,
    _ namespace: NamespaceCore,
    isGood: Bool
  ) {
    state.withLock { state in
      if isGood, let position = planned.position,
        let location = state.index.locate(namespace.id, position),
        let entry = state.index.entry(at: location), entry.hostSlot < 0, entry.place == place
      {
        state.index.updateEntry(at: location) { $0.hostSlot = slot.rawValue }
        state.hostBlocks.attach(slot.rawValue, at: location)
        state.arena.unpin(slot)
      } else {
        state.dropHostSlot(slot)
      }
    }
    state.notifyAll()
  }
}
