import KVCore
import KVStore
import LlamaSlots
import Logging
import NIOHTTP1
import NIOPosix
import Synchronization

extension Companion {
  /// Brings the longest prefix into the slot.
  func prepare(_ passage: Passage, _ attachment: Attachment) async throws {
    var (slot, exchange) = passage.state.withLock { ($0.slot, $0.exchange) }
    defer {
      let (slot, exchange) = (slot, exchange)
      passage.state.withLock {
        $0.slot = slot
        $0.exchange = exchange
      }
    }
    if passage.state.withLock({ $0.rest != nil }) {
      return try await lookAtSlot(passage, attachment, &slot, &exchange)
    }
    let tokens = passage.tokens
    let start = nowNanoseconds()
    let conversation = exchange.conversation
    // What is stored is looked up while the server is asked what its slot has; nothing of this prompt is stored before its answer.
    async let looking = threads.runIfActive { [prefixes = passage.prefixes] in
      (try prefixes.find(tokens), milliseconds(since: start))
    }
    async let noted: Void = threads.runIfActive { [self, prefixes = passage.prefixes] in
      note(conversation, passage.hints.session, prefixes, tokens)
    }
    do {
      try await lookAtSlot(passage, attachment, &slot, &exchange)
    } catch {
      if let found = try? await looking.0.usable { await release(found, passage) }
      throw error
    }
    let (lookup, lookupMilliseconds) = try await looking
    exchange.steps.append(("match", lookupMilliseconds))
    if let found = lookup.usable {
      exchange.foundTokenCount = found.tokenCount
      if worthwhile(found, attachment.layout, memoryTokenCount: exchange.memoryTokenCount) {
        try await restore(found, passage, attachment, &slot, &exchange)
      } else {
        await release(found, passage)
      }
    }
    if attachment.hasFullWindow, slot.restoredTokenCount > 0,
      commonPrefix(slot.tokens[...], tokens[...]) < slot.restoredTokenCount
    {
      // The server would go on in the middle of a window that it does not have.
      _ = try await server.post("/slots/\(slot.id)?action=erase", "{}")
      slot.tokens = []
      slot.restoredTokenCount = 0
      counters.change { $0.slotsErased += 1 }
    }
    try await computeAhead(lookup, passage, attachment, &slot, &exchange)
    try await noted
  }

  /// Finds out what of the prompt the slot has.
  private func lookAtSlot(
    _ passage: Passage,
    _ attachment: Attachment,
    _ slot: inout SlotTable.Slot,
    _ exchange: inout Exchange
  ) async throws {
    let known = try await server.get("/slots").elements.first { $0["id"]?.int == slot.id }
    if known?["n_prompt_tokens"]?.int ?? 0 != slot.tokenCount
      || known?["id_task"]?.int ?? -1 != slot.task
    {
      if !slot.tokens.isEmpty { counters.change { $0.slotsLost += 1 } }
      // What we do not know of may be there: nothing of it is relied on.
      slot.tokens = []
      slot.restoredTokenCount = 0
    }
    if slot.tenant != exchange.tenant {
      // Nobody learns from the time of an answer what another one asked.
      _ = try await server.post("/slots/\(slot.id)?action=erase", "{}")
      slot = SlotTable.Slot(
        id: slot.id,
        tenant: exchange.tenant,
        task: slot.task,
        isBusy: true,
        uses: slot.uses
      )
    }
    let common = commonPrefix(slot.tokens[...], passage.tokens[...])
    // In the middle of what it has, only the server knows whether it can go on.
    let isUsable = !attachment.layout.needsExactEnds || common == slot.tokens.count
    exchange.memoryTokenCount = isUsable ? min(common, passage.tokens.count - 1) : 0
    if exchange.memoryTokenCount > 0 { exchange.tier = "memory" }
  }

  /// Whether a restore takes less than the server would need for the same tokens.
  func worthwhile(_ found: PrefixStore.Found, _ layout: SlotLayout, memoryTokenCount: Int)
    -> Bool
  {
    let gained = found.tokenCount - memoryTokenCount
    guard gained > 0 else { return false }
    let values = counters.now
    let rowByteCount = (layout.blockCache?.rowByteCount ?? 0)
    let windowCount = found.end?.parted?.windowPositions.count ?? 0
    let endByteCount =
      (found.end?.bytes.count ?? 0) + windowCount
      * (layout.caches.count > 1 ? layout.caches[1].rowByteCount : 0)
    let byteCount = Double(found.tokenCount * rowByteCount + endByteCount)
    let cost =
      4 + Double(found.estimateNanoseconds) / 1e6 + byteCount
      * (values.restoreNanosecondsPerByte ?? 0.5) / 1e6
    if options.restoresAlways { return true }
    return Double(gained) * (values.prefillMillisecondsPerToken ?? 0.5) > cost
  }

  func release(_ found: PrefixStore.Found, _ passage: Passage) async {
    let leases = found.leases
    try? await threads.runIfActive { [prefixes = passage.prefixes] in prefixes.release(leases) }
  }

  func restore(
    _ found: PrefixStore.Found,
    _ passage: Passage,
    _ attachment: Attachment,
    _ slot: inout SlotTable.Slot,
    _ exchange: inout Exchange
  ) async throws {
    let start = nowNanoseconds()
    let name = folder.newName()
    let prefix = Array(passage.tokens[..<found.tokenCount])
    let made: MappedFile? = try await threads.runIfActive {
      [folder, prefixes = passage.prefixes, layout = attachment.layout] in
      defer { prefixes.release(found.leases) }
      let image = SlotImage(
        layout: layout,
        tokens: prefix,
        window: found.end?.windowPositions ?? [],
        windowTokenCount: prefixes.windowTokenCount
      )
      let file = try folder.create(name, byteCount: image.byteCount)
      do {
        if try prefixes.write(found, image, to: file, tokens: prefix) { return file }
      } catch {
        folder.remove(name)
        throw error
      }
      folder.remove(name)
      return nil
    }
    exchange.step("assemble", since: start)
    // A block that is gone, or whose check failed: counted by the store, and computed.
    guard let made else { return }
    defer {
      // Its pages take a while to give back: beside the answer.
      threads.submit { [folder] _ in
        folder.remove(name)
        withExtendedLifetime(made) {}
      }
    }
    try Task.checkCancellation()
    let begin = nowNanoseconds()
    // From here on the slot holds neither what it held nor yet something else.
    slot.tokens = []
    let answer = try await server.post(
      "/slots/\(slot.id)?action=restore",
      "{\"filename\":\"\(name)\"}"
    )
    exchange.step("restore", since: begin)
    guard answer["n_restored"]?.int == prefix.count else {
      throw NotHelped("the server took \(answer["n_restored"]?.int ?? 0) of \(prefix.count) tokens")
    }
    try await checkStanding(attachment)
    slot.tokens = prefix
    slot.restoredTokenCount = prefix.count
    exchange.restoredTokenCount = prefix.count
    exchange.memoryTokenCount = 0
    exchange.tier = found.tier
    let perByte = Double(nowNanoseconds() - start) / Double(made.bytes.count)
    restoredByteCount.withLock { $0 = made.bytes.count }
    counters.change { values in
      values.restores += 1
      values.tokensRestored += UInt64(prefix.count)
      values.restoreNanosecondsPerByte =
        values.restoreNanosecondsPerByte.map { $0 * 0.8 + perByte * 0.2 } ?? perByte
    }
  }

  /// Computes up to where something is to be saved or chosen, before the request goes on.
  ///
  /// Where a prefix is usable only at ends that were saved: where this prompt leaves others that are stored, which the next one that
  /// leaves them there can then go on from. The end of the prompt is saved behind the answer (`saveEndOfPrompt`), if the server can go
  /// back to it.
  func computeAhead(
    _ lookup: PrefixStore.Lookup,
    _ passage: Passage,
    _ attachment: Attachment,
    _ slot: inout SlotTable.Slot,
    _ exchange: inout Exchange
  ) async throws {
    let tokens = passage.tokens
    let have = max(exchange.memoryTokenCount, exchange.restoredTokenCount)
    let fork = lookup.storedBlockCount * PrefixStore.tokensPerBlock
    let savesEnds = attachment.layout.needsExactEnds
    // The server drops the slot that is named in messages, and takes the one with the longest common prefix: that is this one then.
    let choosesItself = passage.style == .anthropic && attachment.slotCount > 1
    var ends: [(count: Int, isFork: Bool)] = []
    if savesEnds, fork >= have + Self.endDistance, fork < tokens.count { ends.append((fork, true)) }
    let last = max(have, ends.last?.count ?? 0)
    passage.state.withLock { $0.lastEnd = last }
    if choosesItself && tokens.count - 1 > last
      || savesEnds && !goesBack(attachment) && tokens.count - 1 >= last + Self.endDistance
    {
      ends.append((tokens.count - 1, false))
      if savesEnds { passage.state.withLock { $0.lastEnd = tokens.count - 1 } }
    }
    for end in ends {
      let start = nowNanoseconds()
      let answer = try await server.post(
        "/completion",
        "{\"prompt\":\(JSON.list(tokens[..<end.count])),\"n_predict\":0,\"id_slot\":\(slot.id),\"cache_prompt\":true,\"n_cache_reuse\":0}"
      )
      let timings = answer["timings"]
      noteFigures(
        timings?["cache_n"]?.int,
        timings?["prompt_n"]?.int,
        timings?["prompt_ms"]?.double,
        &exchange,
        slot
      )
      exchange.aheadTokenCount += timings?["prompt_n"]?.int ?? 0
      exchange.aheadMilliseconds += timings?["prompt_ms"]?.double ?? 0
      exchange.steps.append(("prefill", milliseconds(since: start)))
      slot.tokens = Array(tokens[..<end.count])
      slot.task = -1
      counters.change { $0.computedAhead += 1 }
      guard savesEnds else { continue }
      let begin = nowNanoseconds()
      let (file, parsed) = try await save(slot.id, attachment)
      exchange.step("save", since: begin)
      guard parsed.tokens.starts(with: slot.tokens) else {
        throw NotHelped("the server saved another prompt")
      }
      // The rest is done while the server goes on.
      store(file, parsed, passage, end.isFork ? .yields : .stays)
    }
  }

  /// New tokens that are worth an end of their own.
  static let endDistance = 128

  /// Whether the server keeps what it needs to go back from an answer to the end of its prompt.
  func goesBack(_ attachment: Attachment) -> Bool {
    attachment.hasCheckpoints && stuckStart.withLock { $0 != attachment.properties }
  }

  /// Where a prefix is usable only at ends that were saved: saves the end of the prompt too, which a client comes back to that drops the
  /// answer's reasoning or asks again.
  ///
  /// Behind the answer, which is saved already: the server goes back, over a token or a few.
  func saveEndOfPrompt(
    _ passage: Passage,
    _ attachment: Attachment,
    _ slot: inout SlotTable.Slot
  ) async throws {
    let end = passage.tokens.count - 1
    let last = passage.state.withLock { $0.lastEnd }
    guard attachment.layout.needsExactEnds, goesBack(attachment), end >= last + Self.endDistance,
      slot.tokens.count > end, slot.tokens.starts(with: passage.tokens)
    else { return }
    slot.tokens = []
    let answer = try await server.post(
      "/completion",
      "{\"prompt\":\(JSON.list(passage.tokens[..<end])),\"n_predict\":0,\"id_slot\":\(slot.id),\"cache_prompt\":true,\"n_cache_reuse\":0}"
    )
    if answer["timings"]?["prompt_n"]?.int ?? 0 > 1024 {
      // It has computed it again: from now on, ends are saved on the way to the answer.
      logger.warning("the server does not go back to a prompt's end: has it no checkpoints?")
      stuckStart.withLock { $0 = attachment.properties }
    }
    let (file, parsed) = try await save(slot.id, attachment)
    guard parsed.tokens.count == end, passage.tokens.starts(with: parsed.tokens) else {
      throw NotHelped("the server saved another prompt")
    }
    guard passage.foreign.active == 0, foreign.withLock({ $0 }) == passage.foreign else { return }
    slot.tokens = parsed.tokens
    slot.restoredTokenCount = min(slot.restoredTokenCount, end)
    store(file, parsed, passage, .yieldsToItsBeginning)
  }
}
