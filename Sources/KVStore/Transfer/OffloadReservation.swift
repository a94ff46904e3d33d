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
  private let use: NamespaceUse
  private var namespace: NamespaceCore { use.core }
  private let prompt: PromptCopy
  private let reserved: ReservedBlocks
  private let ledger: FlushLedger
  private let isOpen = AtomicFlag(true)
  private let onEnd: @Sendable (OffloadReservation) -> Void

  init(
    _ core: StoreCore,
    _ use: NamespaceUse,
    _ prompt: PromptCopy,
    _ reserved: ReservedBlocks,
    _ ledger: FlushLedger,
    onEnd: @escaping @Sendable (OffloadReservation) -> Void
  ) {
    self.core = core
    self.use = use
    self.prompt = prompt
    self.ledger = ledger
    self.onEnd = onEnd
    self.reserved = reserved
    result = reserved.result
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
    let slot = unsafe core.hostMemory(of: reserved.incoming[block - blocks.lowerBound].hostSlot)
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
      core.commit(reserved, lengths, namespace, prompt, ledger)
    }
  }

  private func checked(_ lengths: [Int]?) throws(StoreError) -> [Int] {
    let bounds = namespace.identity.regionByteCounts
    guard let lengths else {
      guard !namespace.identity.regionsAreVariable else { throw .invalidArgument(.spanLength) }
      return reserved.incoming.flatMap { _ in bounds }
    }
    guard lengths.count == reserved.incoming.count * bounds.count else {
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
    core.endReservation(reserved.id)
    onEnd(self)
  }

  /// Whether the process was forked since.
  public var isForked: Bool { core.isForked }
}

/// What a reservation begins with.
struct ReservedBlocks {
  var result = TransferResult()
  var incoming: [IncomingBlock] = []
  /// How far the index had the path.
  var path = PathMark()
  var id: UInt64 = 0
}

extension OffloadCall {
  /// Takes and lends arena slots for the range's blocks that are not stored, as many as there is room for.
  mutating func reserve(durationNanoseconds: UInt64) throws(StoreError) -> ReservedBlocks {
    try core.checkWritable()
    var reserved = ReservedBlocks()
    if try findStored(range.blocks) {
      let admittedEnd = admittedEndOfRest()
      decline(from: admittedEnd)
      // Waits for room for the first only.
      var end = BlockOutcome.done
      while cursor.block < admittedEnd, end == .done {
        let window = min(cursor.block + core.windowBlockCount(namespace), admittedEnd)
        let links = nextLinks(to: window)
        let taken = lendSlots(for: links[...], mayWait: reserved.incoming.isEmpty)
        for link in links.prefix(taken.incoming.count) {
          result.outcomes[link.block - range.blocks.lowerBound] = .done
        }
        reserved.incoming += taken.incoming
        end = taken.end
      }
      endEarly(end)
      result.hostBlockCount = reserved.incoming.count
      result.countLeading()
    } else {
      endEarly(.parentMissing)
    }
    countHashes()
    reserved.result = result
    reserved.path = path
    let slots = reserved.incoming.map(\.hostSlot)
    reserved.id = core.state.withLock {
      $0.reservations.add(slots, endsAt: KVCore.deadline(after: durationNanoseconds))
    }
    return reserved
  }

  /// Pinned and lent slots for the leading blocks, and why the next one has none.
  private func lendSlots(
    for links: ArraySlice<ChainLink>,
    mayWait: Bool
  ) -> (incoming: [IncomingBlock], end: BlockOutcome) {
    let attempt: (inout StoreState) -> ([IncomingBlock], BlockOutcome)? = { state in
      var incoming: [IncomingBlock] = []
      for link in links {
        guard let slot = state.host.allocate(namespace.layout.slotByteCount) else {
          return incoming.isEmpty ? nil : (incoming, .busy)
        }
        guard state.host.lend(slot) else {
          state.host.drop(slot)
          return (incoming, .full)
        }
        incoming.append(IncomingBlock(link: link, hostSlot: slot))
      }
      return (incoming, .done)
    }
    if let taken = core.state.withLock(attempt) { return taken }
    return mayWait ? core.waitForRoom(limit, attempt) ?? ([], .busy) : ([], .busy)
  }

  /// Enters what was written into a reservation's slots; all busy when it has ended meanwhile.
  mutating func commit(_ reserved: ReservedBlocks, _ lengths: [Int]) -> TransferResult {
    let isHeld = core.state.withLock { state in
      state.reservations.endLapsed(now: monotonicNanoseconds())
      return state.reservations.take(reserved.id)
    }
    guard isHeld else { return result }
    path = reserved.path
    var blocks = reserved.incoming
    for index in blocks.indices {
      let count = namespace.regionCount
      let own = Array(lengths[index * count..<(index + 1) * count])
      if namespace.identity.regionsAreVariable { pack(blocks[index].hostSlot, lengths: own) }
      blocks[index].regions = regions(in: blocks[index].hostSlot, lengths: own)
      finish(blocks[index])
    }
    let (outcomes, _) = core.state.withLock { [blocks] state in
      for block in blocks { state.host.endLoan(block.hostSlot) }
      return enter(blocks, &state)
    }
    for (block, outcome) in zip(blocks, outcomes) where outcome == .done {
      result.byteCount += block.payloadByteCount
    }
    _ = note(outcomes, of: blocks)
    result.countLeading()
    return result
  }

  /// What the headers of regions that lie packed in a slot say.
  private func regions(in hostSlot: HostSlot, lengths: [Int]) -> [SlotHeader.Region] {
    let slot = unsafe core.hostMemory(of: hostSlot)
    var offset = namespace.layout.headerByteCount
    return lengths.map { length in
      defer { offset += length }
      let bytes = unsafe UnsafeRawBufferPointer(start: slot.advanced(by: offset), count: length)
      return SlotHeader.Region(byteCount: length, checksum: xxh3Checksum(bytes))
    }
  }
}

extension StoreCore {
  /// Takes a reservation's blocks in; they have the namespace's default life.
  func commit(
    _ reserved: ReservedBlocks,
    _ lengths: [Int],
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ ledger: FlushLedger
  ) -> TransferResult {
    let first = reserved.incoming.first?.link.block ?? 0
    let range = namespace.range(ofBlocks: first..<first + reserved.incoming.count)
    var call = OffloadCall(self, namespace, prompt, range, .none, for: ledger)
    return call.commit(reserved, lengths)
  }

  func endReservation(_ id: UInt64) {
    state.withLock { $0.reservations.end(id) }
    state.notifyAll()
  }
}
