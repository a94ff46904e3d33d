import AsyncHTTPClient
import Crypto
import Glibc
import KVCore
import KVStore
import LlamaSlots
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// The companion of one llama-server: lets it go on from what is stored, and stores what it computes.
package final class Companion: Sendable {
  let options: Options
  let logger: Logger
  let server: LlamaServer
  let folder: SlotFolder
  let slots = SlotTable()
  let keeper: Keeper
  let counters = Counters()
  let log = RequestLog()
  let recorder: Recorder?
  let startMilliseconds: Double
  /// Between a restore and the start of what needs it nothing else may start: with its default flags the server clears the slots that are
  /// idle then.
  private let gate = Gate()
  private let storeGate = Gate()
  private let threads: NIOThreadPool
  private let client: HTTPClient
  /// Work that goes on after an answer is out.
  private let afterwards = Mutex<Set<UInt64>>([])
  private let workNumber = Atomic<UInt64>(0)

  package init(_ options: Options, logger: Logger) throws {
    self.options = options
    self.logger = logger
    // What can fail comes first: a client that is not shut down may not go away.
    folder = try SlotFolder(options.slotFolder)
    recorder = try options.recordPath.map { try Recorder($0) }
    var configuration = HTTPClient.Configuration()
    configuration.redirectConfiguration = .disallow
    configuration.decompression = .disabled
    configuration.httpVersion = .http1Only
    configuration.timeout = .init(connect: .seconds(5), read: nil)
    configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = 4096
    configuration.connectionPool.retryConnectionEstablishment = false
    // The server closes a connection that was idle for 5 seconds.
    configuration.connectionPool.idleTimeout = .seconds(3)
    client = HTTPClient(
      eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
      configuration: configuration
    )
    var url = options.serverURL
    while url.hasSuffix("/") { url.removeLast() }
    server = LlamaServer(client: client, url: url, apiKey: options.apiKey)
    threads = NIOThreadPool(numberOfThreads: 4)
    threads.start()
    startMilliseconds = wallMilliseconds()
    let attacher = Attacher(
      server: server,
      folder: folder,
      modelPath: options.modelPath,
      digests: DigestCache(path: options.storePath + ".models")
    )
    keeper = Keeper(attacher, slots, options, threads, logger)
  }

  /// Opens the store and looks for the server from time to time, so that a start of it is known before its first request.
  package func run() async {
    await keeper.openStore()
    while !Task.isCancelled {
      _ = await keeper.current()
      try? await Task.sleep(for: .milliseconds(500))
    }
  }

  /// Ends: what was answered is stored first.
  package func stop() async {
    let start = nowNanoseconds()
    while !afterwards.withLock({ $0.isEmpty }), milliseconds(since: start) < 10_000 {
      try? await Task.sleep(for: .milliseconds(10))
    }
    await keeper.close()
    folder.removeLeftOvers()
    try? await client.shutdown()
    try? await threads.shutdownGracefully()
  }

  // ---------------------------------------------------------------- one request

  /// A request's way to a slot.
  final class Passage: Sendable {
    let epoch: UInt64
    let prefixes: PrefixStore
    let state: Mutex<State>
    let layout: SlotLayout
    let tokens: [Int32]
    let lives: PrefixStore.Lives
    let usesGate: Bool

    struct State: Sendable {
      var slot: SlotTable.Slot
      var exchange: Exchange
    }

    init(
      _ slot: SlotTable.Slot,
      _ epoch: UInt64,
      _ prefixes: PrefixStore,
      _ attachment: Attachment,
      _ tokens: [Int32],
      _ lives: PrefixStore.Lives,
      _ exchange: Exchange
    ) {
      self.epoch = epoch
      self.prefixes = prefixes
      layout = attachment.layout
      usesGate = attachment.clearsIdleSlots
      self.tokens = tokens
      self.lives = lives
      state = Mutex(State(slot: slot, exchange: exchange))
    }
  }

  /// What becomes of a request.
  enum Decision: Sendable {
    case pass(Exchange)
    case help(Passage, body: [UInt8], Exchange)
    case gone(String)
  }

  /// Looks up a completion's prompt and brings the longest prefix into a slot.
  func decide(
    path: String,
    body: JSON?,
    kind: RequestKind,
    headers: HTTPHeaders,
    exchange: Exchange
  ) async throws -> Decision {
    var exchange = exchange
    func pass(_ reason: String) -> Decision {
      exchange.passed = reason
      return .pass(exchange)
    }
    guard case .helped(let source, let style) = kind, let body else {
      if case .passed(let reason, _) = kind { return pass(reason) }
      return pass("no completion")
    }
    // While it is asked whether it is still the one we know, it takes the prompt apart.
    async let standing = keeper.current()
    var start = nowNanoseconds()
    let asked = await Self.result { try await self.tokens(source, headers) }
    exchange.step("tokens", since: start)
    let attachment: Attachment
    switch await standing {
    case .attached(let known): attachment = known
    case .notHelped(let why, _): return pass(why)
    case .away(let why): return .gone(why)
    }
    if attachment.hasFullWindow, style == .anthropic {
      // Its prompt is made by us: where a wrong one would be gone on with in its middle, none is restored.
      return pass("messages beside --swa-full")
    }
    let tokens: [Int32]
    switch asked {
    case .success(let known): tokens = known
    case .failure(let refusal as LlamaServer.Refusal):
      // It will say what is wrong itself: a wrong key, messages that its template does not take.
      return pass("the server does not take its prompt apart (\(refusal.status))")
    case .failure(is CancellationError): throw CancellationError()
    case .failure(let problem): return .gone("\(problem)")
    }
    exchange.tokenCount = tokens.count
    let tenant = tenant(headers)
    exchange.tenant = tenant.isEmpty ? "" : Self.shortDigest(tenant)
    guard let prefixes = await keeper.prefixes(attachment, tenant: tenant) else {
      return pass("the store cannot be used")
    }
    exchange.conversation = log.conversation(of: tokens, tenant: exchange.tenant)

    start = nowNanoseconds()
    guard let (slot, epoch) = await slots.acquire(tokens, tenant: exchange.tenant) else {
      try Task.checkCancellation()
      return .gone("the server went away")
    }
    if milliseconds(since: start) > 1 { exchange.step("wait", since: start) }
    exchange.slot = slot.id
    let passage = Passage(slot, epoch, prefixes, attachment, tokens, lives(headers, body), exchange)
    // It stays shut until the request has started.
    if passage.usesGate { await gate.enter() }
    do {
      try await prepare(passage, attachment)
    } catch is CancellationError {
      await leaveGate(passage)
      await giveBack(passage, forgets: true)
      throw CancellationError()
    } catch {
      // It is computed instead.
      passage.state.withLock { state in
        state.exchange.problem = "\(error)"
        state.exchange.restoredTokenCount = 0
        state.exchange.memoryTokenCount = 0
        state.slot.tokens = []
        state.slot.task = -1
      }
      counters.change { $0.restoresFailed += 1 }
      logger.warning("a prefix could not be restored: \(error)")
      await keeper.doubt()
    }
    let known = passage.state.withLock { $0.exchange }
    let changed = body.adding([("id_slot", "\(slot.id)"), ("n_cache_reuse", "0")])
    return .help(passage, body: changed, known)
  }

  private static func result<Value: Sendable>(
    _ body: @Sendable () async throws -> Value
  ) async -> Result<Value, any Error> {
    do { return .success(try await body()) } catch { return .failure(error) }
  }

  /// The prompt as the server will see it: by its own template and tokenizer.
  private func tokens(_ source: PromptSource, _ headers: HTTPHeaders) async throws -> [Int32] {
    var own = HTTPHeaders()
    for name in ["authorization", "x-api-key"] {
      for value in headers[name] { own.add(name: name, value: value) }
    }
    var text: ArraySlice<UInt8>
    switch source {
    case .tokens(let tokens): return tokens
    case .text(let raw): text = raw[...]
    case .messages(let body):
      let answer = try await server.post("/apply-template", body, headers: own)
      guard let prompt = answer["prompt"], prompt.isString else {
        throw LlamaServer.Refusal(status: 200, body: "no prompt")
      }
      text = prompt.raw
    }
    // The text goes on as it came, escapes and all.
    var question = Array("{\"add_special\":true,\"parse_special\":true,\"content\":".utf8)
    question.append(contentsOf: text)
    question.append(UInt8(ascii: "}"))
    let answer = try await server.post("/tokenize", question, headers: own)
    guard let tokens = answer["tokens"]?.tokens, !tokens.isEmpty else {
      throw LlamaServer.Refusal(status: 200, body: "no tokens")
    }
    return tokens
  }

  /// Brings the longest prefix into the slot, and makes an end to go on from where much is new.
  private func prepare(_ passage: Passage, _ attachment: Attachment) async throws {
    var (slot, exchange) = passage.state.withLock { ($0.slot, $0.exchange) }
    defer {
      let (slot, exchange) = (slot, exchange)
      passage.state.withLock {
        $0.slot = slot
        $0.exchange = exchange
      }
    }
    let tokens = passage.tokens
    var start = nowNanoseconds()
    let known = try await server.get("/slots").elements.first { $0["id"]?.int == slot.id }
    if known?["n_prompt_tokens"]?.int ?? 0 != slot.tokenCount
      || known?["id_task"]?.int ?? -1 != slot.task
    {
      if !slot.tokens.isEmpty { counters.change { $0.slotsLost += 1 } }
      // What we do not know of may be there: nothing of it is relied on.
      slot.tokens = []
      slot.restoredTokenCount = 0
    }
    exchange.step("slots", since: start)
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
    let common = commonPrefix(slot.tokens[...], tokens[...])
    // In the middle of what it has, only the server knows whether it can go on.
    let isUsable = !attachment.layout.needsExactEnds || common == slot.tokens.count
    exchange.memoryTokenCount = isUsable ? min(common, tokens.count - 1) : 0
    if exchange.memoryTokenCount > 0 { exchange.tier = "memory" }

    start = nowNanoseconds()
    let lookup = try await threads.runIfActive { [prefixes = passage.prefixes] in
      try prefixes.find(tokens)
    }
    exchange.step("match", since: start)
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
    if attachment.layout.needsExactEnds {
      try await computeAhead(lookup, passage, attachment, &slot, &exchange)
    }
  }

  /// Whether a restore takes less than the server would need for the same tokens.
  private func worthwhile(_ found: PrefixStore.Found, _ layout: SlotLayout, memoryTokenCount: Int)
    -> Bool
  {
    let gained = found.tokenCount - memoryTokenCount
    guard gained > 0 else { return false }
    let values = counters.now
    let rowByteCount = (layout.blockCache?.rowByteCount ?? 0)
    let byteCount = Double(found.tokenCount * rowByteCount + found.endBytes.count)
    let cost =
      4 + Double(found.estimateNanoseconds) / 1e6 + byteCount
      * (values.restoreNanosecondsPerByte ?? 0.5) / 1e6
    return Double(gained) * (values.prefillMillisecondsPerToken ?? 0.5) > cost
  }

  private func release(_ found: PrefixStore.Found, _ passage: Passage) async {
    let leases = found.leases
    try? await threads.runIfActive { [prefixes = passage.prefixes] in prefixes.release(leases) }
  }

  private func restore(
    _ found: PrefixStore.Found,
    _ passage: Passage,
    _ attachment: Attachment,
    _ slot: inout SlotTable.Slot,
    _ exchange: inout Exchange
  ) async throws {
    let start = nowNanoseconds()
    let name = folder.newName()
    defer { folder.remove(name) }
    let prefix = Array(passage.tokens[..<found.tokenCount])
    let made = try await threads.runIfActive {
      [folder, prefixes = passage.prefixes, layout = attachment.layout] in
      defer { prefixes.release(found.leases) }
      let image = SlotImage(
        layout: layout,
        tokens: prefix,
        window: found.end?.windowPositions ?? []
      )
      let file = try folder.create(name, byteCount: image.byteCount)
      return try prefixes.write(found, image, to: file, tokens: prefix) ? image.byteCount : nil
    }
    exchange.step("assemble", since: start)
    // A block that is gone, or whose check failed: counted by the store, and computed.
    guard let made else { return }
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
    slot.tokens = prefix
    slot.restoredTokenCount = prefix.count
    exchange.restoredTokenCount = prefix.count
    exchange.memoryTokenCount = 0
    exchange.tier = found.tier
    let perByte = Double(nowNanoseconds() - start) / Double(made)
    counters.change { values in
      values.restores += 1
      values.tokensRestored += UInt64(prefix.count)
      values.restoreNanosecondsPerByte =
        values.restoreNanosecondsPerByte.map { $0 * 0.8 + perByte * 0.2 } ?? perByte
    }
  }

  /// Where a prefix is usable only at ends that were saved: computes up to one and saves it, before the request goes on.
  ///
  /// At the end of the prompt, which a client that drops the answer's reasoning comes back to; and where this prompt leaves others that
  /// are stored, which the next one that leaves them there can then go on from.
  private func computeAhead(
    _ lookup: PrefixStore.Lookup,
    _ passage: Passage,
    _ attachment: Attachment,
    _ slot: inout SlotTable.Slot,
    _ exchange: inout Exchange
  ) async throws {
    let tokens = passage.tokens
    let have = max(exchange.memoryTokenCount, exchange.restoredTokenCount)
    let fork = lookup.storedBlockCount * PrefixStore.tokensPerBlock
    let threshold = 128
    var ends: [(count: Int, isFork: Bool)] = []
    if fork >= have + threshold, fork < tokens.count { ends.append((fork, true)) }
    if tokens.count - 1 >= max(have, ends.last?.count ?? 0) + threshold {
      ends.append((tokens.count - 1, false))
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
      let begin = nowNanoseconds()
      let (file, parsed) = try await save(slot.id, attachment.layout)
      exchange.step("save", since: begin)
      guard parsed.tokens.starts(with: slot.tokens) else {
        throw NotHelped("the server saved another prompt")
      }
      // The rest is done while the server goes on.
      store(file, parsed, passage, replacesEnd: end.isFork)
    }
  }

  /// Saves and offloads that are under way.
  var pendingCount: Int { afterwards.withLock { $0.count } }

  // ---------------------------------------------------------------- afterwards

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

  /// The answer is out, or the client is gone: compares, saves and gives the slot back.
  func finish(_ passage: Passage, _ figures: AnswerReader?, status: Int, wasCancelled: Bool) {
    let number = workNumber.wrappingAdd(1, ordering: .relaxed).newValue
    afterwards.withLock { _ = $0.insert(number) }
    Task {
      await self.settle(passage, figures, status: status, wasCancelled: wasCancelled)
      self.afterwards.withLock { _ = $0.remove(number) }
    }
  }

  private func settle(_ passage: Passage, _ figures: AnswerReader?, status: Int, wasCancelled: Bool)
    async
  {
    var (slot, exchange) = passage.state.withLock { ($0.slot, $0.exchange) }
    exchange.status = status
    exchange.wasCancelled = wasCancelled
    if let figures, status == 200 {
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
      if isWorthSaving(before.tokenCount, exchange, passage.layout) {
        let (file, parsed) = try await save(slot.id, passage.layout)
        slot.tokens = parsed.tokens
        // What was computed behind a restored prefix is whole.
        slot.restoredTokenCount = min(slot.restoredTokenCount, parsed.tokens.count)
        let after = try await state(of: slot.id)
        slot.task = after.task
        slot.tokenCount = parsed.tokens.count
        if after.tokenCount != parsed.tokens.count { slot.tokens = [] }
        store(file, parsed, passage, replacesEnd: false)
      } else {
        // The prompt is there, and behind it an answer that we do not know.
        slot.tokens = passage.layout.needsExactEnds ? [] : passage.tokens
        slot.task = before.task
        slot.tokenCount = before.tokenCount
        counters.change { $0.savesSpared += 1 }
      }
    } catch {
      counters.change { $0.savesFailed += 1 }
      if !(error is LlamaServer.Unreachable) {
        logger.warning("a slot could not be saved: \(error)")
      }
      await keeper.doubt()
      slot.tokens = []
      slot.restoredTokenCount = 0
    }
    await leaveGate(passage)
    exchange.why = await why(exchange, passage)
    // Where the store is slower than the server, files do not pile up on tmpfs: the slot waits.
    while afterwards.withLock({ $0.count }) > 16 { try? await Task.sleep(for: .milliseconds(5)) }
    await slots.release(slot, epoch: passage.epoch)
    // Under the lock under which what is stored is counted: none is missed, none counted twice.
    passage.state.withLock { state in
      exchange.newBlockCount = state.exchange.newBlockCount
      log.add(exchange)
    }
    recorder?.add(exchange, passage.tokens)
  }

  /// What the server says of a slot.
  private func state(of slot: Int) async throws -> (task: Int, tokenCount: Int) {
    let known = try await server.get("/slots").elements.first { $0["id"]?.int == slot }
    return (known?["id_task"]?.int ?? -1, known?["n_prompt_tokens"]?.int ?? 0)
  }

  /// A save writes the whole slot and stalls all others: where that takes long, it waits until more is new.
  private func isWorthSaving(_ tokenCount: Int, _ exchange: Exchange, _ layout: SlotLayout) -> Bool
  {
    let values = counters.now
    guard let perToken = values.saveMillisecondsPerToken else { return true }
    let cost = perToken * Double(tokenCount)
    let new = max(0, tokenCount - exchange.foundTokenCount)
    return cost < 1000 || Double(new) * (values.prefillMillisecondsPerToken ?? 0.5) > cost
  }

  private func noteFigures(
    _ cached: Int?,
    _ computed: Int?,
    _ time: Double?,
    _ exchange: inout Exchange,
    _ slot: SlotTable.Slot
  ) {
    // Of what is computed ahead in two parts, the second one's cache holds the first.
    if exchange.aheadTokenCount == 0 { exchange.cachedTokenCount = cached }
    exchange.computedTokenCount = computed
    exchange.promptMilliseconds = time
    measure(computed, time)
  }

  /// What came behind the part that was computed ahead adds to it.
  private func noteAfterAhead(_ figures: AnswerReader, _ exchange: inout Exchange) {
    exchange.computedTokenCount = exchange.aheadTokenCount + (figures.computedTokenCount ?? 0)
    exchange.promptMilliseconds = exchange.aheadMilliseconds + (figures.promptMilliseconds ?? 0)
  }

  /// The server's speed with prompts, of those long enough to tell.
  private func measure(_ computed: Int?, _ time: Double?) {
    guard let computed, let time, computed >= 64, time > 0 else { return }
    let perToken = time / Double(computed)
    counters.change { values in
      values.prefillMillisecondsPerToken =
        values.prefillMillisecondsPerToken.map { $0 * 0.7 + perToken * 0.3 } ?? perToken
    }
  }

  /// The server must have gone on from all that was restored: a layout that disappoints is no longer restored.
  private func checkRestored(_ exchange: Exchange) async {
    guard exchange.restoredTokenCount > 0, let cached = exchange.cachedTokenCount else { return }
    guard cached < exchange.restoredTokenCount else {
      counters.change { $0.disappointments = 0 }
      return
    }
    let count = counters.change { values in
      values.restoresIgnored += 1
      values.disappointments += 1
      return values.disappointments
    }
    logger.warning(
      "the server computed \(exchange.restoredTokenCount - cached) of \(exchange.restoredTokenCount) restored tokens again"
    )
    if count >= 8 { await keeper.giveUp("it computes restored prefixes again") }
  }

  private func why(_ exchange: Exchange, _ passage: Passage) async -> String? {
    let used = max(exchange.memoryTokenCount, exchange.restoredTokenCount)
    guard options.keepsTexts, exchange.tokenCount - used > PrefixStore.tokensPerBlock else {
      return nil
    }
    return try? await threads.runIfActive {
      [prefixes = passage.prefixes, tokens = passage.tokens] in
      try prefixes.explain(tokens).message
    }
  }

  /// Lets the server write a slot, and reads what it wrote.
  private func save(_ slot: Int, _ layout: SlotLayout) async throws -> (MappedFile, SlotFile) {
    let start = nowNanoseconds()
    let name = folder.newName()
    defer { folder.remove(name) }
    _ = try await server.post("/slots/\(slot)?action=save", "{\"filename\":\"\(name)\"}")
    let result = try await threads.runIfActive { [folder] in
      let file = try folder.take(name)
      return (file, try SlotFile(file.readable, stateByteCount: layout.stateByteCount))
    }
    let perToken = milliseconds(since: start) / Double(max(1, result.1.tokens.count))
    counters.change { values in
      values.saves += 1
      if result.1.tokens.count >= 256 {
        values.saveMillisecondsPerToken =
          values.saveMillisecondsPerToken.map { $0 * 0.7 + perToken * 0.3 } ?? perToken
      }
    }
    let saved = result.1.layout
    guard saved.caches.count == layout.caches.count,
      zip(saved.caches, layout.caches).allSatisfy({
        $0.planes == $1.planes && $0.rotation == $1.rotation
      })
    else { throw NotHelped("the server writes another layout than at its start") }
    return result
  }

  /// Stores what is new in a saved file, off everyone's path.
  private func store(_ file: MappedFile, _ parsed: SlotFile, _ passage: Passage, replacesEnd: Bool)
  {
    let number = workNumber.wrappingAdd(1, ordering: .relaxed).newValue
    afterwards.withLock { _ = $0.insert(number) }
    Task {
      // One after the other: of two files of one prompt the second has little that is new.
      await storeGate.enter()
      do {
        let taken = try await threads.runIfActive {
          [prefixes = passage.prefixes, lives = passage.lives] in
          try prefixes.take(parsed, file.readable, replacesEnd: replacesEnd, lives: lives)
        }
        passage.state.withLock { state in
          state.exchange.newBlockCount += taken.newBlockCount
          log.addNewBlocks(taken.newBlockCount, to: state.exchange.id)
        }
        if let problem = taken.problem { logger.debug("not stored: \(problem)") }
      } catch {
        logger.warning(
          "what was computed could not be stored: \((error as? StoreError)?.message ?? "\(error)")"
        )
      }
      await storeGate.leave()
      self.afterwards.withLock { _ = $0.remove(number) }
    }
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

  // ---------------------------------------------------------------- who, and for how long

  /// What separates a caller from others; empty where all share.
  private func tenant(_ headers: HTTPHeaders) -> [UInt8] {
    guard options.separatesTenants else { return [] }
    let key = headers.first(name: "authorization") ?? headers.first(name: "x-api-key") ?? ""
    return Array(SHA256.hash(data: Array(key.utf8)))
  }

  private static func shortDigest(_ bytes: [UInt8]) -> String {
    SHA256.hash(data: bytes).prefix(16).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }
      .joined()
  }

  private func lives(_ headers: HTTPHeaders, _ body: JSON) -> PrefixStore.Lives {
    var lives = PrefixStore.Lives()
    if let seconds = headers.first(name: "x-kvstore-ttl").flatMap({ UInt64($0) }), seconds > 0,
      seconds < 1 << 32
    {
      lives.timeToLive = .idle(nanoseconds: seconds * 1_000_000_000)
    }
    if let priority = headers.first(name: "x-kvstore-priority").flatMap({ UInt8($0) }),
      priority <= 100
    {
      lives.priority = priority
    }
    return lives
  }
}

/// Milliseconds since 1970.
func wallMilliseconds() -> Double {
  var time = timespec()
  clock_gettime(CLOCK_REALTIME, &time)
  return Double(time.tv_sec) * 1000 + Double(time.tv_nsec) / 1e6
}
