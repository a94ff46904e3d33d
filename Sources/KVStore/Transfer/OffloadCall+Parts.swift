internal import KVCodec
internal import KVCore
internal import KVIndex
internal import KVTiers

/// Blocks whose regions come one call at a time.
extension OffloadCall {
  /// The slot of such a block, and the regions that this call is to copy; nil when it has to wait: for room, or for another call that copies
  /// one of the regions or takes the block into the index.
  func takePart(
    _ name: PartialBlock.Name,
    _ index: Int,
    _ state: inout StoreState
  ) -> (HostSlot, PartialBlock.Copy)? {
    guard let block = namespace.block(index, of: prompt) else { return nil }
    var partial: PartialBlock
    if let known = state.partials[name] {
      let isCopied = known.regions[range.regions].contains { region in
        if case .copying = region { true } else { false }
      }
      guard known.holds(block), !isCopied, !known.isEntering else { return nil }
      partial = known
    } else {
      guard let slot = state.allocateHostSlot(namespace.layout.slotByteCount) else { return nil }
      partial = unsafe PartialBlock(
        words: Array(block.words),
        extra: Array(block.extra),
        hostSlot: slot,
        regions: Array(repeating: .absent, count: namespace.regionCount),
        usedAt: 0
      )
    }
    let absent = range.regions.filter { region in
      if case .absent = partial.regions[region] { true } else { false }
    }
    for region in absent { partial.regions[region] = .copying }
    partial.copyCount += 1
    if !partial.ledgers.contains(where: { $0 === ledger }) { partial.ledgers.append(ledger) }
    partial.usedAt = monotonicNanoseconds()
    state.arena.pin(partial.hostSlot)
    state.partials[name] = partial
    return (partial.hostSlot, PartialBlock.Copy(name: name, regions: absent))
  }

  /// Whether the prompt's blocks up to and including this one are in the index.
  func isStored(_ block: Int, _ state: inout StoreState) -> Bool {
    let mayExpire = namespace.expiry.mayExpire.value
    var segments = exchange(&state.spare.segments, with: [])
    defer { state.spare.segments = segments }
    let end = state.index.walk(
      namespace,
      prompt,
      blockCount: block + 1,
      after: mayExpire ? PathMark() : path,
      touch: false,
      segments: &segments
    ).end
    guard end.blockCount == block + 1 else { return false }
    if mayExpire, core.cutExpired(segments, &state) { return false }
    state.promise(end.location, to: ledger)
    return true
  }

  /// Notes the regions that have come, and takes the blocks into the index whose last ones they were.
  mutating func enterParts(_ incoming: [IncomingBlock]) -> BlockOutcome {
    // All at once, so that whoever brings the last region of a block has those before it, or another call is about to enter them.
    let headers = core.state.withLock { state in incoming.map { state.endCopy($0) } }
    core.state.notifyAll()
    var complete: [IncomingBlock] = []
    for (var block, headers) in zip(incoming, headers) {
      result.byteCount += block.payloadByteCount
      if let headers {
        pack(block.hostSlot, lengths: headers.map { Int($0.storedByteCount) })
        block.regions = headers
        finish(block)
        complete.append(block)
      } else {
        result.outcomes[block.link.block - range.blocks.lowerBound] = .done
        result.hostBlockCount += 1
      }
    }
    guard let first = complete.first?.link else { return .done }
    let entered = enter(complete, after: first.parentKey)
    core.state.notifyAll()
    path = entered.end
    return note(entered.outcomes, of: complete)
  }

  /// Enters whole blocks once nobody is about to enter their parent any more.
  private func enter(
    _ complete: [IncomingBlock],
    after parentKey: BlockKey
  ) -> (outcomes: [BlockOutcome], end: PathMark) {
    let parent = PartialBlock.Name(namespace: namespace.id, blockKey: parentKey)
    let attempt: (inout StoreState) -> ([BlockOutcome], PathMark)? = { state in
      if state.partials[parent]?.isEntering == true, !limit.isOver { return nil }
      let entered = enter(complete, &state)
      for block in complete {
        if let name = block.part?.name { state.partials[name] = nil }
      }
      return entered
    }
    return core.state.wait(until: limit.deadline, attempt)
      ?? core.state.withLock { attempt(&$0) } ?? ([], path)
  }
}
