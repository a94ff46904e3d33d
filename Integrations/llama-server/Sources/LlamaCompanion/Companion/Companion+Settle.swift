import KVStore
import LlamaSlots
import Logging
import NIOPosix
import Synchronization

extension Companion {
  /// Saves and offloads that are under way.
  var pendingCount: Int { work.withLock { $0.settling + $0.storing } }

  /// The request is on its way to the server: others may start once it has begun there.
  ///
  /// - Parameter hasAnswered: whether the answer's head is there.
  func started(_ passage: Passage, hasAnswered: @Sendable () -> Bool) async {
    guard passage.usesGate else { return }
    let slot = passage.state.withLock { $0.slot.id }
    let start = nowNanoseconds()
    while !hasAnswered(), milliseconds(since: start) < 30_000 {
      guard let known = try? await server.get("/slots") else { break }
      let own = known.elements.first { $0["id"]?.int == slot }
      // Launched is not enough: the server empties idle slots only when it next looks at all of them, after the tasks that wait.
      if own?["is_processing"]?.bool == true, own?["n_prompt_tokens_processed"]?.int ?? 1 > 0 {
        break
      }
      try? await Task.sleep(for: .milliseconds(2))
    }
    await gate.leave()
  }

  /// The answer is out, or the client is gone: compares, saves and gives the slot back; once for each passage.
  func finish(_ passage: Passage, _ figures: AnswerReader?, status: Int, wasCancelled: Bool) {
    let isFirst = passage.state.withLock { state in
      defer { state.isFinished = true }
      return !state.isFinished
    }
    guard isFirst else { return }
    work.withLock { $0.settling += 1 }
    Task {
      await self.answering(passage)
      await self.settle(passage, figures, status: status, wasCancelled: wasCancelled)
      self.hasCome(passage.state.withLock { $0.exchange.id })
      self.work.withLock { $0.settling -= 1 }
    }
  }

  func settle(_ passage: Passage, _ figures: AnswerReader?, status: Int, wasCancelled: Bool)
    async
  {
    var (slot, exchange) = passage.state.withLock { ($0.slot, $0.exchange) }
    exchange.status = status
    exchange.wasCancelled = wasCancelled
    if let figures, status == 200 {
      judge(passage, figures, &exchange)
      exchange.aheadTokenCount > 0
        ? noteAfterAhead(figures, &exchange)
        : noteFigures(
          figures.cachedTokenCount,
          figures.computedTokenCount,
          figures.promptMilliseconds,
          &exchange,
          slot
        )
    }
    let values = counters.now
    let perToken = values.prefillMillisecondsPerToken ?? 0
    let spent = exchange.steps.reduce(0) { $0 + ($1.0 == "prefill" ? 0 : $1.1) }
    if exchange.restoredTokenCount > 0 {
      exchange.savedMilliseconds = max(0, Double(exchange.restoredTokenCount) * perToken - spent)
    }
    counters.change { values in
      values.helped += 1
      values.tokensAsked += UInt64(exchange.tokenCount)
      values.tokensFromMemory += UInt64(exchange.memoryTokenCount)
      values.tokensComputed += UInt64((exchange.computedTokenCount ?? 0))
      values.savedMilliseconds += exchange.savedMilliseconds
      if wasCancelled { values.cancelled += 1 }
    }
    await checkRestored(exchange)
    // Another start would empty this slot before it is saved.
    if passage.usesGate { await gate.enter() }
    do {
      let before = try await state(of: slot.id)
      if before.tokenCount == 0 {
        // The client left before anything was computed.
        slot.tokens = []
        slot.task = before.task
        slot.tokenCount = 0
      } else if isWorthSaving(before.tokenCount, exchange, passage.layout) {
        let (file, parsed) = try await save(slot.id, passage.attachment)
        slot.tokens = parsed.tokens
        // What was computed behind a restored prefix is whole.
        slot.restoredTokenCount = min(slot.restoredTokenCount, parsed.tokens.count)
        // One with adapters of its own may have had this slot since: the tokens would be the same, and their KV not.
        if passage.foreign.active == 0, foreign.withLock({ $0 }) == passage.foreign {
          store(file, parsed, passage, .stays)
          try await saveEndOfPrompt(passage, passage.attachment, &slot)
        } else {
          slot.tokens = []
          counters.change { $0.savesSpared += 1 }
        }
        let after = try await state(of: slot.id)
        slot.task = after.task
        slot.tokenCount = slot.tokens.count
        if after.tokenCount != slot.tokens.count { slot.tokens = [] }
      } else {
        // The prompt is there, and behind it an answer that we do not know.
        slot.tokens = passage.layout.needsExactEnds ? [] : passage.tokens
        slot.task = before.task
        slot.tokenCount = before.tokenCount
        counters.change { $0.savesSpared += 1 }
        try await threads.runIfActive { [self] in keep(passage) }
      }
    } catch {
      counters.change { $0.savesFailed += 1 }
      logger.log(
        level: error is LlamaServer.Unreachable ? .debug : .warning,
        "a slot could not be saved: \(error)"
      )
      slot.tokens = []
      slot.restoredTokenCount = 0
    }
    await leaveGate(passage)
    end(passage, slot.tokens.isEmpty ? passage.tokens : slot.tokens)
    // Where the store is slower than the server, files do not pile up on tmpfs: the slot waits.
    while work.withLock({ $0.storing }) > 16 { try? await Task.sleep(for: .milliseconds(5)) }
    // Before the conversation's next step can begin.
    let (conversation, computed) = (exchange.conversation, exchange.computedTokenCount)
    _ = try? await threads.runIfActive { [sessions] in
      try? sessions.step(conversation, computedTokenCount: computed)
    }
    await slots.release(slot, epoch: passage.epoch)
    prepareFile()
    await explain(&exchange, passage)
    // Under the lock under which what is stored is counted: none is missed, none counted twice.
    passage.state.withLock { state in
      exchange.newBlockCount = state.newBlockCount
      log.add(exchange)
    }
    recorder?.add(exchange, passage.tokens)
    await recordText(exchange, passage.body)
  }

  /// Has the pages of the next file that is restored made, off everyone's path.
  func prepareFile() {
    let byteCount = restoredByteCount.withLock { $0 }
    threads.submit { [folder] _ in folder.prepare(byteCount: max(byteCount, Self.spareByteCount)) }
  }

  static let spareByteCount = 16 << 20

  /// Writes a completion down, if that is wanted; on a thread of its own, since a disk may keep it waiting.
  func recordText(_ exchange: Exchange, _ body: [UInt8]) async {
    guard let textRecorder else { return }
    try? await threads.runIfActive { textRecorder.add(exchange, body) }
  }

  /// What the server says of a slot.
  func state(of slot: Int) async throws -> (task: Int, tokenCount: Int) {
    let known = try await server.get("/slots").elements.first { $0["id"]?.int == slot }
    return (known?["id_task"]?.int ?? -1, known?["n_prompt_tokens"]?.int ?? 0)
  }

  /// A save writes the whole slot and stalls all others: where that takes long, it waits until more is new.
  func isWorthSaving(_ tokenCount: Int, _ exchange: Exchange, _ layout: SlotLayout) -> Bool {
    let values = counters.now
    guard let perToken = values.saveMillisecondsPerToken else { return true }
    let cost = perToken * Double(tokenCount)
    let new = max(0, tokenCount - exchange.foundTokenCount)
    return cost < 1000 || Double(new) * (values.prefillMillisecondsPerToken ?? 0.5) > cost
  }

  /// Gives a slot back that no request has used.
  func giveBack(_ passage: Passage, forgets: Bool) async {
    var slot = passage.state.withLock { $0.slot }
    if forgets {
      slot.tokens = []
      slot.task = -1
    }
    await slots.release(slot, epoch: passage.epoch)
  }

  func leaveGate(_ passage: Passage) async {
    if passage.usesGate { await gate.leave() }
  }
}
