internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVTiers

/// One call that brings blocks out: into the caller's memory, or into the arena for a view or for later.
struct RestoreCall {
  private let reading: Reading
  private let range: NamespaceCore.Range
  private var result: TransferResult
  private var meter = RestoreMeter()
  /// View: those of the blocks that are done.
  private var slots: [HostSlot] = []

  /// How often a call looks again for blocks that moved to another tier before they were read.
  private static let movedCountMax = 16

  init(
    _ core: StoreCore,
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    to destination: Reading.Destination,
    _ limit: TransferLimit
  ) {
    reading = Reading(
      core: core,
      namespace: namespace,
      prompt: prompt,
      selection: destination == .memory ? range.selection : namespace.wholeBlocks,
      limit: limit,
      destination: destination
    )
    self.range = range
    result = TransferResult(.miss, blockCount: range.blocks.count)
  }

  /// Copies the range's blocks out; stops at the first block that is not there, or at the limit.
  mutating func restore() throws(StoreError) -> TransferResult {
    if reading.core.isPoisoned { return result }
    try run()
    let absentCount = result.outcomes.reduce(0) { $0 + ($1 == .miss ? 1 : 0) }
    reading.core.state.withLock { state in
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

  /// Pins and lends the range's leading blocks, as many as are stored and may be lent; the caller ends that.
  mutating func lend() throws(StoreError) -> (slots: [HostSlot], result: TransferResult) {
    if reading.core.isPoisoned { return ([], result) }
    do throws(StoreError) {
      try run()
    } catch {
      reading.core.endLoans(slots)
      throw error
    }
    reading.core.state.withLock { state in
      state.statistics.blocksRestoredHost += UInt64(result.hostBlockCount)
      state.statistics.blocksRestoredDisk += UInt64(result.diskBlockCount)
    }
    return (slots, result)
  }

  /// Brings the range's leading blocks into the arena, as far as there is room.
  mutating func prefetch() throws(StoreError) {
    guard !reading.limit.isOver else { return }
    defer {
      reading.core.state.withLock {
        $0.statistics.blocksPrefetched += UInt64(result.diskBlockCount)
      }
    }
    try run()
  }

  // MARK: Windows

  /// A window at a time, until a block is not to be had.
  private mutating func run() throws(StoreError) {
    let core = reading.core
    let windowBlockCount = core.windowBlockCount(reading.namespace)
    var path = PathMark()
    var slotInHand: HostSlot?
    defer { if let slotInHand { core.drop(slotInHand) } }
    var movedCount = 0
    var next = range.blocks.lowerBound
    var end = BlockOutcome.done
    while next < range.blocks.upperBound {
      let window = next..<min(next + windowBlockCount, range.blocks.upperBound)
      let started = monotonicNanoseconds()
      var reader = try BlockReader(reading, window, after: &path, slotInHand: &slotInHand)
      var windowMeter = RestoreMeter()
      next += bring(&reader, &windowMeter)
      end = reader.end
      reader.finish()
      if next == window.upperBound {
        windowMeter.divide(monotonicNanoseconds() - started) {
          core.state.withLock { $0.restoreBandwidth.disk.bytesPerSecond }
        }
        meter.add(windowMeter)
      } else if reader.hasMoved, movedCount < Self.movedCountMax {
        // A block went from one tier to another since it was planned: what is left is looked up again.
        movedCount += 1
      } else {
        // Room comes when the writer is done with some blocks; anything else does not change by waiting.
        guard reading.destination == .view, end == .busy, !reading.limit.isOver else { break }
        slotInHand = core.waitForRoom(reading.limit) {
          $0.allocateHostSlot(reading.namespace.layout.slotByteCount)
        }
        if slotInHand == nil { break }
      }
    }
    for block in next..<range.blocks.upperBound {
      result.outcomes[block - range.blocks.lowerBound] =
        block == next || end == .busy || end == .full ? end : .miss
    }
    result.countLeading()
  }

  /// Takes a window's blocks as they come; returns how many were done.
  private mutating func bring(_ reader: inout BlockReader, _ meter: inout RestoreMeter) -> Int {
    // Where all is in RAM the window's time is the copies'.
    let timesCopies = reader.plan.contains { !$0.isInHost }
    return reader.bring { planned, bytes in
      let byteCountBefore = result.byteCount
      let started = timesCopies && planned.isInHost ? monotonicNanoseconds() : 0
      let outcome = take(planned, bytes)
      let byteCount = result.byteCount - byteCountBefore
      let isDone = outcome == .done
      switch planned.source {
      case .nothing: break
      case .host:
        if timesCopies { meter.hostNanoseconds += monotonicNanoseconds() - started }
        meter.hostByteCount += byteCount
        if isDone { result.hostBlockCount += 1 }
      case .disk(let place, _), .inline(let place, _):
        if place.tier == .archive {
          meter.archiveByteCount += byteCount
          if isDone { meter.archiveBlockCount += 1 }
        } else {
          meter.diskByteCount += byteCount
        }
        if isDone { result.diskBlockCount += 1 }
      }
      guard isDone else { return outcome }
      result.outcomes[planned.block - range.blocks.lowerBound] = .done
      if reading.destination == .view, let slot = planned.slot { slots.append(slot) }
      return .done
    }
  }

  /// Copies a block to where it is wanted, or checks it where it lies.
  private mutating func take(_ planned: PlannedBlock, _ bytes: BlockBytes?) -> BlockOutcome {
    if reading.destination == .memory { return copyOut(planned, bytes) }
    guard let bytes, !planned.isInHost else { return .done }
    if case .inline(_, let slot?) = planned.source {
      return unsafe bytes.copy(to: reading.core.hostMemory(of: slot)) ? .done : .miss
    }
    let whole = reading.selection.ranges(ofBlock: planned.block)
    return unsafe bytes.forEachRegion(of: whole) { _, _ in } ? .done : .miss
  }

  /// Copies the regions that are needed to the caller; the spans of the others get the length 0.
  private mutating func copyOut(_ planned: PlannedBlock, _ bytes: BlockBytes?) -> BlockOutcome {
    guard let bytes else {
      range.clearLengths(ofBlock: planned.block)
      return .done
    }
    let needed = range.selection.ranges(ofBlock: planned.block)
    if needed.first != range.regions { range.clearLengths(ofBlock: planned.block) }
    let spanBase = range.spanIndex(ofBlock: planned.block) - range.regions.lowerBound
    var outcome = BlockOutcome.done
    let isSound = unsafe bytes.forEachRegion(of: needed) { region, bytes in
      let index = spanBase + region
      unsafe range.spans[index].length = bytes.count
      if unsafe range.spans[index].capacity < bytes.count {
        outcome = .bufferTooSmall
      } else if let base = bytes.baseAddress, bytes.count > 0 {
        unsafe range.spans[index].data?.copyMemory(from: base, byteCount: bytes.count)
        result.byteCount += bytes.count
      }
    }
    return isSound ? outcome : .miss
  }
}

extension StoreCore {
  /// Ends loans, and the pins that come with them.
  func endLoans(_ slots: [HostSlot]) {
    guard !slots.isEmpty else { return }
    state.withLock { state in
      for slot in slots {
        state.arena.endLoan(slot)
        state.arena.unpin(slot)
      }
    }
    state.notifyAll()
  }

  /// Gives a pinned slot back whose contents are of no use.
  func drop(_ slot: HostSlot) {
    state.withLock { $0.dropHostSlot(slot) }
    state.notifyAll()
  }
}
