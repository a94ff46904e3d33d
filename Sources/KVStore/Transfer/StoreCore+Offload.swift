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
}

extension StoreCore {
  /// Takes the blocks of the range, a window at a time so that the writer works alongside.
  func offload(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    limit: TransferLimit,
    for ledger: FlushLedger
  ) throws(StoreError) -> TransferResult {
    try checkWritable()
    var range = range
    range.offered = offeredLife(range.timeToLive, priority: range.priority, namespace)
    var result = TransferResult(.busy, blockCount: range.blocks.count)
    var next = range.blocks.lowerBound
    // The key before `next`, once a window has been taken.
    var parentKey: BlockKey?
    let admittedEnd = try admittedEnd(namespace, prompt, range)
    for block in admittedEnd..<range.blocks.upperBound {
      result.outcomes[block - range.blocks.lowerBound] = .declined
    }
    while next < admittedEnd {
      let window = next..<min(next + offloadWindowBlockCount(namespace), admittedEnd)
      if limit.isCancelled { break }
      let outcome = try offloadWindow(
        namespace,
        prompt,
        range,
        window,
        limit,
        ledger,
        &parentKey,
        &result
      )
      if outcome != .done {
        for block in next..<range.blocks.upperBound {
          let index = block - range.blocks.lowerBound
          if result.outcomes[index] == .busy { result.outcomes[index] = outcome }
        }
        break
      }
      next = window.upperBound
    }
    result.countLeading()
    return result
  }

  /// Blocks moved under one pass of the state lock: a quarter of the arena, at most 16 MiB.
  func windowBlockCount(_ namespace: NamespaceCore) -> Int {
    let bytes = min(effectiveHostBytes / 4, 16 << 20)
    return max(1, min(256, bytes / namespace.layout.slotByteCount))
  }

  /// Blocks that enter the queue at once: as many as the writer begins to write with, while the next are copied.
  private func offloadWindowBlockCount(_ namespace: NamespaceCore) -> Int {
    min(
      windowBlockCount(namespace),
      max(1, WriterQueue.unwrittenByteCountMax / namespace.layout.slotByteCount)
    )
  }

  private func offloadWindow(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    _ window: Range<Int>,
    _ limit: TransferLimit,
    _ ledger: FlushLedger,
    _ carriedKey: inout BlockKey?,
    _ result: inout TransferResult
  ) throws(StoreError) -> BlockOutcome {
    let (storedCount, tailKey, tailHead) = try withStoredPrefix(
      namespace,
      prompt,
      blockCount: window.upperBound,
      touch: true
    ) { state, prefix in
      extendLives(namespace, prefix.segments, &state)
      renewLives(namespace, prefix.segments, window, range.offered, &state)
      state.promise(prefix, from: window.lowerBound, to: ledger)
      if !range.coversAllRegions {
        state.dropPartials(namespace.id, prefix, from: window.lowerBound)
      }
      return (
        prefix.blockCount, state.index.blockKey(at: prefix.location) ?? namespace.chain.rootKey,
        state.head(at: prefix.location)
      )
    }
    var cursor = ChainCursor(namespace.chain, prompt, at: storedCount, after: tailKey)
    if storedCount < window.lowerBound {
      // Of blocks whose other regions are yet to come, those of the window before are in no index.
      guard !range.coversAllRegions, let carriedKey else { return .parentMissing }
      cursor = ChainCursor(namespace.chain, prompt, at: window.lowerBound, after: carriedKey)
    }
    defer { carriedKey = cursor.parentKey }
    for block in window.lowerBound..<max(storedCount, window.lowerBound) {
      result.outcomes[block - range.blocks.lowerBound] = .done
      result.diskBlockCount += 1
    }
    if storedCount > window.lowerBound {
      state.withLock {
        $0.statistics.blocksDeduplicated += UInt64(storedCount - window.lowerBound)
      }
    }
    // The path was used, whatever comes of the rest.
    if storedCount > 0, let tailHead {
      noteUse(namespace, tailHead, tailKey, blockCount: storedCount, isRequest: false)
    }
    guard cursor.block < window.upperBound else { return .done }
    if isFull(namespace, blockCount: window.upperBound - cursor.block) { return .full }

    while cursor.block < window.upperBound {
      // Slots come as they are free: a part of the window goes on while the writer frees more.
      var incoming: [IncomingBlock] = []
      var isStored = false
      var hashCount: UInt64 = 0
      while cursor.block < window.upperBound {
        var ahead = cursor
        guard let link = ahead.next() else { break }
        hashCount += 1
        let taken = try take(
          namespace,
          prompt,
          link,
          range,
          mayWait: incoming.isEmpty,
          limit,
          ledger
        )
        if case .stored = taken, incoming.isEmpty {
          // Another call was first; it is none of those that this one brings.
          result.outcomes[link.block - range.blocks.lowerBound] = .done
          result.diskBlockCount += 1
          isStored = true
        } else if case .incoming(let one) = taken {
          incoming.append(one)
        } else {
          break
        }
        cursor = ahead
      }
      state.withLock { $0.statistics.hashesComputed += hashCount }
      if incoming.isEmpty {
        if isStored { continue }
        return .busy
      }
      for index in incoming.indices {
        incoming[index].regions = fill(incoming[index], namespace, range)
      }
      let outcome =
        range.coversAllRegions
        ? enter(incoming, namespace, prompt, range, ledger, &result)
        : enterParts(incoming, namespace, prompt, range, limit, ledger, &result)
      if outcome != .done { return outcome }
    }
    return .done
  }

  // MARK: Arena slots

  /// What an offload gets for a block.
  enum Taken {
    /// A pinned slot to copy into.
    case incoming(IncomingBlock)
    /// It is stored by now.
    case stored
  }

  /// A pinned arena slot for the block; nil when the limit came first.
  private func take(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ link: ChainLink,
    _ range: NamespaceCore.Range,
    mayWait: Bool,
    _ limit: TransferLimit,
    _ ledger: FlushLedger
  ) throws(StoreError) -> Taken? {
    let byteCount = namespace.layout.slotByteCount
    let attempt: (inout StoreState) -> Taken? = { state in
      var incoming: IncomingBlock
      if range.coversAllRegions {
        guard let slot = state.allocateHostSlot(byteCount) else { return nil }
        incoming = IncomingBlock(link: link, hostSlot: slot)
      } else {
        let name = PartialBlock.Name(namespace: namespace.id, blockKey: link.key)
        if state.partials[name] == nil, self.isStored(namespace, prompt, link.block, ledger, &state)
        {
          return .stored
        }
        guard
          let (slot, part) = state.takePart(
            name,
            namespace,
            prompt,
            link.block,
            range.regions,
            ledger
          )
        else { return nil }
        incoming = IncomingBlock(link: link, hostSlot: slot)
        incoming.part = part
      }
      return .incoming(incoming)
    }
    if let taken = state.withLock(attempt) { return taken }
    guard mayWait else { return nil }
    state.withLock { $0.dropAbandonedPartials() }
    let taken = waitForRoom(limit, attempt)
    if taken == nil, isPoisoned { throw .poisoned }
    return taken
  }

  // MARK: Copying in

  /// Copies the block's regions that come now into its slot; answers what their headers say.
  private func fill(
    _ incoming: IncomingBlock,
    _ namespace: NamespaceCore,
    _ range: NamespaceCore.Range
  ) -> [SlotHeader.Region] {
    let slot = unsafe hostMemory(of: incoming.hostSlot, namespace)
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
      regions.append(
        SlotHeader.Region(
          rawByteCount: UInt32(span.length),
          storedByteCount: UInt32(span.length),
          checksum: checksum
        )
      )
      packedOffset += span.length
    }
    return regions
  }

  /// What the headers of regions that lie packed in a slot say.
  func regions(in hostSlot: HostSlot, lengths: [Int], _ namespace: NamespaceCore)
    -> [SlotHeader.Region]
  {
    let slot = unsafe hostMemory(of: hostSlot, namespace)
    var offset = namespace.layout.headerByteCount
    return lengths.map { length in
      defer { offset += length }
      return SlotHeader.Region(
        rawByteCount: UInt32(length),
        storedByteCount: UInt32(length),
        checksum: unsafe xxh3Checksum(
          UnsafeRawBufferPointer(start: slot.advanced(by: offset), count: length)
        )
      )
    }
  }

  /// Writes the header without its generation, which the writer knows; answers the payload's size.
  func finish(
    _ incoming: IncomingBlock,
    _ regions: [SlotHeader.Region],
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ offered: OfferedLife
  ) -> Int {
    let slot = unsafe hostMemory(of: incoming.hostSlot, namespace)
    let payloadByteCount = regions.reduce(0) { $0 + Int($1.storedByteCount) }
    let offset = namespace.layout.headerByteCount + payloadByteCount
    // The padding is written as well; what the memory held before stays out of it.
    let padded = roundUp(offset, to: 4096)
    unsafe UnsafeMutableRawBufferPointer(start: slot.advanced(by: offset), count: padded - offset)
      .initializeMemory(as: UInt8.self, repeating: 0)
    let block = namespace.block(incoming.link.block, of: prompt)
    var header = SlotHeader()
    header.headerByteCount = UInt32(namespace.layout.headerByteCount)
    header.namespaceID = namespace.id
    header.storeUUID = storeUUID
    header.rootKey = namespace.chain.rootKey
    header.blockKey = incoming.link.key
    header.parentKey = incoming.link.parentKey
    header.depth = UInt32(incoming.link.block)
    header.payloadByteCount = UInt32(payloadByteCount)
    header.storedByteCount = UInt32(payloadByteCount)
    header.created = time.now()
    header.expiry = offered.life.storedExpiry
    header.hasIdleExpiry = offered.life.isIdle
    header.priority = offered.priority
    header.tier = .disk
    header.regions = regions
    header.words = block.map { unsafe Array($0.wordBytes) } ?? []
    header.extra = block.map { unsafe Array($0.extra) } ?? []
    unsafe header.encode(
      into: UnsafeMutableRawBufferPointer(
        start: slot,
        count: namespace.layout.headerByteCount
      )
    )
    return payloadByteCount
  }

  /// Moves variable regions together once all have come.
  ///
  /// Forward only, so nothing is overwritten before it is moved.
  func pack(_ slot: UnsafeMutableRawPointer, lengths: [Int], _ namespace: NamespaceCore) {
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

  // MARK: Entering the index

  /// A block that is whole, its header but for the generation included.
  typealias CompleteBlock = (incoming: IncomingBlock, payloadByteCount: Int)

  /// Puts the copied blocks into the index and the writer's queue.
  private func enter(
    _ incoming: [IncomingBlock],
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    _ ledger: FlushLedger,
    _ result: inout TransferResult
  ) -> BlockOutcome {
    guard let firstBlock = incoming.first?.link.block else { return .done }
    var complete: [CompleteBlock] = []
    complete.reserveCapacity(incoming.count)
    for block in incoming {
      result.byteCount += block.regions.reduce(0) { $0 + Int($1.storedByteCount) }
      complete.append((block, finish(block, block.regions, namespace, prompt, range.offered)))
    }
    let outcomes = state.withLock { state in
      enterLocked(complete, firstBlock, namespace, prompt, range.offered, ledger, &state)
    }
    return note(outcomes, of: complete, range, &result)
  }

  /// Answers the first outcome that is not `done`.
  func note(
    _ outcomes: [BlockOutcome],
    of complete: [CompleteBlock],
    _ range: NamespaceCore.Range,
    _ result: inout TransferResult
  ) -> BlockOutcome {
    for (block, outcome) in zip(complete, outcomes) {
      result.outcomes[block.incoming.link.block - range.blocks.lowerBound] = outcome
      if outcome == .done { result.hostBlockCount += 1 }
    }
    return outcomes.first { $0 != .done } ?? .done
  }

  func enterLocked(
    _ complete: [CompleteBlock],
    _ firstBlock: Int,
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ offered: OfferedLife,
    _ ledger: FlushLedger,
    _ state: inout StoreState
  ) -> [BlockOutcome] {
    var segments: [IndexSegment] = []
    guard let words = unsafe prompt.words else { return complete.map { _ in .miss } }
    let extra: ExtraBytesAccessor? =
      unsafe prompt.extra.isEmpty ? nil : { unsafe prompt.extraBytes(ofBlock: $0) }
    let parent = unsafe state.index.match(
      namespace.id,
      words: words,
      blockCount: firstBlock,
      extra: extra,
      segments: &segments
    )
    var location = parent.location
    var isReachable = parent.matchedBlockCount == firstBlock
    var last: (head: LeaseTable.Head, block: IncomingBlock)?
    var outcomes: [BlockOutcome] = []
    var nextBlock = firstBlock
    for (incoming, payloadByteCount) in complete {
      // A block hangs from the one before it, never from another.
      if incoming.link.block != nextBlock { isReachable = false }
      nextBlock = incoming.link.block + 1
      // Handles that brought some of its regions.
      var others: [FlushLedger] = []
      if !state.partials.isEmpty {
        let name = PartialBlock.Name(namespace: namespace.id, blockKey: incoming.link.key)
        others = state.partials[name]?.ledgers ?? []
        state.dropPartial(name)
      }
      var entry = IndexEntry(
        blockKey: incoming.link.key,
        payloadByteCount: UInt32(payloadByteCount),
        hostSlot: incoming.hostSlot.rawValue,
        flags: .pending
      )
      entry.life = offered.life
      let parentHead =
        location.isRoot ? LeaseTable.Head.published(.root) : state.head(at: location)
      guard isReachable, let parentHead,
        let block = namespace.block(incoming.link.block, of: prompt),
        let appended = state.index.append(namespace.id, after: location, block, entry: entry)
      else {
        isReachable = false
        state.dropHostSlot(incoming.hostSlot)
        for other in others where other !== ledger { other.note(.parent) }
        outcomes.append(.parentMissing)
        continue
      }
      location = appended.location
      outcomes.append(.done)
      guard appended.isNew else {
        // Another thread was first.
        state.dropHostSlot(incoming.hostSlot)
        state.statistics.blocksDeduplicated += 1
        for ledger in others + [ledger] { state.promise(location, to: ledger) }
        last = state.head(at: location).map { ($0, incoming) }
        continue
      }
      let ticket = state.nextTicket
      state.nextTicket += 1
      state.hostBlocks.attach(
        incoming.hostSlot.rawValue,
        at: location,
        pending: HostBlockTable.Pending(ticket: ticket, ledger: ledger)
      )
      for other in others { state.promise(location, to: other) }
      state.statistics.blocksOffloaded += 1
      state.statistics.offloadedBytes += UInt64(payloadByteCount)
      last = (.pending(ticket: ticket), incoming)
      writer?.enqueue(
        PendingBlock(
          namespace: namespace,
          ticket: ticket,
          hostSlot: incoming.hostSlot,
          blockKey: incoming.link.key,
          parent: parentHead,
          parentKey: incoming.link.parentKey,
          depth: incoming.link.block,
          payloadByteCount: payloadByteCount,
          offered: offered,
          ledger: ledger
        )
      )
    }
    if let (head, block) = last {
      noteUse(namespace, head, block.link.key, blockCount: block.link.block + 1, isRequest: false)
    }
    raiseAncestors(of: location, namespace, until: offered.life.deadline, &state)
    return outcomes
  }
}
