import Crypto
import KVCore
import KVStore
import LlamaSlots
import Logging
import NIOHTTP1
import Synchronization

extension Companion {
  /// Looks up a completion's prompt and brings the longest prefix into a slot.
  ///
  /// - Parameters:
  ///   - body: of the request; nil where it is no JSON.
  ///   - kind: what it asks for.
  ///   - headers: the caller's.
  ///   - exchange: what is noted of it so far.
  ///   - needsTokens: whether all of its tokens are wanted, even where nothing like it is known.
  /// - Returns: what becomes of it.
  func decide(
    body: JSON?,
    kind: RequestKind,
    headers: HTTPHeaders,
    exchange: Exchange,
    needsTokens: Bool = false
  ) async throws -> Decision {
    for _ in 0..<3 {
      do {
        return try await decideOnce(body, kind, headers, exchange, needsTokens)
      } catch let problem as OtherServer {
        logger.info("decided anew: \(problem)")
      }
    }
    return .gone("it is being started anew")
  }

  private func decideOnce(
    _ body: JSON?,
    _ kind: RequestKind,
    _ headers: HTTPHeaders,
    _ exchange: Exchange,
    _ needsTokens: Bool
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
    // What no store here knows, another machine may have left in the remote tier.
    let mayBeNew = !needsTokens && style == .openAI && options.remote.url.isEmpty
    let asked = await Self.result { try await self.beginning(source, headers, cuts: mayBeNew) }
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
    let beginning: [Int32]
    var rest: Task<[Int32], any Error>?
    switch asked {
    case .success(let known): (beginning, rest) = known
    case .failure(let refusal as LlamaServer.Refusal):
      // It will say what is wrong itself: a wrong key, messages that its template does not take.
      return pass("the server does not take its prompt apart (\(refusal.status))")
    case .failure(is CancellationError): throw CancellationError()
    case .failure(let problem): return .gone("\(problem)")
    }
    let tenant = tenant(headers)
    exchange.tenant = tenant.isEmpty ? "" : Self.shortDigest(tenant)
    guard let prefixes = await keeper.prefixes(attachment, tenant: tenant) else {
      return pass("the store cannot be used")
    }
    // Of what is new, all tokens come while the server computes it already.
    var tokens = beginning
    if let whole = rest, await !isNew(beginning, exchange.tenant, prefixes, attachment) {
      switch await whole.result {
      case .success(let all): tokens = all
      case .failure(is CancellationError): throw CancellationError()
      case .failure(let problem): return .gone("\(problem)")
      }
      rest = nil
    }
    exchange.step("tokens", since: start)
    exchange.tokenCount = tokens.count
    let points = style == .anthropic ? CacheBreakPoint.all(in: body) : []
    let before = foreign.withLock { $0 }
    let hints = Hints(headers, body)
    let asIs = tokens
    async let kept = keptPrefixes(points, of: body, asIs, headers)

    start = nowNanoseconds()
    guard let (slot, epoch) = await slots.acquire(tokens, tenant: exchange.tenant) else {
      try Task.checkCancellation()
      return .gone("the server went away")
    }
    if milliseconds(since: start) > 1 {
      exchange.step("wait", since: start)
      // It may be known by now.
      if let all = try? await rest?.value {
        tokens = all
        rest = nil
      }
    }
    if rest == nil {
      exchange.tokenCount = tokens.count
      exchange.conversation = log.conversation(
        of: tokens,
        tenant: exchange.tenant,
        name: hints.session
      )
    }
    exchange.slot = slot.id
    exchange.kept = await kept
    let passage = Passage(
      slot,
      epoch,
      prefixes,
      attachment,
      tokens,
      rest,
      body.bytes,
      source.hasText,
      hints,
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
    try await beginning(source, headers, cuts: false).tokens
  }

  /// The same, or of a long prompt only how it begins, and who will tell all of it.
  private func beginning(
    _ source: PromptSource,
    _ headers: HTTPHeaders,
    cuts: Bool
  ) async throws -> (tokens: [Int32], rest: Task<[Int32], any Error>?) {
    let text: [UInt8]
    switch source {
    case .tokens(let tokens): return (tokens, nil)
    case .text(let raw): text = raw
    case .messages(let body):
      let answer = try await server.post(
        "/apply-template",
        body,
        headers: Self.credentials(headers)
      )
      guard let prompt = answer["prompt"], prompt.isString else {
        throw LlamaServer.Refusal(status: 200, body: "no prompt")
      }
      text = Array(prompt.raw)
    }
    guard cuts, let front = Self.front(of: text[...]) else {
      return (try await tokens(ofText: text[...], headers), nil)
    }
    let known = try await tokens(ofText: front, headers)
    let whole = Task { try await tokens(ofText: text[...], headers) }
    // The last ones may go on otherwise behind the cut.
    guard known.count >= Self.frontTokenCount + 16 else { return (try await whole.value, nil) }
    return (Array(known[..<Self.frontTokenCount]), whole)
  }

  /// Of a JSON string the text goes on as it came, escapes and all.
  private func tokens(ofText text: ArraySlice<UInt8>, _ headers: HTTPHeaders) async throws
    -> [Int32]
  {
    var question = Array("{\"add_special\":true,\"parse_special\":true,\"content\":".utf8)
    question.append(contentsOf: text)
    question.append(UInt8(ascii: "}"))
    let answer = try await server.post("/tokenize", question, headers: Self.credentials(headers))
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
