internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVIndex
internal import KVTiers

/// A block on its way into the arena: its slot is pinned, its bytes are being copied.
struct IncomingBlock {
  let block: Int
  let blockKey: BlockKey
  let parentKey: BlockKey
  let hostSlot: HostSlot
  /// Of the regions that have been copied, in order.
  var regions: [SlotHeader.Region] = []
}

extension StoreCore {
  /// Takes the blocks of the range, a window at a time so that the writer works alongside.
  func offload(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    limit: TransferLimit
  ) throws(StoreError) -> TransferResult {
    try checkWritable()
    var range = range
    range.offered = offeredLife(range.timeToLive, priority: range.priority, namespace)
    var result = TransferResult(.busy, blockCount: range.blocks.count)
    var next = range.blocks.lowerBound
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
      return (
        prefix.blockCount, state.index.blockKey(at: prefix.location) ?? namespace.chain.rootKey,
        state.head(at: prefix.location)
      )
    }
    guard storedCount >= window.lowerBound else { return .parentMissing }
    for block in window.lowerBound..<min(storedCount, window.upperBound) {
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
    guard storedCount < window.upperBound else { return .done }
    if isFull(namespace, blockCount: window.upperBound - storedCount) { return .full }

    var parentKey = tailKey
    var block = storedCount
    while block < window.upperBound {
      // Slots come as they are free: a part of the window goes on while the writer frees more.
      var incoming: [IncomingBlock] = []
      var hashCount: UInt64 = 0
      while block < window.upperBound {
        guard let words = unsafe namespace.words(of: prompt, block: block) else { break }
        let key = unsafe namespace.chain.key(
          after: parentKey,
          words: words,
          extra: prompt.extraBytes(ofBlock: block)
        )
        hashCount += 1
        guard
          let slot = try takeHostSlot(
            namespace,
            prompt,
            block,
            key,
            range,
            mayWait: incoming.isEmpty,
            limit
          )
        else { break }
        incoming.append(
          IncomingBlock(block: block, blockKey: key, parentKey: parentKey, hostSlot: slot)
        )
        parentKey = key
        block += 1
      }
      state.withLock { $0.statistics.hashesComputed += hashCount }
      if incoming.isEmpty { return .busy }
      for index in incoming.indices {
        incoming[index].regions = fill(incoming[index], namespace, range)
      }
      let outcome = enter(incoming, namespace, prompt, range, &result)
      if outcome != .done { return outcome }
    }
    return .done
  }

  // MARK: Arena slots

  /// A pinned arena slot for the block: the one that holds its other regions already, or a new one.
  private func takeHostSlot(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ block: Int,
    _ key: BlockKey,
    _ range: NamespaceCore.Range,
    mayWait: Bool,
    _ limit: TransferLimit
  ) throws(StoreError) -> HostSlot? {
    let partialKey =
      range.coversAllRegions ? nil : partialKey(namespace, prompt, block, key)
    let byteCount = namespace.layout.slotByteCount
    let attempt: (inout StoreState) -> HostSlot? = { state in
      if let partialKey, let partial = state.partials[partialKey] { return partial.hostSlot }
      guard let slot = state.allocateHostSlot(byteCount) else { return nil }
      if let partialKey {
        state.partials[partialKey] = PartialBlock(
          hostSlot: slot,
          regions: Array(repeating: nil, count: namespace.regionCount),
          startedAt: monotonicNanoseconds()
        )
      }
      return slot
    }
    if let slot = state.withLock(attempt) { return slot }
    guard mayWait else { return nil }
    dropAbandonedPartials(namespace)
    let slot = waitForRoom(limit, attempt)
    if slot == nil, isPoisoned { throw .poisoned }
    return slot
  }

  private func partialKey(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ block: Int,
    _ key: BlockKey
  ) -> PartialKey {
    let words = unsafe UnsafeRawBufferPointer(
      start: namespace.words(of: prompt, block: block),
      count: namespace.wordsPerBlock * 4
    )
    return PartialKey(
      namespace: namespace.id,
      blockKey: key,
      wordsChecksum: xxh3Checksum(words)
    )
  }

  /// Layer-wise offloads that nobody finished within a minute give their slots back.
  private func dropAbandonedPartials(_ namespace: NamespaceCore) {
    let limit = monotonicNanoseconds()
    state.withLock { state in
      for (key, partial) in state.partials where partial.startedAt + 60_000_000_000 < limit {
        state.partials[key] = nil
        state.dropHostSlot(partial.hostSlot)
      }
    }
  }

  // MARK: Copying in

  /// Copies the block's regions of the range into its slot; answers what their headers say.
  private func fill(
    _ incoming: IncomingBlock,
    _ namespace: NamespaceCore,
    _ range: NamespaceCore.Range
  ) -> [SlotHeader.Region] {
    let slot = unsafe hostMemory(of: incoming.hostSlot, namespace)
    var regions: [SlotHeader.Region] = []
    regions.reserveCapacity(range.regions.count)
    var packedOffset = namespace.layout.headerByteCount
    var spanIndex = range.spanIndex(ofBlock: incoming.block)
    for region in range.regions {
      let span = unsafe range.spans[spanIndex]
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
      spanIndex += 1
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
    let words = unsafe UnsafeRawBufferPointer(
      start: namespace.words(of: prompt, block: incoming.block),
      count: namespace.wordsPerBlock * 4
    )
    var header = SlotHeader()
    header.headerByteCount = UInt32(namespace.layout.headerByteCount)
    header.namespaceID = namespace.id
    header.storeUUID = storeUUID
    header.rootKey = namespace.chain.rootKey
    header.blockKey = incoming.blockKey
    header.parentKey = incoming.parentKey
    header.depth = UInt32(incoming.block)
    header.payloadByteCount = UInt32(payloadByteCount)
    header.storedByteCount = UInt32(payloadByteCount)
    header.created = time.now()
    header.expiry = offered.life.storedExpiry
    header.hasIdleExpiry = offered.life.isIdle
    header.priority = offered.priority
    header.tier = .disk
    header.regions = regions
    header.words = unsafe Array(words)
    header.extra = unsafe Array(prompt.extraBytes(ofBlock: incoming.block))
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

  /// Puts the copied blocks into the index and the writer's queue, or notes the regions that have come.
  private func enter(
    _ incoming: [IncomingBlock],
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    _ result: inout TransferResult
  ) -> BlockOutcome {
    // Headers before the lock; a partial block's when its last region has come.
    var complete: [(incoming: IncomingBlock, payloadByteCount: Int)] = []
    for block in incoming {
      let index = block.block - range.blocks.lowerBound
      result.byteCount += block.regions.reduce(0) { $0 + Int($1.storedByteCount) }
      if range.coversAllRegions {
        complete.append((block, finish(block, block.regions, namespace, prompt, range.offered)))
      } else if let regions = noteRegions(block, namespace, prompt, range) {
        let lengths = regions.map { Int($0.storedByteCount) }
        unsafe pack(hostMemory(of: block.hostSlot, namespace), lengths: lengths, namespace)
        complete.append((block, finish(block, regions, namespace, prompt, range.offered)))
      } else {
        result.outcomes[index] = .done
        result.hostBlockCount += 1
      }
    }
    guard let firstBlock = complete.first?.incoming.block else { return .done }

    let outcomes = state.withLock { state in
      enterLocked(complete, firstBlock, namespace, prompt, range.offered, &state)
    }
    for (block, outcome) in zip(complete, outcomes) {
      let index = block.incoming.block - range.blocks.lowerBound
      result.outcomes[index] = outcome
      if outcome == .done { result.hostBlockCount += 1 }
    }
    return outcomes.first { $0 != .done } ?? .done
  }

  /// All regions of a block once the last has come, and it is no longer partial then; else nil.
  private func noteRegions(
    _ incoming: IncomingBlock,
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range
  ) -> [SlotHeader.Region]? {
    let key = partialKey(namespace, prompt, incoming.block, incoming.blockKey)
    return state.withLock { state in
      guard var partial = state.partials[key] else { return nil }
      for (region, received) in zip(range.regions, incoming.regions) {
        partial.regions[region] = received
      }
      let regions = partial.regions.compactMap(\.self)
      let isComplete = regions.count == partial.regions.count
      state.partials[key] = isComplete ? nil : partial
      return isComplete ? regions : nil
    }
  }

  func enterLocked(
    _ complete: [(incoming: IncomingBlock, payloadByteCount: Int)],
    _ firstBlock: Int,
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ offered: OfferedLife,
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
    for (incoming, payloadByteCount) in complete {
      var entry = IndexEntry(
        blockKey: incoming.blockKey,
        payloadByteCount: UInt32(payloadByteCount),
        hostSlot: incoming.hostSlot.rawValue,
        flags: .pending
      )
      entry.life = offered.life
      let parentHead =
        location.isRoot ? LeaseTable.Head.published(.root) : state.head(at: location)
      guard isReachable, let parentHead,
        let words = unsafe namespace.words(of: prompt, block: incoming.block),
        let appended = unsafe state.index.append(
          namespace.id,
          after: location,
          words: words,
          extra: prompt.extraBytes(ofBlock: incoming.block),
          entry: entry
        )
      else {
        isReachable = false
        state.dropHostSlot(incoming.hostSlot)
        outcomes.append(.parentMissing)
        continue
      }
      location = appended.location
      outcomes.append(.done)
      guard appended.isNew else {
        // Another thread was first.
        state.dropHostSlot(incoming.hostSlot)
        state.statistics.blocksDeduplicated += 1
        last = state.head(at: location).map { ($0, incoming) }
        continue
      }
      let ticket = state.nextTicket
      state.nextTicket += 1
      state.hostBlocks.attach(incoming.hostSlot.rawValue, at: location, ticket: ticket)
      state.statistics.blocksOffloaded += 1
      state.statistics.offloadedBytes += UInt64(payloadByteCount)
      last = (.pending(ticket: ticket), incoming)
      writer?.enqueue(
        PendingBlock(
          namespace: namespace,
          ticket: ticket,
          hostSlot: incoming.hostSlot,
          blockKey: incoming.blockKey,
          parent: parentHead,
          parentKey: incoming.parentKey,
          depth: incoming.block,
          payloadByteCount: payloadByteCount,
          offered: offered
        )
      )
    }
    if let (head, block) = last {
      noteUse(namespace, head, block.blockKey, blockCount: block.block + 1, isRequest: false)
    }
    raiseAncestors(of: location, namespace, until: offered.life.deadline, &state)
    return outcomes
  }
}
