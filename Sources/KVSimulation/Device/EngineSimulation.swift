/// Runs a trace on a modelled engine in virtual time.
///
/// Whole nanoseconds and plain arithmetic only: the same trace and profiles give the same result on any machine.
///
/// * Requests are admitted in file order, once their blocks fit into device memory. At admission the tiers are looked up and touched.
/// * What a slower tier has beyond the device is restored over the disk and the link, each a queue of its own.
/// * A step takes the waiting prefills in order, up to its token budget, and one token of each request that decodes.
/// * The first token is there at the end of the step with the last chunk of the prompt.
package final class EngineSimulation {
  private struct Active {
    var arrival: Int64
    var tokensToPrefill: Int
    /// Tokens whose KV is on the device.
    var contextTokenCount: Int
    var tokensToDecode: Int
    /// When the restored blocks have arrived.
    var readyAt: Int64
    var table: DeviceTier.BlockTable
    var turn: Int?
  }

  private let engine: EngineProfile
  private let tokensPerBlock: Int
  private let device: DeviceTier
  private let tiers: StoreTiers?
  private var now: Int64 = 0
  private var queues = StoreTiers.Queues()
  private var prefilling: [Active] = []
  private var decoding: [Active] = []
  package private(set) var result = EngineResult()

  /// An idle engine; without a store it has its device memory only.
  package init(engine: EngineProfile, store: StoreProfile?, tokensPerBlock: Int) {
    self.engine = engine
    self.tokensPerBlock = tokensPerBlock
    device = DeviceTier(slotCount: engine.slotCount(tokensPerBlock: tokensPerBlock))
    tiers = store.map {
      StoreTiers($0, blockByteCount: engine.blockByteCount(tokensPerBlock: tokensPerBlock))
    }
  }

  /// Takes the next request of the trace; runs until it is admitted.
  package func add(_ request: TraceRequest) {
    let arrival = request.timestampMilliseconds * 1_000_000
    while now < arrival, step(until: arrival) {}
    now = max(now, arrival)
    let outputBlockCount = (request.outputTokenCount + tokensPerBlock - 1) / tokensPerBlock
    result.requestCount += 1
    guard request.blockIDs.count + outputBlockCount <= device.slotCount else {
      result.tooLargeCount += 1
      return
    }
    while true {
      if prefilling.count + decoding.count < engine.batchRequestCount,
        let table = device.admit(request, outputBlockCount: outputBlockCount)
      {
        admit(request, arrival, table)
        return
      }
      // Something is running, for an empty device takes any request that is not too large.
      guard step(until: .max) else { return assertionFailure("an idle device refuses a request") }
    }
  }

  /// Runs until all requests are done.
  package func finish() {
    while step(until: .max) {}
    result.endNanoseconds = now
    result.deviceEvictedBlockCount = device.evictedBlockCount
    if let tiers { result.tiers = tiers.results() }
  }

  /// What is wrong with the device's pool once all requests are done, one line each.
  package func faults() -> [String] {
    device.checkInvariants()
      + (device.pinnedSlotCount == 0 ? [] : ["\(device.pinnedSlotCount) slots are still held"])
  }

  // MARK: Admission

  private func admit(_ request: TraceRequest, _ arrival: Int64, _ table: DeviceTier.BlockTable) {
    var usableBlockCount = table.hitBlockCount
    var readyAt = now
    if let tiers {
      let found = tiers.look(up: request, onDevice: table.hitBlockCount)
      let restoredEnd = restore(request, found, from: table.hitBlockCount, &readyAt)
      usableBlockCount = max(usableBlockCount, restoredEnd)
      result.count(request, found, restoredEnd: usableBlockCount)
    }
    result.deviceHitTokenCount += request.tokenCount(ofBlocks: table.hitBlockCount)
    // The engine needs the logits of the last token.
    let reused = min(request.tokenCount(ofBlocks: usableBlockCount), request.inputTokenCount - 1)
    let context = max(0, reused)
    let toPrefill = max(1, request.inputTokenCount - context)
    result.countTurn(request, hitTokenCount: context)
    result.prefillTokenCount += toPrefill
    result.prefillNanoseconds += engine.prefillNanoseconds(
      tokenCount: toPrefill,
      contextCount: context
    )
    result.inputTokenCount += request.inputTokenCount
    prefilling.append(
      Active(
        arrival: arrival,
        tokensToPrefill: toPrefill,
        contextTokenCount: context,
        tokensToDecode: max(0, request.outputTokenCount - 1),
        readyAt: readyAt,
        table: table,
        turn: request.turn
      )
    )
    if !engine.overlapsTransfers {
      result.stalledNanoseconds += max(0, readyAt - now)
      now = max(now, readyAt)
    }
  }

  /// Starts the transfers of what the tiers have beyond the device; returns how far that goes.
  private func restore(
    _ request: TraceRequest,
    _ found: StoreTiers.Found,
    from first: Int,
    _ readyAt: inout Int64
  ) -> Int {
    guard found.endBlock > first, let tiers else { return first }
    let transfer = tiers.transfer(
      found,
      now: now,
      queues,
      engine: engine
    )
    if engine.declinesSlowRestores {
      let context = request.tokenCount(ofBlocks: first)
      let computing = engine.prefillNanoseconds(
        tokenCount: request.tokenCount(ofBlocks: found.endBlock) - context,
        contextCount: context
      )
      if transfer.endsAt - now > computing {
        result.declinedBlockCount += found.endBlock - first
        return first
      }
    }
    queues = transfer.queues
    readyAt = transfer.endsAt
    result.restoredByteCount += found.restoredByteCount
    tiers.read(found)
    return found.endBlock
  }

  // MARK: Steps

  /// Runs one step, or waits for a transfer; false if there is nothing to do, or not before `limit`.
  private func step(until limit: Int64) -> Bool {
    guard !prefilling.isEmpty || !decoding.isEmpty else { return false }
    var budget = max(0, engine.stepTokenCount - decoding.count)
    var operations = engine.model.operationsPerToken * Double(decoding.count)
    var kvTokenCount = 0
    for active in decoding {
      operations += engine.model.operationsPerTokenPair * Double(active.contextTokenCount)
      kvTokenCount += active.contextTokenCount
    }
    var chunks: [(index: Int, tokenCount: Int)] = []
    for (index, active) in prefilling.enumerated() where active.readyAt <= now && budget > 0 {
      let tokenCount = min(budget, active.tokensToPrefill)
      budget -= tokenCount
      operations += engine.prefillOperations(
        tokenCount: tokenCount,
        contextCount: active.contextTokenCount
      )
      kvTokenCount += active.contextTokenCount
      chunks.append((index, tokenCount))
    }
    guard !chunks.isEmpty || !decoding.isEmpty else {
      // Only transfers are under way.
      let next = prefilling.reduce(Int64.max) { min($0, $1.readyAt) }
      if next >= limit { return false }
      now = max(now, next)
      return true
    }
    let duration = engine.stepNanoseconds(operations: operations, kvTokenCount: kvTokenCount)
    now += duration
    result.busyNanoseconds += duration
    result.stepCount += 1
    endDecodes()
    endPrefills(chunks)
    return true
  }

  private func endDecodes() {
    var kept = 0
    for index in decoding.indices {
      decoding[index].contextTokenCount += 1
      decoding[index].tokensToDecode -= 1
      if decoding[index].tokensToDecode == 0 {
        device.release(decoding[index].table)
      } else {
        if kept != index { decoding.swapAt(kept, index) }
        kept += 1
      }
    }
    decoding.removeLast(decoding.count - kept)
  }

  private func endPrefills(_ chunks: [(index: Int, tokenCount: Int)]) {
    for chunk in chunks {
      prefilling[chunk.index].tokensToPrefill -= chunk.tokenCount
      prefilling[chunk.index].contextTokenCount += chunk.tokenCount
    }
    for chunk in chunks.reversed() where prefilling[chunk.index].tokensToPrefill == 0 {
      let active = prefilling.remove(at: chunk.index)
      result.firstTokenNanoseconds.append(now - active.arrival)
      if active.tokensToDecode > 0 {
        decoding.append(active)
      } else {
        device.release(active.table)
      }
    }
  }
}
