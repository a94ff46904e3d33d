internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVTiers

/// One call that brings blocks out: into the caller's memory, or into the arena for a view or for later.
///
/// The one way out of the store; a device copies out of a view. A window at a time is planned, read, handed over and
/// finished (`RestoreCall+Window.swift`).
struct RestoreCall {
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
  let range: NamespaceCore.Range
  let selection: RegionSelection
  let destination: Destination
  let limit: TransferLimit
  /// Of the sequence that the call belongs to.
  let copies: LayerCopies?
  private var result: TransferResult
  private var meter = RestoreMeter()
  /// View: those of the blocks that are done.
  private var slots: [HostSlot] = []

  // The window that is under way.

  /// Where the last one ended.
  var path = PathMark()
  /// A pinned slot that the call waited for; used first.
  var slotInHand: HostSlot?
  var plan: [PlannedBlock] = []
  var reads = PlannedReads()
  /// Of the plan.
  var doneCount = 0
  /// Why the block behind those is not among them; `done` when the window ends there.
  var end = BlockOutcome.done
  /// Not all of the plan is in the arena.
  var isMixed = false
  /// That block lies in another tier since it was planned: a look-up finds it there.
  var hasMoved = false
  private var windowMeter = RestoreMeter()

  /// How often a call looks again for blocks that moved to another tier before they were read.
  private static let movedCountMax = 16

  init(
    _ core: StoreCore,
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    to destination: Destination,
    _ limit: TransferLimit,
    copies: LayerCopies? = nil
  ) {
    self.core = core
    self.copies = copies
    self.namespace = namespace
    self.prompt = prompt
    self.range = range
    selection = destination == .memory ? range.selection : namespace.wholeBlocks
    self.destination = destination
    self.limit = limit
    result = TransferResult(.miss, blockCount: range.blocks.count)
  }

  /// Copies the range's blocks out; stops at the first block that is not there, or at the limit.
  mutating func restore() throws(StoreError) -> TransferResult {
    if core.health.isPoisoned { return result }
    try run()
    core.state.withLock { $0.meters.noteRestore(result, meter) }
    return result
  }

  /// The same for all or nothing: nil, and nothing is counted, where a block is not to be had.
  mutating func restoreWhole() throws(StoreError) -> TransferResult? {
    if core.health.isPoisoned { return nil }
    try run()
    guard result.doneBlockCount == range.blocks.count else { return nil }
    core.state.withLock { $0.meters.noteRestore(result, meter) }
    return result
  }

  /// The same for a remote tier: no engine restores it, so nothing of it is counted.
  mutating func copyOut() throws(StoreError) -> TransferResult {
    if core.health.isPoisoned { return result }
    try run()
    return result
  }

  /// Pins and lends the range's leading blocks, as many as are stored and may be lent; the caller ends that.
  mutating func lend() throws(StoreError) -> (slots: [HostSlot], result: TransferResult) {
    if core.health.isPoisoned { return ([], result) }
    do throws(StoreError) {
      try run()
    } catch {
      core.endLoans(slots)
      throw error
    }
    core.state.withLock { $0.meters.noteView(result) }
    return (slots, result)
  }

  /// Brings the range's leading blocks into the arena, as far as there is room.
  mutating func prefetch() throws(StoreError) {
    guard !limit.isOver else { return }
    defer { core.state.withLock { $0.meters.notePrefetch(result) } }
    try run()
  }

  // MARK: Windows

  /// A window at a time, until a block is not to be had.
  private mutating func run() throws(StoreError) {
    let windowBlockCount = core.windowBlockCount(namespace, regions: range.regions)
    defer { if let slotInHand { core.drop(slotInHand) } }
    var movedCount = 0
    var next = range.blocks.lowerBound
    while next < range.blocks.upperBound {
      let window = next..<min(next + windowBlockCount, range.blocks.upperBound)
      let started = monotonicNanoseconds()
      windowMeter = RestoreMeter()
      try begin(window)
      bring()
      next += doneCount
      finish()
      if end == .done {
        windowMeter.divide(monotonicNanoseconds() - started) {
          core.state.withLock { $0.meters.bandwidth.disk.bytesPerSecond }
        }
        meter.add(windowMeter)
      } else if hasMoved, movedCount < Self.movedCountMax {
        // A block went from one tier to another since it was planned: what is left is looked up again.
        movedCount += 1
      } else {
        // Room comes when the writer is done with some blocks; anything else does not change by waiting.
        guard destination == .view, end == .busy, !limit.isOver else { break }
        slotInHand = core.waitForRoom(limit) {
          $0.host.allocate(namespace.layout.slotByteCount)
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

  // MARK: Handing over

  /// Copies a block to where it is wanted, or checks it where it lies; `miss` when a region is not sound.
  @inline(__always) mutating func take(_ bytes: BlockBytes, of planned: PlannedBlock)
    -> BlockOutcome
  {
    switch destination {
    case .memory: return copyOut(bytes, of: planned)
    case .view, .cache:
      if planned.isInHost { return .done }
      if case .inline(_, let slot?) = planned.source {
        return unsafe bytes.copy(to: core.hostMemory(of: slot)) ? .done : .miss
      }
      let whole = selection.ranges(ofBlock: planned.block)
      return unsafe bytes.forEachRegion(of: whole) { _, _ in } ? .done : .miss
    }
  }

  /// Copies the regions that are needed to the caller; the spans of the others get the length 0.
  @inline(__always) private mutating func copyOut(_ bytes: BlockBytes, of planned: PlannedBlock)
    -> BlockOutcome
  {
    let before = result.byteCount
    // Where all is in RAM the window's time is the copies'.
    let started = planned.isInHost && isMixed ? monotonicNanoseconds() : 0
    let needed = selection.ranges(ofBlock: planned.block)
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
    let byteCount = result.byteCount - before
    if let place = planned.place {
      if place.tier == .archive {
        windowMeter.archiveByteCount += byteCount
      } else {
        windowMeter.diskByteCount += byteCount
      }
    } else {
      windowMeter.hostByteCount += byteCount
      if started > 0 { windowMeter.hostNanoseconds += monotonicNanoseconds() - started }
    }
    return isSound ? outcome : .miss
  }

  /// A block went where it was wanted.
  @inline(__always) mutating func noteDone(_ planned: PlannedBlock) {
    result.outcomes[planned.block - range.blocks.lowerBound] = .done
    switch planned.source {
    case .host: result.hostBlockCount += 1
    case .disk(let place, _), .piece(let place, _), .inline(let place, _):
      result.diskBlockCount += 1
      if place.tier == .archive {
        windowMeter.archiveBlockCount += 1
        core.noteArchiveUse(namespace, planned.position)
      }
    case .nothing: range.clearLengths(ofBlock: planned.block)
    }
    if destination == .view, let slot = planned.slot { slots.append(slot) }
  }
}

extension StoreCore {
  /// Ends loans, and the pins that come with them.
  func endLoans(_ slots: [HostSlot]) {
    guard !slots.isEmpty else { return }
    state.withLock { state in
      for slot in slots {
        state.host.endLoan(slot)
        state.host.unpin(slot)
      }
    }
    state.notifyAll()
  }

  /// Gives a pinned slot back whose contents are of no use.
  func drop(_ slot: HostSlot) {
    state.withLock { $0.host.drop(slot) }
    state.notifyAll()
  }
}
