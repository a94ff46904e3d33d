import Crypto
import KVCore
import KVStore
import LlamaSlots
import Logging
import NIOHTTP1
import Synchronization

extension Companion {
  /// Looks up a completion's prompt and brings the longest prefix into a slot.
  func decide(
    body: JSON?,
    kind: RequestKind,
    headers: HTTPHeaders,
    exchange: Exchange
  ) async throws -> Decision {
    for _ in 0..<3 {
      do {
        return try await decideOnce(body: body, kind: kind, headers: headers, exchange: exchange)
      } catch let problem as OtherServer {
        logger.info("decided anew: \(problem)")
      }
    }
    return .gone("it is being started anew")
  }

  private func decideOnce(
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
    if attachment.hasFullWindow, style != .openAI {
      // Its prompt is made by us: where a wrong one would be gone on with in its middle, none is restored.
      return pass("messages beside --swa-full")
    }
    if isMisjudged(style) { return pass("its prompt is not what we take it for") }
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
    let points = style == .anthropic ? CacheBreakPoint.all(in: body) : []
    let before = foreign.withLock { $0 }
    async let kept = keptPrefixes(points, of: body, tokens, headers)
    exchange.conversation = log.conversation(of: tokens, tenant: exchange.tenant)

    start = nowNanoseconds()
    guard let (slot, epoch) = await slots.acquire(tokens, tenant: exchange.tenant) else {
      try Task.checkCancellation()
      return .gone("the server went away")
    }
    if milliseconds(since: start) > 1 { exchange.step("wait", since: start) }
    exchange.slot = slot.id
    exchange.kept = await kept
    let passage = Passage(
      slot,
      epoch,
      prefixes,
      attachment,
      tokens,
      body.bytes,
      source.hasText,
      Hints(headers, body),
      style,
      exchange.kept,
      before,
      exchange
    )
    do {
      try await waitForComing(passage)
    } catch is CancellationError {
      await giveBack(passage, forgets: false)
      throw CancellationError()
    } catch {
      logger.debug("not waited for: \((error as? StoreError)?.message ?? "\(error)")")
    }
    // It stays shut until the request has started.
    if passage.usesGate { await gate.enter() }
    do {
      try await prepare(passage, attachment)
    } catch is CancellationError {
      await leaveGate(passage)
      await giveBack(passage, forgets: true)
      throw CancellationError()
    } catch let problem as OtherServer {
      // What was restored is another model's: it goes before anyone can go on from it.
      _ = try? await server.post("/slots/\(slot.id)?action=erase", "{}")
      await leaveGate(passage)
      await giveBack(passage, forgets: true)
      throw problem
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
    }
    let known = passage.state.withLock { $0.exchange }
    let changed = body.adding([("id_slot", "\(slot.id)"), ("n_cache_reuse", "0")])
    return .help(passage, body: changed, known)
  }

  static func result<Value: Sendable>(
    _ body: @Sendable () async throws -> Value
  ) async -> Result<Value, any Error> {
    do { return .success(try await body()) } catch { return .failure(error) }
  }

  /// The prompt as the server will see it: by its own template and tokenizer.
  func tokens(_ source: PromptSource, _ headers: HTTPHeaders) async throws -> [Int32] {
    let own = Self.credentials(headers)
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

  // ---------------------------------------------------------------- who, and for how long

  /// What separates a caller from others; empty where all share.
  func tenant(_ headers: HTTPHeaders) -> [UInt8] {
    guard options.separatesTenants else { return [] }
    let key = headers.first(name: "authorization") ?? headers.first(name: "x-api-key") ?? ""
    return Array(SHA256.hash(data: Array(key.utf8)))
  }

  static func shortDigest(_ bytes: [UInt8]) -> String {
    SHA256.hash(data: bytes).prefix(16).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }
      .joined()
  }
}
