internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVIndex
internal import KVTiers

/// One block of a restore, with where its bytes come from.
private struct PlannedBlock {
  enum Source {
    /// A pinned copy in the arena.
    case host(HostSlot)
    /// A slot of the disk tier; read into a pinned arena slot when there is room, so that it is promoted.
    case disk(BlockPlace, promoteTo: HostSlot?)
    /// A row of the catalog's table `payloads`.
    case inline(BlockPlace)
  }

  let block: Int
  let blockKey: BlockKey
  let position: BlockPosition?
  let source: Source
}

extension StoreCore {
  /// Copies the range's blocks out, a window at a time; stops at the first block that is not there.
  func restore(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range
  ) throws(StoreError) -> TransferResult {
    var result = TransferResult()
    result.outcomes = Array(repeating: .miss, count: range.blocks.count)
    if isPoisoned { return result }
    var next = range.blocks.lowerBound
    while next < range.blocks.upperBound {
      let window = next..<min(next + windowBlockCount(namespace), range.blocks.upperBound)
      let plan = try planRestore(namespace, prompt, window, range)
      let isWhole = move(plan, namespace, prompt, range, &result)
      if !isWhole || plan.count < window.count { break }
      next = window.upperBound
    }
    result.countLeading()
    let absentCount = result.outcomes.count - result.doneBlockCount
    state.withLock { state in
      state.statistics.blocksRestoredHost += UInt64(result.hostBlockCount)
      state.statistics.blocksRestoredDisk += UInt64(result.diskBlockCount)
      state.statistics.restoredBytes += UInt64(result.byteCount)
      state.statistics.missesAbsent += UInt64(absentCount)
    }
    return result
  }

  // MARK: Planning

  /// The window's stored blocks, their host copies pinned and arena slots taken for the others.
  private func planRestore(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ window: Range<Int>,
    _ range: NamespaceCore.Range
  ) throws(StoreError) -> [PlannedBlock] {
    let promotes = range.coversAllRegions
    return try withStoredPrefix(
      namespace,
      prompt,
      blockCount: window.upperBound,
      touch: true
    ) { state, prefix in
      var plan: [PlannedBlock] = []
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
          if entry.hostSlot >= 0 {
            let slot = HostSlot(rawValue: entry.hostSlot)
            state.arena.pin(slot)
            source = .host(slot)
          } else if let place = entry.place {
            source =
              place.isInline
              ? .inline(place)
              : .disk(
                place,
                promoteTo: promotes
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

  /// Starts the reads, copies each block as it comes, and gives every slot back.
  ///
  /// False when one failed.
  private func move(
    _ plan: [PlannedBlock],
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    _ result: inout TransferResult
  ) -> Bool {
    let layout = namespace.layout
    let readByteCount = readExtent(namespace, range)
    var bounce: [Int: AlignedBuffer] = [:]
    var requests: [ReadRequest] = []
    var requestOfPlan: [Int: Int] = [:]
    for (index, planned) in plan.enumerated() {
      guard case .disk(let place, let promoteTo) = planned.source else { continue }
      let memory: UnsafeMutableRawPointer
      if let promoteTo {
        unsafe memory = hostMemory(of: promoteTo, namespace)
      } else {
        // Without memory the block is a miss.
        guard let buffer = try? AlignedBuffer(byteCount: layout.slotByteCount),
          let base = unsafe buffer.bytes.baseAddress
        else { continue }
        bounce[index] = buffer
        unsafe memory = base
      }
      requestOfPlan[index] = requests.count
      let count = place.isInline ? 0 : min(readByteCount, layout.slotByteCount)
      unsafe requests.append(
        ReadRequest(
          address: SlotAddress(tier: place.tier, file: place.file, slot: place.slot),
          slotByteCount: layout.slotByteCount,
          offset: 0,
          buffer: UnsafeMutableRawBufferPointer(start: memory, count: count)
        )
      )
    }
    let batch = requests.isEmpty ? nil : diskTier.startReads(requests)

    var isWhole = true
    for (index, planned) in plan.enumerated() {
      let outcome: BlockOutcome
      switch planned.source {
      case .host(let slot):
        outcome =
          isWhole
          ? unsafe copyOut(
            hostMemory(of: slot, namespace),
            planned,
            namespace,
            range,
            verifies: false,
            &result
          )
          : .miss
        if outcome == .done { result.hostBlockCount += 1 }
        release(slot)
      case .disk(let place, let promoteTo):
        // Waited for even after a failure: the read goes into memory that is about to be reused.
        let error = requestOfPlan[index].flatMap { batch?.wait($0) }
        let memory =
          unsafe promoteTo.map { unsafe hostMemory(of: $0, namespace) }
          ?? bounce[index]?.bytes.baseAddress
        outcome = unsafe finishRead(
          memory,
          error,
          place,
          planned,
          namespace,
          prompt,
          range,
          isWanted: isWhole,
          &result
        )
        if let promoteTo {
          keep(promoteTo, of: planned, place, namespace, isGood: outcome == .done)
        }
      case .inline(let place):
        outcome =
          isWhole
          ? copyInline(place, planned, namespace, prompt, range, &result) : .miss
      }
      result.outcomes[planned.block - range.blocks.lowerBound] = outcome
      if outcome != .done { isWhole = false }
    }
    return isWhole
  }

  /// Bytes from the slot's start that hold the header and the last region of the range.
  private func readExtent(_ namespace: NamespaceCore, _ range: NamespaceCore.Range) -> Int {
    if range.coversAllRegions { return namespace.layout.slotByteCount }
    let last = range.regions.upperBound - 1
    let end =
      namespace.layout.regionOffset(last) + namespace.identity.regionByteCounts[last]
    return roundUp(end, to: 4096)
  }

  private func finishRead(
    _ memory: UnsafeMutableRawPointer?,
    _ error: FileError?,
    _ place: BlockPlace,
    _ planned: PlannedBlock,
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    isWanted: Bool,
    _ result: inout TransferResult
  ) -> BlockOutcome {
    guard let memory = unsafe memory, error == nil, isWanted else { return .miss }
    let headerBytes = unsafe UnsafeRawBufferPointer(
      start: memory,
      count: namespace.layout.headerByteCount
    )
    guard unsafe headerMatches(headerBytes, place, planned, namespace, prompt) else {
      failedCheck(namespace, planned.position, place)
      return .miss
    }
    let outcome = unsafe copyOut(memory, planned, namespace, range, verifies: true, &result)
    if outcome == .miss { failedCheck(namespace, planned.position, place) }
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
            planned,
            namespace,
            range,
            verifies: true,
            payloadStart: inlinePayloadStart(payload),
            byteCount: payload.count,
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

  /// Inline payloads follow their header without padding.
  private func inlinePayloadStart(_ payload: UnsafeRawBufferPointer) -> Int {
    unsafe SlotHeaderView(payload).map { Int($0.usedByteCount) } ?? 0
  }

  // MARK: Checks and copies

  /// Whether a header that came from disk is the one that the catalog promised, of this very block.
  private func headerMatches(
    _ bytes: UnsafeRawBufferPointer,
    _ place: BlockPlace,
    _ planned: PlannedBlock,
    _ namespace: NamespaceCore,
    _ prompt: Prompt
  ) -> Bool {
    guard let header = unsafe SlotHeaderView(bytes),
      header.checksum == place.headerChecksum,
      header.generation == place.generation,
      header.namespaceID == namespace.id,
      unsafe header.storeUUID.elementsEqual(storeUUID),
      header.rootKey == namespace.chain.rootKey,
      header.blockKey == planned.blockKey,
      header.regionCount == namespace.regionCount,
      let words = unsafe namespace.words(of: prompt, block: planned.block)
    else { return false }
    let wantedWords = unsafe UnsafeRawBufferPointer(
      start: words,
      count: namespace.wordsPerBlock * 4
    )
    return unsafe header.words.elementsEqual(wantedWords)
      && header.extra.elementsEqual(prompt.extraBytes(ofBlock: planned.block))
  }

  /// Copies the range's regions from a slot in memory to the caller, checking each first when it came from disk.
  private func copyOut(
    _ slot: UnsafeMutableRawPointer,
    _ planned: PlannedBlock,
    _ namespace: NamespaceCore,
    _ range: NamespaceCore.Range,
    verifies: Bool,
    payloadStart: Int? = nil,
    byteCount: Int? = nil,
    _ result: inout TransferResult
  ) -> BlockOutcome {
    let end = byteCount ?? namespace.layout.slotByteCount
    guard
      let header = unsafe SlotHeaderView(
        UnsafeRawBufferPointer(start: slot, count: min(end, namespace.layout.headerByteCount))
      )
    else { return .miss }
    var offset = payloadStart ?? namespace.layout.headerByteCount
    for region in 0..<(range.regions.lowerBound) {
      offset += Int(header.region(region).storedByteCount)
    }
    var spanIndex = range.spanIndex(ofBlock: planned.block)
    var outcome = BlockOutcome.done
    for index in range.regions {
      let region = header.region(index)
      let length = Int(region.storedByteCount)
      guard offset + length <= end else { return .miss }
      let bytes = unsafe UnsafeRawBufferPointer(start: slot.advanced(by: offset), count: length)
      if verifies, xxh3Checksum(bytes) != region.checksum { return .miss }
      unsafe range.spans[spanIndex].length = length
      if unsafe range.spans[spanIndex].capacity < length {
        outcome = .bufferTooSmall
      } else if let base = bytes.baseAddress, length > 0 {
        unsafe range.spans[spanIndex].data?.copyMemory(from: base, byteCount: length)
        result.byteCount += length
      }
      offset += length
      spanIndex += 1
    }
    return outcome
  }

  // MARK: Slots back

  private func release(_ slot: HostSlot) {
    state.withLock { $0.arena.unpin(slot) }
    state.notifyAll()
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
        state.hostBlocks.attach(slot.rawValue, at: location, ticket: nil)
        state.arena.unpin(slot)
      } else {
        state.dropHostSlot(slot)
      }
    }
    state.notifyAll()
  }

  // MARK: Failed checks

  /// Tells stale from corrupt: the row is read again, and only if it still points at the bad slot is the block hidden and removed.
  private func failedCheck(
    _ namespace: NamespaceCore,
    _ position: BlockPosition?,
    _ place: BlockPlace
  ) {
    guard let position else { return }
    var isSame = false
    do throws(StoreError) {
      try catalogRead { (transaction) throws(CatalogError) in
        isSame = try transaction.row(namespace.id, position)?.places.first == place
      }
    } catch {
      isSame = false
    }
    if isSame {
      state.withLock { $0.statistics.missesCorrupt += 1 }
      quarantine(namespace, position)
    } else {
      state.withLock { state in
        state.statistics.missesStale += 1
        state.removeFromIndex(
          .init(
            namespace: namespace.id,
            run: position.run,
            firstPosition: position.position,
            blockCount: 0
          )
        )
      }
    }
  }

  /// Hides a block and everything below it at once, and lets the writer remove them.
  func quarantine(_ namespace: NamespaceCore, _ position: BlockPosition) {
    let range = RemovedSummary.Range(
      namespace: namespace.id,
      run: position.run,
      firstPosition: position.position,
      blockCount: 0
    )
    let isNew = state.withLock { state in
      state.removeFromIndex(range)
      guard !state.hidden.contains(range) else { return false }
      state.hidden.append(range)
      return true
    }
    if isNew { writer?.enqueueQuarantine(namespace, position, range) }
  }
}
