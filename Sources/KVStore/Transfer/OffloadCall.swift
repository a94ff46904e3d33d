internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVIndex
internal import KVTiers

/// A block on its way into the arena: its slot is pinned, its bytes are being copied.
struct IncomingBlock {
  let link: ChainLink
  let hostSlot: HostSlot
  /// What of the block comes now, if its regions come one call at a time.
  var part: PartialBlock.Copy?
  /// Of the regions that have been copied, in order.
  var regions: [SlotHeader.Region] = []

  var payloadByteCount: Int { regions.reduce(0) { $0 + Int($1.storedByteCount) } }
}

/// One call that brings blocks in: an offload, a reservation, or a reservation's commit.
///
/// The one plan of all three: how far the path is stored (`findStored`), what is admitted of the rest, slots of the
/// arena for it by the window, and the index and the writer's queue once the bytes are there (`enter`). Each step goes
/// on along the path from where the last one ended.
struct OffloadCall {
  let core: StoreCore
  let namespace: NamespaceCore
  let prompt: Prompt
  let range: NamespaceCore.Range
  let limit: TransferLimit
  /// Of the handle that hears what becomes of the blocks.
  let ledger: FlushLedger
  /// What the blocks get.
  let offered: OfferedExpiry
  var result: TransferResult
  /// Whatever the rule: the blocks come from a remote tier, so they were used before.
  var isAdmitted = false
  /// How far the index has the path.
  var path = PathMark()
  /// Before the next block to come in.
  var cursor: ChainCursor
  /// Of the stored prefix, for admission.
  private(set) var sampledKeys: [UInt64] = []
  private var hashCount: UInt64 = 0
  /// Made when it is first needed.
  private var prefixHash: PrefixHash?

  init(
    _ core: StoreCore,
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    _ limit: TransferLimit,
    for ledger: FlushLedger
  ) {
    self.core = core
    self.namespace = namespace
    self.prompt = prompt
    self.range = range
    self.limit = limit
    self.ledger = ledger
    offered = core.offeredExpiry(range.timeToLive, priority: range.priority, namespace)
    result = TransferResult(.busy, blockCount: range.blocks.count)
    cursor = ChainCursor(namespace.chain, prompt)
  }

  /// Takes the blocks of the range, a window at a time so that the writer works alongside.
  mutating func offload() throws(StoreError) -> TransferResult {
    try core.checkWritable()
    let end = try admittedEnd()
    decline(from: end)
    let windowBlockCount = min(
      core.windowBlockCount(namespace),
      max(1, WriterQueue.unwrittenByteCountMax / namespace.layout.slotByteCount)
    )
    var next = max(range.blocks.lowerBound, cursor.block)
    while next < end, !limit.isCancelled {
      let window = next..<min(next + windowBlockCount, end)
      let outcome = try offload(window)
      if outcome != .done {
        endEarly(outcome)
        break
      }
      next = window.upperBound
    }
    countHashes()
    result.countLeading()
    return result
  }

  private mutating func offload(_ window: Range<Int>) throws(StoreError) -> BlockOutcome {
    guard try findStored(window) else { return .parentMissing }
    guard cursor.block < window.upperBound else { return .done }
    if core.isFull(namespace, blockCount: window.upperBound - cursor.block) { return .full }
    let links = nextLinks(to: window.upperBound)
    var prefixes: [Int] = []
    if !range.coversAllRegions {
      var hash = prefixHash ?? PrefixHash()
      for link in links {
        prefixes.append(hash.value(before: link.block, of: prompt, namespace))
      }
      prefixHash = hash
    }
    // Slots come as they are free: a part of the window goes on while the writer frees more.
    var rest = links[...]
    while !rest.isEmpty {
      var taken = try takeSlots(for: rest, behind: prefixes)
      if taken.isEmpty { return .busy }
      // Another call was first; these are none of those that this one brings.
      for link in rest.prefix(taken.storedCount) { noteStored(link.block..<link.block + 1) }
      rest = rest.dropFirst(taken.storedCount + taken.incoming.count)
      for index in taken.incoming.indices {
        taken.incoming[index].regions = fill(taken.incoming[index])
      }
      let outcome =
        range.coversAllRegions ? enter(taken.incoming) : enterParts(taken.incoming)
      if outcome != .done { return outcome }
    }
    return .done
  }

  // MARK: The plan

  /// Looks how far the path is stored, to the window's end at most, and sets the cursor behind that.
  ///
  /// - Returns: false when the window's first block has no parent.
  mutating func findStored(_ window: Range<Int>) throws(StoreError) -> Bool {
    let samples = path.blockCount == 0 && core.configuration.admission == .adaptive
    let (end, key, target, sampled) = try core.withStoredPrefix(
      namespace,
      prompt,
      blockCount: window.upperBound,
      touch: true,
      after: path
    ) { state, prefix in
      core.extendExpiry(namespace, prefix.segments, &state)
      core.renewExpiry(namespace, prefix, window, offered, &state)
      state.tree.promise(prefix, from: window.lowerBound, to: ledger)
      if !range.coversAllRegions {
        state.dropPartials(namespace.id, prefix, from: window.lowerBound)
      }
      state.meters.noteDeduplicated(max(0, prefix.blockCount - window.lowerBound))
      return (
        prefix.end, state.tree.blockKey(at: prefix.location),
        state.tree.target(at: prefix.location), samples ? state.tree.sampledKeys(of: prefix) : []
      )
    }
    if samples { sampledKeys = sampled }
    let isLonger = end.blockCount > path.blockCount
    path = end
    guard end.blockCount >= window.lowerBound else {
      // Of blocks whose other regions are yet to come, those of the window before are in no index.
      return !range.coversAllRegions && cursor.block == window.lowerBound
    }
    cursor = ChainCursor(namespace.chain, prompt, at: end.blockCount, after: key)
    noteStored(window.lowerBound..<end.blockCount)
    // The path was used, whatever comes of the rest.
    if isLonger, let target, let key {
      core.noteUse(namespace, target, key, blockCount: end.blockCount, isRequest: false)
    }
    return true
  }

  private mutating func noteStored(_ blocks: Range<Int>) {
    for block in blocks { result.outcomes[block - range.blocks.lowerBound] = .done }
    result.diskBlockCount += blocks.count
  }

  /// What the cursor passes, up to a block.
  mutating func nextLinks(to end: Int) -> [ChainLink] {
    var links: [ChainLink] = []
    links.reserveCapacity(end - cursor.block)
    while cursor.block < end, let link = cursor.next() { links.append(link) }
    hashCount += UInt64(links.count)
    return links
  }

  mutating func countHashes() {
    core.state.withLock { $0.meters.noteHashes(hashCount) }
    hashCount = 0
  }

  /// What is not admitted is not taken.
  mutating func decline(from end: Int) {
    for block in end..<range.blocks.upperBound {
      result.outcomes[block - range.blocks.lowerBound] = .declined
    }
  }

  /// What nothing was done with ends as the block did that was in the way.
  mutating func endEarly(_ outcome: BlockOutcome) {
    for index in result.outcomes.indices where result.outcomes[index] == .busy {
      result.outcomes[index] = outcome
    }
  }

  // MARK: Arena slots

  /// What an offload gets for the next blocks.
  private struct Taken {
    /// So many leading ones are stored by now.
    var storedCount = 0
    /// Pinned slots to copy into.
    var incoming: [IncomingBlock] = []

    var isEmpty: Bool { storedCount == 0 && incoming.isEmpty }
  }

  /// Slots for the leading blocks, as many as are free; waits for the first, and gets nothing when the limit comes before.
  ///
  /// `prefixes` has the hashes before them by their index, if their regions come one call at a time.
  private func takeSlots(
    for links: ArraySlice<ChainLink>,
    behind prefixes: [Int]
  ) throws(StoreError) -> Taken {
    let attempt: (inout StoreState) -> Taken? = { state in
      var taken = Taken()
      for (index, link) in zip(links.indices, links) {
        guard !range.coversAllRegions else {
          guard let slot = state.host.allocate(namespace.layout.slotByteCount) else { break }
          taken.incoming.append(IncomingBlock(link: link, hostSlot: slot))
          continue
        }
        let name = PartialBlock.Name(namespace: namespace.id, blockKey: link.key)
        if !state.partials.contains(name), isStored(link.block, &state) {
          guard taken.incoming.isEmpty else { break }
          taken.storedCount += 1
        } else {
          guard let (slot, part) = takePart(name, link.block, behind: prefixes[index], &state)
          else { break }
          taken.incoming.append(IncomingBlock(link: link, hostSlot: slot, part: part))
        }
      }
      return taken.isEmpty ? nil : taken
    }
    if let taken = core.state.withLock(attempt) { return taken }
    core.state.withLock { $0.partials.dropAbandoned() }
    if let taken = core.waitForRoom(limit, attempt) { return taken }
    if core.health.isPoisoned { throw .poisoned }
    return Taken()
  }

  // MARK: Copying in

  /// Copies the block's regions that come now into its slot; returns what their headers say.
  private func fill(_ incoming: IncomingBlock) -> [SlotHeader.Region] {
    let slot = unsafe core.hostMemory(of: incoming.hostSlot)
    var regions: [SlotHeader.Region] = []
    regions.reserveCapacity(range.regions.count)
    var packedOffset = namespace.layout.headerByteCount
    let firstSpan = range.spanIndex(ofBlock: incoming.link.block)
    for region in range.regions {
      if let part = incoming.part, !part.regions.contains(region) { continue }
      let span = unsafe range.spans[firstSpan + region - range.regions.lowerBound]
      // A partial block's variable regions lie at their largest offsets until all have come.
      let offset =
        range.coversAllRegions ? packedOffset : namespace.layout.regionOffset(region)
      let checksum = unsafe xxh3Checksum(
        copying: UnsafeRawBufferPointer(start: span.data, count: span.length),
        to: slot.advanced(by: offset)
      )
      regions.append(SlotHeader.Region(byteCount: span.length, checksum: checksum))
      packedOffset += span.length
    }
    return regions
  }

  /// Moves variable regions together once all have come.
  ///
  /// Forward only, so nothing is overwritten before it is moved.
  func pack(_ hostSlot: HostSlot, lengths: [Int]) {
    let slot = unsafe core.hostMemory(of: hostSlot)
    var packed = namespace.layout.headerByteCount
    for (region, length) in lengths.enumerated() {
      let offset = namespace.layout.regionOffset(region)
      if offset != packed {
        unsafe slot.advanced(by: packed).copyMemory(
          from: slot.advanced(by: offset),
          byteCount: length
        )
      }
      packed += length
    }
  }

  /// Writes the header without its generation, which the writer knows; the block is whole then.
  func finish(_ incoming: IncomingBlock) {
    let slot = unsafe core.hostMemory(of: incoming.hostSlot)
    let payloadByteCount = incoming.payloadByteCount
    let offset = namespace.layout.headerByteCount + payloadByteCount
    // The padding is written as well; what the memory held before stays out of it.
    let padded = roundUp(offset, to: 4096)
    unsafe UnsafeMutableRawBufferPointer(start: slot.advanced(by: offset), count: padded - offset)
      .initializeMemory(as: UInt8.self, repeating: 0)
    let block = namespace.block(incoming.link.block, of: prompt)
    var header = SlotHeader()
    header.headerByteCount = UInt32(namespace.layout.headerByteCount)
    header.namespaceID = namespace.id
    header.storeUUID = core.storeUUID
    header.rootKey = namespace.chain.rootKey
    header.blockKey = incoming.link.key
    header.parentKey = incoming.link.parentKey
    header.depth = UInt32(incoming.link.block)
    header.payloadByteCount = UInt32(payloadByteCount)
    header.storedByteCount = UInt32(payloadByteCount)
    header.created = core.time.now()
    header.expiry = offered.blockExpiry.storedExpiry
    header.hasIdleExpiry = offered.blockExpiry.isIdle
    header.priority = offered.priority
    header.tier = .disk
    header.regions = incoming.regions
    header.words = block.map { unsafe Array($0.wordBytes) } ?? []
    header.extra = block.map { unsafe Array($0.extra) } ?? []
    unsafe header.encode(
      into: UnsafeMutableRawBufferPointer(
        start: slot,
        count: namespace.layout.headerByteCount
      )
    )
  }

  // MARK: Entering the index

  /// Puts the copied blocks into the index and the writer's queue.
  private mutating func enter(_ incoming: [IncomingBlock]) -> BlockOutcome {
    for block in incoming {
      finish(block)
      result.byteCount += block.payloadByteCount
    }
    let (outcomes, end) = core.state.withLock { state in enter(incoming, &state) }
    path = end
    return note(outcomes, of: incoming)
  }

  /// Returns the first outcome that is not `done`.
  mutating func note(_ outcomes: [BlockOutcome], of complete: [IncomingBlock]) -> BlockOutcome {
    for (block, outcome) in zip(complete, outcomes) {
      result.outcomes[block.link.block - range.blocks.lowerBound] = outcome
      if outcome == .done { result.hostBlockCount += 1 }
    }
    return outcomes.first { $0 != .done } ?? .done
  }

  /// Whole blocks go behind each other, the first behind its parent; each is pending, and queued for the writer.
  ///
  /// - Returns: how each fared, and where the path ends then.
  func enter(
    _ complete: [IncomingBlock],
    _ state: inout StoreState
  ) -> (outcomes: [BlockOutcome], end: PathMark) {
    guard let firstBlock = complete.first?.link.block else { return ([], path) }
    var segments = exchange(&state.spare.segments, with: [])
    defer { state.spare.segments = segments }
    var end = state.tree.walk(
      namespace,
      prompt,
      blockCount: firstBlock,
      after: path,
      touch: true,
      segments: &segments
    ).end
    var isReachable = end.blockCount == firstBlock
    var last: (target: LeaseTable.Target, link: ChainLink)?
    var outcomes: [BlockOutcome] = []
    outcomes.reserveCapacity(complete.count)
    var queued: [WriterOperation] = []
    queued.reserveCapacity(complete.count)
    var nextBlock = firstBlock
    for incoming in complete {
      let link = incoming.link
      let payloadByteCount = incoming.payloadByteCount
      // A block hangs from the one before it, never from another.
      if link.block != nextBlock { isReachable = false }
      nextBlock = link.block + 1
      // Handles that brought some of its regions.
      var others: [FlushLedger] = []
      if !state.partials.isEmpty {
        let name = PartialBlock.Name(namespace: namespace.id, blockKey: link.key)
        others = state.partials.ledgers(of: name)
        state.partials.drop(name)
      }
      var entry = IndexEntry(
        blockKey: link.key,
        payloadByteCount: UInt32(payloadByteCount),
        hostSlot: incoming.hostSlot.rawValue,
        flags: .pending
      )
      entry.blockExpiry = offered.blockExpiry
      let parentTarget =
        end.location.isRoot
        ? LeaseTable.Target.published(.root) : state.tree.target(at: end.location)
      guard isReachable, let parentTarget,
        let block = namespace.block(link.block, of: prompt),
        let appended = state.tree.append(namespace.id, after: end.location, block, entry: entry)
      else {
        isReachable = false
        state.host.drop(incoming.hostSlot)
        for other in others where other !== ledger { other.note(.parent) }
        outcomes.append(.parentMissing)
        continue
      }
      end.location = appended.location
      end.blockCount += 1
      outcomes.append(.done)
      guard appended.isNew else {
        // Another thread was first.
        state.host.drop(incoming.hostSlot)
        state.meters.noteDeduplicated(1)
        for ledger in others + [ledger] { state.tree.promise(end.location, to: ledger) }
        last = state.tree.target(at: end.location).map { ($0, link) }
        continue
      }
      let ticket = state.host.attachPending(incoming.hostSlot, at: end.location, for: ledger)
      for other in others { state.tree.promise(end.location, to: other) }
      state.meters.noteOffload(byteCount: payloadByteCount)
      last = (.pending(ticket: ticket), link)
      let pending = PendingBlock(
        namespace: namespace,
        ticket: ticket,
        hostSlot: incoming.hostSlot,
        blockKey: link.key,
        parent: parentTarget,
        parentKey: link.parentKey,
        depth: link.block,
        payloadByteCount: payloadByteCount,
        offered: offered,
        ledger: ledger
      )
      queued.append(.publish(pending))
    }
    core.writer?.enqueue(queued, slotByteCount: namespace.layout.slotByteCount)
    if let (target, link) = last {
      core.noteUse(namespace, target, link.key, blockCount: link.block + 1, isRequest: false)
    }
    if namespace.expiry.mayExpire.value {
      state.tree.raiseIdle(downTo: end.location, until: offered.blockExpiry.deadline)
    }
    return (outcomes, end)
  }
}
