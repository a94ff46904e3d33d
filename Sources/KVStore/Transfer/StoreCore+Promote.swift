internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVIndex
internal import KVTiers

/// A block of which a copy is pinned in the arena, every byte of it verified since it came from disk.
struct PinnedBlock {
  let block: Int
  let slot: HostSlot
  /// It was there before.
  let wasInHost: Bool
}

/// A block on its way to being pinned.
private struct IncomingCopy {
  let planned: PlannedBlock
  let slot: HostSlot
}

extension StoreCore {
  /// Pins the arena copies of a window's leading blocks, reading those that are only on disk; the caller unpins them.
  ///
  /// - Parameters:
  ///   - namespace: of the prompt.
  ///   - prompt: whose blocks are meant.
  ///   - window: blocks, not more than fit in a quarter of the arena.
  ///   - limit: when to give up.
  ///   - lends: counts each as lent; the caller ends the loans.
  /// - Returns: the pinned blocks, and why the next one is not among them, if it should be.
  /// - Throws: `StoreError`, when the catalog cannot be read.
  func pinInHost(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ window: Range<Int>,
    _ limit: TransferLimit,
    lends: Bool
  ) throws(StoreError) -> (pinned: [PinnedBlock], end: BlockOutcome) {
    var attempt = 0
    while true {
      attempt += 1
      let (pinned, end, hasMoved) = try pinOnce(namespace, prompt, window, limit, lends: lends)
      guard hasMoved, attempt < 16 else { return (pinned, end) }
      // A block went from one tier to another since it was planned: it is looked up again.
      unpinInHost(pinned.map(\.slot), wereLent: lends)
    }
  }

  private func pinOnce(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ window: Range<Int>,
    _ limit: TransferLimit,
    lends: Bool
  ) throws(StoreError) -> (pinned: [PinnedBlock], end: BlockOutcome, hasMoved: Bool) {
    var (copies, end) = try withStoredPrefix(
      namespace,
      prompt,
      blockCount: window.upperBound,
      touch: true
    ) { state, prefix in planCopies(namespace, window, prefix, lends: lends, &state) }
    let plan = copies.map(\.planned)
    let reads = PlannedReads(
      self,
      plan,
      namespace,
      namespace.wholeBlocks,
      limit: limit
    )
    var pinned: [PinnedBlock] = []
    var isWhole = true
    var hasMoved = false
    for (index, copy) in copies.enumerated() {
      if isWhole, limit.isOver {
        isWhole = false
        end = .busy
      }
      if isWhole {
        let outcome = bring(copy, index, reads, namespace, prompt, limit, &hasMoved)
        if outcome == .done {
          var wasInHost = false
          if case .host = copy.planned.source { wasInHost = true }
          pinned.append(
            PinnedBlock(block: copy.planned.block, slot: copy.slot, wasInHost: wasInHost)
          )
          continue
        }
        isWhole = false
        end = outcome
      }
      giveUp(copy, index, reads, lends: lends)
    }
    limit.cancellation?.watch(nil)
    return (pinned, end, hasMoved)
  }

  // MARK: Planning

  private func planCopies(
    _ namespace: NamespaceCore,
    _ window: Range<Int>,
    _ prefix: StoredPrefix,
    lends: Bool,
    _ state: inout StoreState
  ) -> ([IncomingCopy], BlockOutcome) {
    var copies: [IncomingCopy] = []
    var block = 0
    for segment in prefix.segments {
      let count = Int(segment.blockCount)
      defer { block += count }
      let first = max(0, window.lowerBound - block)
      guard first < count else { continue }
      for offset in first..<count {
        let location = segment.location(at: offset)
        guard let entry = state.index.entry(at: location) else { return (copies, .miss) }
        let slot: HostSlot
        let source: PlannedBlock.Source
        if entry.hostSlot >= 0 {
          slot = HostSlot(rawValue: entry.hostSlot)
          state.arena.pin(slot)
          source = .host(slot)
        } else if let place = entry.place {
          guard let room = state.allocateHostSlot(namespace.layout.slotByteCount) else {
            return (copies, .busy)
          }
          slot = room
          source = place.isInline ? .inline(place) : .disk(place, promoteTo: room)
        } else {
          return (copies, .miss)
        }
        if lends, !state.arena.lend(slot) {
          if case .host = source { state.arena.unpin(slot) } else { state.dropHostSlot(slot) }
          return (copies, .full)
        }
        copies.append(
          IncomingCopy(
            planned: PlannedBlock(
              block: block + offset,
              blockKey: entry.blockKey,
              position: state.index.position(of: location),
              source: source
            ),
            slot: slot
          )
        )
      }
    }
    return (copies, prefix.blockCount >= window.upperBound ? .done : .miss)
  }

  // MARK: Bringing

  /// Waits for a copy, verifies it, and makes it the block's host copy.
  private func bring(
    _ copy: IncomingCopy,
    _ index: Int,
    _ reads: PlannedReads,
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ limit: TransferLimit,
    _ hasMoved: inout Bool
  ) -> BlockOutcome {
    let place: BlockPlace
    switch copy.planned.source {
    case .host, .none: return .done
    case .disk(let from, _):
      place = from
      do throws(PlannedReads.GaveUp) {
        guard let memory = try reads.wait(index, limit) else {
          hasMoved = checkHasFile(namespace, copy.planned.position, place)
          return .miss
        }
        if let failure = memory.failure {
          hasMoved = failedRead(namespace, copy.planned.position, place, failure)
          return .miss
        }
      } catch {
        return .busy
      }
    case .inline(let from):
      place = from
      guard fillFromCatalog(copy, namespace) else {
        hasMoved = failedCheck(namespace, copy.planned.position, place)
        return .miss
      }
    }
    guard isRight(copy, place, namespace, prompt) else {
      hasMoved = failedCheck(namespace, copy.planned.position, place)
      return .miss
    }
    if place.tier == .archive { noteArchiveUse(namespace, copy.planned.position) }
    state.withLock { state in
      if let position = copy.planned.position,
        let location = state.index.locate(namespace.id, position),
        let entry = state.index.entry(at: location), entry.hostSlot < 0, entry.place == place
      {
        state.index.updateEntry(at: location) { $0.hostSlot = copy.slot.rawValue }
        state.hostBlocks.attach(copy.slot.rawValue, at: location)
      } else {
        // The block has moved on, or another thread was first: the bytes are good, but the copy is nobody's.
        state.arena.discard(copy.slot)
      }
    }
    return .done
  }

  /// Lays a payload out of the catalog as slots have it: the header padded, then the payload.
  private func fillFromCatalog(_ copy: IncomingCopy, _ namespace: NamespaceCore) -> Bool {
    guard let position = copy.planned.position else { return false }
    let slot = unsafe hostMemory(of: copy.slot, namespace)
    let layout = namespace.layout
    var isFilled = false
    do throws(StoreError) {
      try catalogRead { (transaction) throws(CatalogError) in
        _ = unsafe try transaction.inlinePayload(namespace.id, position) { packed in
          guard let base = packed.baseAddress, let header = unsafe SlotHeaderView(packed),
            header.usedByteCount <= layout.headerByteCount,
            packed.count - header.usedByteCount
              <= layout.slotByteCount - layout.headerByteCount
          else { return }
          let used = header.usedByteCount
          unsafe slot.copyMemory(from: base, byteCount: used)
          unsafe UnsafeMutableRawBufferPointer(
            start: slot + used,
            count: layout.headerByteCount - used
          ).initializeMemory(as: UInt8.self, repeating: 0)
          unsafe (slot + layout.headerByteCount).copyMemory(
            from: base + used,
            byteCount: packed.count - used
          )
          isFilled = true
        }
      }
    } catch {
      return false
    }
    return isFilled
  }

  /// Whether a slot in the arena holds this very block, every region of it.
  private func isRight(
    _ copy: IncomingCopy,
    _ place: BlockPlace,
    _ namespace: NamespaceCore,
    _ prompt: Prompt
  ) -> Bool {
    let slot = unsafe hostMemory(of: copy.slot, namespace)
    let headerBytes = unsafe UnsafeRawBufferPointer(
      start: slot,
      count: namespace.layout.headerByteCount
    )
    guard unsafe headerMatches(headerBytes, place, copy.planned, namespace, prompt),
      let header = unsafe SlotHeaderView(headerBytes)
    else { return false }
    // What was decoded has been checked as it was stored.
    if place.tier == .archive { return true }
    var offset = namespace.layout.headerByteCount
    for index in 0..<header.regionCount {
      let region = header.region(index)
      let length = Int(region.storedByteCount)
      guard offset + length <= namespace.layout.slotByteCount else { return false }
      let bytes = unsafe UnsafeRawBufferPointer(start: slot + offset, count: length)
      guard xxh3Checksum(bytes) == region.checksum else { return false }
      offset += length
    }
    return true
  }

  /// Ends the loan and the pin of a copy that is not to be; its slot comes back when nothing is read into it any more.
  private func giveUp(
    _ copy: IncomingCopy,
    _ index: Int,
    _ reads: PlannedReads,
    lends: Bool
  ) {
    if lends { state.withLock { $0.arena.endLoan(copy.slot) } }
    let slot = copy.slot
    switch copy.planned.source {
    case .none: break
    case .host: unpinInHost([slot])
    case .inline:
      state.withLock { $0.dropHostSlot(slot) }
      state.notifyAll()
    case .disk:
      reads.abandon(index) { [self] in
        state.withLock { $0.dropHostSlot(slot) }
        state.notifyAll()
      }
    }
  }

  /// Ends pins, and the loans if they were lent.
  func unpinInHost(_ slots: [HostSlot], wereLent: Bool = false) {
    guard !slots.isEmpty else { return }
    state.withLock { state in
      for slot in slots {
        if wereLent { state.arena.endLoan(slot) }
        state.arena.unpin(slot)
      }
    }
    state.notifyAll()
  }

  // MARK: Prefetch

  /// Starts bringing the prompt's stored prefix into the arena; answers how many blocks that are not there yet it will try to.
  ///
  /// At most half of the arena, the leading blocks first: what comes before is worth more.
  func startPrefetch(
    _ namespace: NamespaceCore,
    _ prompt: Prompt
  ) throws(StoreError) -> (stored: Int, started: Int) {
    if isPoisoned { return (0, 0) }
    let bound = max(1, effectiveHostBytes / 2 / namespace.layout.slotByteCount)
    let (storedCount, missingCount, end) = try withStoredPrefix(
      namespace,
      prompt,
      blockCount: namespace.blockCount(of: prompt),
      touch: true
    ) { state, prefix in
      var missingCount = 0
      // Where the last block lies that the bound lets in.
      var end = 0
      var block = 0
      for segment in prefix.segments {
        state.index.withEntries(of: segment) { entries in
          for index in 0..<entries.count {
            if entries[index].hostSlot < 0, missingCount < bound {
              missingCount += 1
              end = block + index + 1
            }
          }
        }
        block += Int(segment.blockCount)
      }
      return (prefix.blockCount, missingCount, end)
    }
    guard missingCount > 0 else { return (storedCount, 0) }
    let copy = PromptCopy(prompt)
    let refusal = prefetchQueue.submit { [self] in
      do throws(StoreError) {
        try copy.withPrompt { (prompt) throws(StoreError) in
          try prefetch(namespace, prompt, 0..<end)
        }
      } catch {
        // Best effort: a restore meets the same error and reports it.
      }
    }
    if let refusal { throw StoreError(refusal) }
    return (storedCount, missingCount)
  }

  private func prefetch(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ blocks: Range<Int>
  ) throws(StoreError) {
    let limit = TransferLimit(deadline: nil, cancellation: prefetchCancellation)
    var next = blocks.lowerBound
    while next < blocks.upperBound, !limit.isOver {
      let window = next..<min(next + windowBlockCount(namespace), blocks.upperBound)
      let (pinned, _) = try pinInHost(namespace, prompt, window, limit, lends: false)
      let newCount = pinned.reduce(0) { $0 + ($1.wasInHost ? 0 : 1) }
      state.withLock { $0.statistics.blocksPrefetched += UInt64(newCount) }
      unpinInHost(pinned.map(\.slot))
      if pinned.count < window.count { return }
      next = window.upperBound
    }
  }
}
