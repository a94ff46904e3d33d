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
    behind prefix: Int,
    _ state: inout StoreState
  ) -> (HostSlot, PartialBlock.Copy)? {
    guard let block = namespace.block(index, of: prompt) else { return nil }
    return state.partials.begin(
      name,
      block,
      behind: prefix,
      range.regions,
      namespace,
      for: ledger
    )
  }

  /// Whether the prompt's blocks up to and including this one are in the index.
  func isStored(_ block: Int, _ state: inout StoreState) -> Bool {
    let mayExpire = namespace.expiry.mayExpire.value
    var segments = exchange(&state.spare.segments, with: [])
    defer { state.spare.segments = segments }
    let end = state.tree.walk(
      namespace,
      prompt,
      blockCount: block + 1,
      after: mayExpire ? PathMark() : path,
      touch: false,
      segments: &segments
    ).end
    guard end.blockCount == block + 1 else { return false }
    if mayExpire, state.tree.cutExpired(segments, core.time) { return false }
    state.tree.promise(end.location, to: ledger)
    return true
  }

  /// Notes the regions that have come, and takes the blocks into the index whose last ones they were.
  mutating func enterParts(_ incoming: [IncomingBlock]) -> BlockOutcome {
    // All at once, so that whoever brings the last region of a block has those before it, or another call is about to enter them.
    let headers = core.state.withLock { state in incoming.map { state.partials.endCopy($0) } }
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
      if state.partials.isEntering(parent), !limit.isOver { return nil }
      let entered = enter(complete, &state)
      for block in complete {
        if let name = block.part?.name { state.partials.entered(name) }
      }
      return entered
    }
    return core.state.wait(until: limit.deadline, attempt)
      ?? core.state.withLock { attempt(&$0) } ?? ([], path)
  }
}
