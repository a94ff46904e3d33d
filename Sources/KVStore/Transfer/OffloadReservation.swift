internal import KVCodec
public import KVCore
internal import KVIndex
internal import KVTiers

/// Arena slots lent for writing: an engine puts blocks where the store keeps them, then commits or aborts.
///
/// Thread-safe. It ends by itself when its time is over, and with the close of the store's handle; nobody may write to its memory after
/// that, nor after commit or abort.
public final class OffloadReservation: Sendable {
  /// How each block of the range fared: `done` for those that are stored already, and for those to be written.
  public let result: TransferResult
  /// The blocks of the prompt that are to be written.
  public let blocks: Range<Int>
  private let core: StoreCore
  private let namespace: NamespaceCore
  private let prompt: PromptCopy
  private let incoming: [IncomingBlock]
  private let id: UInt64
  private let ledger: FlushLedger
  private let isOpen = AtomicFlag(true)
  private let onEnd: @Sendable (OffloadReservation) -> Void

  init(
    _ core: StoreCore,
    _ namespace: NamespaceCore,
    _ prompt: PromptCopy,
    _ reserved: ReservedBlocks,
    _ ledger: FlushLedger,
    onEnd: @escaping @Sendable (OffloadReservation) -> Void
  ) {
    self.core = core
    self.namespace = namespace
    self.prompt = prompt
    self.ledger = ledger
    self.onEnd = onEnd
    result = reserved.result
    incoming = reserved.incoming
    id = reserved.id
    let first = reserved.incoming.first?.link.block ?? 0
    blocks = first..<first + reserved.incoming.count
  }

  /// Lends the memory of a region to write to; nil for a block that is not to be written, and after the end.
  public func withMutableBytes<Result>(
    block: Int,
    region: Int,
    _ body: (UnsafeMutableRawBufferPointer) -> Result
  ) -> Result? {
    guard let bytes = unsafe bytes(block: block, region: region) else { return nil }
    return unsafe body(bytes)
  }

  /// Where a region is to be written; valid until the end.
  @unsafe package func bytes(block: Int, region: Int) -> UnsafeMutableRawBufferPointer? {
    guard isOpen.value, blocks.contains(block), region >= 0, region < namespace.regionCount
    else { return nil }
    let slot = unsafe core.hostMemory(
      of: incoming[block - blocks.lowerBound].hostSlot,
      namespace
    )
    return unsafe UnsafeMutableRawBufferPointer(
      start: slot + namespace.layout.regionOffset(region),
      count: namespace.identity.regionByteCounts[region]
    )
  }

  /// Takes the written blocks into the store, as an offload would.
  ///
  /// - Parameter lengths: of each region of each block in `blocks`, block by block; nil where region sizes are fixed.
  /// - Returns: how the blocks fared; all `busy` when the reservation had ended.
  /// - Throws: `StoreError`; after `.invalidArgument` the reservation is still open.
  public func commit(lengths: [Int]? = nil) throws(StoreError) -> TransferResult {
    guard !core.isForked else { throw .forked }
    try core.checkWritable()
    let lengths = try checked(lengths)
    guard isOpen.exchange(false) else { throw .closed }
    defer { onEnd(self) }
    return try prompt.withPrompt { (prompt) throws(StoreError) in
      core.commit(id, incoming, lengths, namespace, prompt, ledger)
    }
  }

  private func checked(_ lengths: [Int]?) throws(StoreError) -> [Int] {
    let bounds = namespace.identity.regionByteCounts
    guard let lengths else {
      guard !namespace.identity.regionsAreVariable else { throw .invalidArgument(.spanLength) }
      return incoming.flatMap { _ in bounds }
    }
    guard lengths.count == incoming.count * bounds.count else {
      throw .invalidArgument(.spanCount)
    }
    let areRight = lengths.indices.allSatisfy { index in
      let bound = bounds[index % bounds.count]
      return namespace.identity.regionsAreVariable
        ? (0...bound).contains(lengths[index]) : lengths[index] == bound
    }
    guard areRight else { throw .invalidArgument(.spanLength) }
    return lengths
  }

  /// Gives the memory back; nothing is stored.
  ///
  /// Later calls do nothing.
  public func abort() {
    guard !core.isForked, isOpen.exchange(false) else { return }
    core.endReservation(id)
    onEnd(self)
  }

  /// Whether the process was forked since.
  public var isForked: Bool { core.isForked }
}

/// What a reservation begins with.
struct ReservedBlocks {
  var result = TransferResult()
  var incoming: [IncomingBlock] = []
  var id: UInt64 = 0
}

extension StoreCore {
  /// Takes and lends arena slots for the range's blocks that are not stored, as many as there is room for.
  func reserve(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    _ limit: TransferLimit,
    durationNanoseconds: UInt64,
    for ledger: FlushLedger
  ) throws(StoreError) -> ReservedBlocks {
    try checkWritable()
    var reserved = ReservedBlocks()
    reserved.result = TransferResult(.busy, blockCount: range.blocks.count)
    let first = range.blocks.lowerBound
    let (storedCount, tailKey, tailHead) = try withStoredPrefix(
      namespace,
      prompt,
      blockCount: range.blocks.upperBound,
      touch: true
    ) { state, prefix in
      state.promise(prefix, from: first, to: ledger)
      return (
        prefix.blockCount, state.index.blockKey(at: prefix.location) ?? namespace.chain.rootKey,
        state.head(at: prefix.location)
      )
    }
    if storedCount > 0, let tailHead {
      noteUse(namespace, tailHead, tailKey, blockCount: storedCount, isRequest: false)
    }
    guard storedCount >= first else {
      reserved.result = TransferResult(.parentMissing, blockCount: range.blocks.count)
      return reserved
    }
    for block in first..<storedCount { reserved.result.outcomes[block - first] = .done }
    reserved.result.diskBlockCount = storedCount - first
    var cursor = ChainCursor(namespace.chain, prompt, at: storedCount, after: tailKey)
    var end = BlockOutcome.done
    let admittedEnd = try max(storedCount, admittedEnd(namespace, prompt, range))
    for block in admittedEnd..<range.blocks.upperBound {
      reserved.result.outcomes[block - first] = .declined
    }
    while cursor.block < admittedEnd, end == .done, let link = cursor.next() {
      let (slot, outcome) = lendNewSlot(
        namespace.layout.slotByteCount,
        limit,
        mayWait: reserved.incoming.isEmpty
      )
      end = outcome
      reserved.result.outcomes[link.block - first] = outcome
      guard let slot else { break }
      reserved.incoming.append(IncomingBlock(link: link, hostSlot: slot))
    }
    for index in reserved.result.outcomes.indices where end != .done {
      if ![.done, .declined].contains(reserved.result.outcomes[index]) {
        reserved.result.outcomes[index] = end
      }
    }
    reserved.result.hostBlockCount = reserved.incoming.count
    reserved.result.countLeading()
    let slots = reserved.incoming.map(\.hostSlot)
    reserved.id = state.withLock { state in
      let id = state.nextTicket
      state.nextTicket += 1
      state.statistics.hashesComputed += UInt64(slots.count)
      state.statistics.blocksDeduplicated += UInt64(storedCount - first)
      if !slots.isEmpty {
        state.reservations[id] = SlotReservation(
          slots: slots,
          endsAt: KVCore.deadline(after: durationNanoseconds)
        )
      }
      return id
    }
    return reserved
  }

  /// A pinned and lent slot; else why there is none.
  private func lendNewSlot(
    _ slotByteCount: Int,
    _ limit: TransferLimit,
    mayWait: Bool
  ) -> (HostSlot?, BlockOutcome) {
    let attempt: (inout StoreState) -> (HostSlot?, BlockOutcome)? = { state in
      guard let slot = state.allocateHostSlot(slotByteCount) else { return nil }
      guard state.arena.lend(slot) else {
        state.dropHostSlot(slot)
        return (nil, .full)
      }
      return (slot, .done)
    }
    if let outcome = state.withLock(attempt) { return outcome }
    guard mayWait else { return (nil, .busy) }
    return waitForRoom(limit, attempt) ?? (nil, .busy)
  }

  /// Enters what was written into a reservation's slots; all busy when it has ended meanwhile.
  func commit(
    _ id: UInt64,
    _ incoming: [IncomingBlock],
    _ lengths: [Int],
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ ledger: FlushLedger
  ) -> TransferResult {
    var result = TransferResult(.busy, blockCount: incoming.count)
    let isHeld = state.withLock { state in
      state.endReservations(now: monotonicNanoseconds())
      return state.reservations.removeValue(forKey: id) != nil
    }
    guard isHeld, let first = incoming.first?.link.block else { return result }
    // Blocks of a reservation have the namespace's default life.
    let offered = offeredLife(nil, priority: nil, namespace)
    var complete: [CompleteBlock] = []
    for (index, block) in incoming.enumerated() {
      let count = namespace.regionCount
      let own = Array(lengths[index * count..<(index + 1) * count])
      if namespace.identity.regionsAreVariable {
        unsafe pack(hostMemory(of: block.hostSlot, namespace), lengths: own, namespace)
      }
      let regions = regions(in: block.hostSlot, lengths: own, namespace)
      complete.append((block, finish(block, regions, namespace, prompt, offered)))
    }
    result.outcomes = state.withLock { state in
      for block in incoming { state.arena.endLoan(block.hostSlot) }
      return enterLocked(complete, first, namespace, prompt, offered, ledger, &state)
    }
    for (block, outcome) in zip(complete, result.outcomes) where outcome == .done {
      result.hostBlockCount += 1
      result.byteCount += block.payloadByteCount
    }
    result.countLeading()
    return result
  }

  func endReservation(_ id: UInt64) {
    state.withLock { state in
      if let reservation = state.reservations.removeValue(forKey: id) {
        state.takeBack(reservation)
      }
    }
    state.notifyAll()
  }
}
