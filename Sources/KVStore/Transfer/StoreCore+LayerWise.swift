internal import KVCodec
internal import KVCore
internal import KVIndex
internal import KVTiers

// Unsafe: compares and copies a block's words where the prompt has them.

/// A block whose regions come one call at a time.
///
/// Each region comes once: the call that began to copy it brings it, and another one with the same region waits for that copy's end. So a slot
/// has all of its regions only when nothing is copied into it any more.
struct PartialBlock {
  /// Its key alone would let a forged collision mix two blocks' regions: `words` and `extra` are compared.
  struct Name: Hashable {
    let namespace: NamespaceID
    let blockKey: BlockKey
  }

  enum Region {
    case absent
    case copying
    case here(SlotHeader.Region)
  }

  /// What one call copies, with a pin of its own on the slot.
  struct Copy {
    let name: Name
    /// Those of the call that nobody had begun to bring.
    let regions: [Int]
  }

  let words: [UInt32]
  let extra: [UInt8]
  /// Pinned for the block, and once more by each copy under way.
  let hostSlot: HostSlot
  var regions: [Region]
  /// Calls that copy.
  var copyCount = 0
  /// All regions are here, and the call that brought the last one takes the block into the index.
  var isEntering = false
  var usedAt: UInt64
  /// Of the handles that brought regions.
  var ledgers: [FlushLedger] = []

  /// What the regions' headers say, once all are here.
  var regionsIfComplete: [SlotHeader.Region]? {
    let here = regions.compactMap { region in
      if case .here(let header) = region { header } else { nil }
    }
    return here.count == regions.count ? here : nil
  }

  /// Without a call for so long a block gives its slot back where room is short, in nanoseconds.
  static let abandonedAfter: UInt64 = 60_000_000_000
}

extension StoreState {
  /// The slot of a block whose regions come one call at a time, and the regions that this call is to copy; nil when it has to wait: for room, or for
  /// another call that copies one of the regions or takes the block into the index.
  mutating func takePart(
    _ name: PartialBlock.Name,
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ block: Int,
    _ regions: Range<Int>,
    _ ledger: FlushLedger
  ) -> (HostSlot, PartialBlock.Copy)? {
    guard
      let (words, extra) = unsafe namespace.block(block, of: prompt).map({
        unsafe ($0.words, $0.extra)
      })
    else { return nil }
    var partial: PartialBlock
    if let known = partials[name] {
      let isSame = unsafe known.words.elementsEqual(words) && known.extra.elementsEqual(extra)
      let isCopied = known.regions[regions].contains { region in
        if case .copying = region { true } else { false }
      }
      guard isSame, !isCopied, !known.isEntering else { return nil }
      partial = known
    } else {
      guard let slot = allocateHostSlot(namespace.layout.slotByteCount) else { return nil }
      partial = unsafe PartialBlock(
        words: Array(words),
        extra: Array(extra),
        hostSlot: slot,
        regions: Array(repeating: .absent, count: namespace.regionCount),
        usedAt: 0
      )
    }
    let absent = regions.filter { region in
      if case .absent = partial.regions[region] { true } else { false }
    }
    for region in absent { partial.regions[region] = .copying }
    partial.copyCount += 1
    if !partial.ledgers.contains(where: { $0 === ledger }) { partial.ledgers.append(ledger) }
    partial.usedAt = monotonicNanoseconds()
    arena.pin(partial.hostSlot)
    partials[name] = partial
    return (partial.hostSlot, PartialBlock.Copy(name: name, regions: absent))
  }

  /// A copy has ended; answers the headers of all regions if the block is whole by that, for the caller to enter.
  ///
  /// A block that was stored by another call meanwhile is no longer partial: its slot is free with the last copy's end.
  mutating func endCopy(_ incoming: IncomingBlock) -> [SlotHeader.Region]? {
    guard let copy = incoming.part else { return nil }
    defer { arena.unpin(incoming.hostSlot) }
    guard var partial = partials[copy.name], partial.hostSlot == incoming.hostSlot else {
      return nil
    }
    for (region, header) in zip(copy.regions, incoming.regions) {
      partial.regions[region] = .here(header)
    }
    partial.copyCount -= 1
    partial.usedAt = monotonicNanoseconds()
    let headers = partial.isEntering ? nil : partial.regionsIfComplete
    partial.isEntering = partial.isEntering || headers != nil
    partials[copy.name] = partial
    return headers
  }

  /// A block is stored; what has come of it otherwise is of no use, unless a call takes it into the index just now.
  mutating func dropPartial(_ name: PartialBlock.Name) {
    guard let partial = partials[name], !partial.isEntering else { return }
    partials[name] = nil
    dropHostSlot(partial.hostSlot)
  }

  /// The same for all blocks of a stored prefix from one of them on.
  mutating func dropPartials(_ namespace: NamespaceID, _ prefix: StoredPrefix, from first: Int) {
    guard !partials.isEmpty else { return }
    var block = 0
    for segment in prefix.segments {
      let end = block + Int(segment.blockCount)
      for stored in max(block, first)..<max(end, first) {
        guard let key = index.blockKey(at: segment.location(at: stored - block)) else { return }
        dropPartial(PartialBlock.Name(namespace: namespace, blockKey: key))
      }
      block = end
    }
  }

  /// Layer-wise offloads that nobody went on with for a minute give their slots back, but for those that are being copied into.
  mutating func dropAbandonedPartials() {
    let now = monotonicNanoseconds()
    for (name, partial) in partials
    where partial.copyCount == 0 && !partial.isEntering
      && partial.usedAt + PartialBlock.abandonedAfter < now
    {
      for ledger in partial.ledgers { ledger.note(.incomplete) }
      dropPartial(name)
    }
  }
}

extension StoreCore {
  /// Whether the prompt's blocks up to and including this one are in the index.
  func isStored(
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ block: Int,
    _ ledger: FlushLedger,
    _ state: inout StoreState
  ) -> Bool {
    var segments = exchange(&state.spare.segments, with: [])
    defer { state.spare.segments = segments }
    let match = walk(namespace, prompt, block + 1, false, &state, &segments)
    guard match.matchedBlockCount == block + 1 else { return false }
    if namespace.lives.mayExpire.value, cutExpired(segments, &state) { return false }
    state.promise(match.location, to: ledger)
    return true
  }

  /// Notes the regions that have come, and takes the blocks into the index whose last ones they were.
  func enterParts(
    _ incoming: [IncomingBlock],
    _ namespace: NamespaceCore,
    _ prompt: Prompt,
    _ range: NamespaceCore.Range,
    _ limit: TransferLimit,
    _ ledger: FlushLedger,
    _ result: inout TransferResult
  ) -> BlockOutcome {
    // All at once, so that whoever brings the last region of a block has those before it, or another call is about to enter them.
    let headers = state.withLock { state in incoming.map { state.endCopy($0) } }
    state.notifyAll()
    var complete: [CompleteBlock] = []
    for (block, headers) in zip(incoming, headers) {
      result.byteCount += block.regions.reduce(0) { $0 + Int($1.storedByteCount) }
      if let headers {
        let lengths = headers.map { Int($0.storedByteCount) }
        unsafe pack(hostMemory(of: block.hostSlot, namespace), lengths: lengths, namespace)
        complete.append((block, finish(block, headers, namespace, prompt, range.offered)))
      } else {
        result.outcomes[block.link.block - range.blocks.lowerBound] = .done
        result.hostBlockCount += 1
      }
    }
    guard let first = complete.first?.incoming else { return .done }
    let parent = PartialBlock.Name(namespace: namespace.id, blockKey: first.link.parentKey)
    let attempt: (inout StoreState) -> [BlockOutcome]? = { [complete] state in
      if state.partials[parent]?.isEntering == true, !limit.isOver { return nil }
      let outcomes = self.enterLocked(
        complete,
        first.link.block,
        namespace,
        prompt,
        range.offered,
        ledger,
        &state
      )
      for block in complete {
        if let name = block.incoming.part?.name { state.partials[name] = nil }
      }
      return outcomes
    }
    let outcomes =
      state.wait(until: limit.deadline, attempt) ?? state.withLock { attempt(&$0) } ?? []
    state.notifyAll()
    return note(outcomes, of: complete, range, &result)
  }
}
