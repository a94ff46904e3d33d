import KVRequests
import KVStore
import Logging
import NIOPosix

extension Companion {
  func noteFigures(
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
  func noteAfterAhead(_ figures: AnswerReader, _ exchange: inout Exchange) {
    exchange.computedTokenCount = exchange.aheadTokenCount + (figures.computedTokenCount ?? 0)
    exchange.promptMilliseconds = exchange.aheadMilliseconds + (figures.promptMilliseconds ?? 0)
  }

  /// The server must have made the same tokens of the request as we did, where its prompt is made by us.
  func judge(_ passage: Passage, _ figures: AnswerReader, _ exchange: inout Exchange) {
    guard passage.style != .openAI, let cached = figures.cachedTokenCount,
      let computed = figures.computedTokenCount
    else { return }
    let isRight = cached + computed == passage.tokens.count
    if !isRight {
      exchange.problem =
        "the server made \(cached + computed) tokens of it, not \(passage.tokens.count)"
    }
    counters.change { values in
      values.misjudged[passage.style, default: 0] =
        isRight ? 0 : values.misjudged[passage.style, default: 0] + 1
      if !isRight { values.promptsMisjudged += 1 }
    }
  }

  /// Requests of this kind turned out to be others than we took them for, several in a row.
  func isMisjudged(_ style: RequestKind.EndpointStyle) -> Bool {
    counters.now.misjudged[style, default: 0] >= 4
  }

  /// The server's speed with prompts, of those long enough to tell.
  func measure(_ computed: Int?, _ time: Double?) {
    guard let computed, let time, computed >= 64, time > 0 else { return }
    let perToken = time / Double(computed)
    counters.change { values in
      values.prefillMillisecondsPerToken =
        values.prefillMillisecondsPerToken.map { $0 * 0.7 + perToken * 0.3 } ?? perToken
    }
  }

  /// The server must have gone on from all that was restored: a layout that disappoints is no longer restored.
  func checkRestored(_ exchange: Exchange) async {
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

  /// Why the rest was computed: in the request's own text where one before it had it otherwise, else as the store has it.
  func explain(_ exchange: inout Exchange, _ passage: Passage) async {
    let used = max(exchange.memoryTokenCount, exchange.restoredTokenCount)
    let missed = exchange.tokenCount - used
    let known = exchange
    let told = try? await threads.runIfActive { [self] in
      // Of token ids there is no text to tell of, and what differs in them the store knows.
      let changes =
        options.keepsTexts && passage.hasText
        ? texts.changes(known, body: passage.body, compares: missed > PrefixStore.tokensPerBlock)
        : []
      guard missed > PrefixStore.tokensPerBlock else {
        return ([RequestChange](), String?.none, String?.none)
      }
      if let first = changes.first {
        return (Array(changes.prefix(8)), first.sentence, first.cause)
      }
      let known = try passage.prefixes.explain(passage.tokens)
      return ([], known.message, "\(known.cause)")
    }
    guard let told else { return }
    exchange.changes = told.0
    exchange.why = told.1
    exchange.cause = told.2
  }
}
