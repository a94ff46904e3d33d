internal import KVCatalog
public import KVCore
internal import KVIndex

/// One conversation or agent run: what each of its steps asked for, found and computed, kept in the catalog.
///
/// Thread-safe. Steps become durable along with the next commit, a second later at the latest, or at `Store.flush`.
public final class Session: Sendable {
  /// Where its prompts are stored.
  public let namespace: Namespace
  private let state: Monitor<State>
  /// Number of the session in its store.
  public let id: UInt64

  private struct State {
    var row: SessionRow
    /// The step before, and the one that a match has begun.
    var previous: PromptCopy?
    var matched: Matched?
    var isEnded = false
    /// The last stored block of the last step's prompt.
    var target: LeaseTable.Target?
    /// Blocks with an idle TTL are kept for so long at least after a step.
    var keepNanoseconds: UInt64 = 0
  }

  private struct Matched {
    var step: SessionStepRow
    var prompt: PromptCopy
    /// The step before, where comparing the two says the cause; that is done when the step ends.
    var comparedWith: PromptCopy?
  }

  init(_ namespace: Namespace, _ row: SessionRow) {
    self.namespace = namespace
    id = row.id
    state = Monitor(State(row: row))
  }

  package func belongs(to store: Store) -> Bool { namespace.store === store }

  /// `Namespace.match`, as the next step of the session: notes how much is stored, and where it diverges from the step before.
  public func match(
    _ prompt: Prompt,
    options: MatchOptions = [],
    leaseNanoseconds: UInt64 = 0
  ) throws(StoreError) -> MatchResult {
    guard !state.withLock({ $0.isEnded }) else { throw .closed }
    let result = try namespace.match(prompt, options: options, leaseNanoseconds: leaseNanoseconds)
    if options.contains(.peek) { return result }
    let words = prompt.tokens(from: 0, countMax: Self.wordCountMax)
    let (previousPrompt, previous) = try previousStep()
    var common = 0
    let limit = min(words.count, previous.count)
    while common < limit, words[common] == previous[common] { common += 1 }
    let cause = cause(words, previous, common, result, prompt)
    let step = SessionStepRow(
      number: 0,
      timeNanoseconds: namespace.store.core.configuration.clock.realTimeNanoseconds(),
      tokenCount: namespace.core.tokenCount(ofWords: prompt.wordCount),
      matchedTokenCount: UInt32(clamping: result.tokenCount),
      computedTokenCount: 0,
      previousTokenCount: namespace.core.tokenCount(ofWords: previous.count),
      commonTokenCount: namespace.core.tokenCount(ofWords: common),
      cause: (cause ?? .forked).rawValue
    )
    let copy = PromptCopy(prompt)
    let keepNanoseconds = state.withLock { state in
      state.matched = Matched(
        step: step,
        prompt: copy,
        comparedWith: cause == nil ? previousPrompt : nil
      )
      return state.keepNanoseconds
    }
    // What is stored already; a step that is never ended keeps it, too.
    if keepNanoseconds > 0 { _ = try namespace.touch(prompt, keepNanoseconds: keepNanoseconds) }
    return result
  }

  /// Ends the step that the last match began; nil when there was none.
  ///
  /// - Parameter computedTokenCount: what the engine computed of the prompt; nil = what was not matched.
  /// - Returns: the number of the step, from 1 on.
  /// - Throws: `StoreError`.
  public func step(computedTokenCount: Int? = nil) throws(StoreError) -> Int? {
    try namespace.store.enter()
    defer { namespace.store.leave() }
    let core = namespace.store.core
    guard !core.configuration.readOnly else { throw .readOnly }
    let noted: (SessionRow, Matched, UInt64)? = try state.withLock { (state) throws(StoreError) in
      guard !state.isEnded else { throw .closed }
      guard var matched = state.matched else { return nil }
      state.matched = nil
      state.row.stepCount += 1
      matched.step.number = state.row.stepCount
      let rest =
        matched.step.tokenCount - min(matched.step.tokenCount, matched.step.matchedTokenCount)
      matched.step.computedTokenCount = computedTokenCount.map { UInt32(clamping: $0) } ?? rest
      state.row.lastNanoseconds = matched.step.timeNanoseconds
      state.row.tokenCount += UInt64(matched.step.tokenCount)
      state.row.matchedTokenCount += UInt64(matched.step.matchedTokenCount)
      state.row.computedTokenCount += UInt64(matched.step.computedTokenCount)
      state.previous = matched.prompt
      return (state.row, matched, state.keepNanoseconds)
    }
    guard let (row, found, keepNanoseconds) = noted else { return nil }
    var matched = found
    matched.step.cause = try settledCause(of: matched)
    // What the engine has offloaded since the match is found as well.
    let target = try? matched.prompt.withPrompt { (prompt) throws(StoreError) in
      try core.storedEnd(namespace.core, prompt)
    }
    state.withLock { $0.target = target }
    core.note(row, [matched.step], target: target)
    if keepNanoseconds > 0 { _ = try touch(matched.prompt, keepNanoseconds) }
    return Int(matched.step.number)
  }

  /// From now on each step and touch lets what is stored of the session's prompt live for so long at least; 0 = as its blocks do
  /// by themselves.
  ///
  /// Only an idle expiry is put off: an absolute one is kept, and what has no end needs none.
  /// - Returns: blocks that are kept so from this moment on.
  /// - Throws: `StoreError`.
  @discardableResult
  public func keep(nanoseconds: UInt64) throws(StoreError) -> Int {
    try state.withLock { (state) throws(StoreError) in
      guard !state.isEnded else { throw .closed }
      state.keepNanoseconds = nanoseconds
    }
    return nanoseconds == 0 ? 0 : try touch()
  }

  /// Keeps the session's prefix alive while it pauses: a use of what is stored of its last step; returns its blocks.
  public func touch() throws(StoreError) -> Int {
    let (prompt, keepNanoseconds) = try state.withLock {
      (state) throws(StoreError) -> (PromptCopy?, UInt64) in
      guard !state.isEnded else { throw .closed }
      return (state.matched?.prompt ?? state.previous, state.keepNanoseconds)
    }
    guard let prompt else { return 0 }
    return try touch(prompt, keepNanoseconds)
  }

  private func touch(_ prompt: PromptCopy, _ keepNanoseconds: UInt64) throws(StoreError) -> Int {
    try prompt.withPrompt { (prompt) throws(StoreError) in
      try namespace.touch(prompt, keepNanoseconds: keepNanoseconds)
    }
  }

  private func previousStep() throws(StoreError) -> (PromptCopy?, words: [UInt32]) {
    guard let previous = state.withLock({ $0.previous }) else { return (nil, []) }
    let words = try previous.withPrompt { (prompt) throws(StoreError) in
      prompt.tokens(from: 0, countMax: Self.wordCountMax)
    }
    return (previous, words)
  }

  /// Ends the session; its record stays.
  public func end() throws(StoreError) {
    try namespace.store.enter()
    defer { namespace.store.leave() }
    let (row, target) = try state.withLock {
      (state) throws(StoreError) -> (SessionRow, LeaseTable.Target?) in
      guard !state.isEnded else { throw .closed }
      state.isEnded = true
      state.row.isEnded = true
      state.previous = nil
      state.matched = nil
      return (state.row, state.target)
    }
    namespace.store.core.note(row, [], target: target)
  }

  /// Prompts are compared with the step before up to here.
  private static let wordCountMax = 1 << 21

  /// What ended the stored prefix: what became of the block that is missing; nil = the change against the step before.
  private func cause(
    _ words: [UInt32],
    _ previous: [UInt32],
    _ common: Int,
    _ result: MatchResult,
    _ prompt: Prompt
  ) -> Explanation.Cause? {
    let perBlock = namespace.core.wordsPerBlock
    let matchedWordCount = result.blockCount * perBlock
    // A session's first step goes on from no other: what is stored says why not all of it is.
    if previous.isEmpty, matchedWordCount < words.count / perBlock * perBlock {
      let known = (try? namespace.explain(prompt))?.cause ?? .appended
      return known == .nothingStored ? .appended : known
    }
    // All that the step before has in common is there: what is new is new.
    if matchedWordCount >= common / perBlock * perBlock, common == previous.count {
      return matchedWordCount / perBlock == words.count / perBlock ? .stored : .appended
    }
    if matchedWordCount >= common / perBlock * perBlock, namespace.identity.identityMode == .tokens
    {
      return nil
    }
    return (try? namespace.explain(prompt))?.cause ?? .forked
  }
}

extension Session {
  /// The cause of a step as it is noted: the change against the step before, or whether what was appended stands in front already,
  /// sent once more.
  ///
  /// Looked for when the step has ended, not while its caller waits for the match, and in so many tokens at most.
  private func settledCause(of matched: Matched) throws(StoreError) -> UInt32 {
    let start = Int(matched.step.commonTokenCount)
    if let previous = matched.comparedWith {
      func behind(_ prompt: PromptCopy) throws(StoreError) -> [UInt32] {
        try prompt.withPrompt { (prompt) throws(StoreError) in
          prompt.tokens(from: start, countMax: Explanation.repeatedWindow)
        }
      }
      return PromptComparison(
        try behind(matched.prompt),
        try behind(previous),
        tokensPerBlock: namespace.core.wordsPerBlock
      ).cause.rawValue
    }
    guard matched.step.cause == Explanation.Cause.appended.rawValue, start > 0,
      namespace.identity.identityMode == .tokens
    else { return matched.step.cause }
    let first = max(0, start - Explanation.repeatedWindow)
    let words = try matched.prompt.withPrompt { (prompt) throws(StoreError) in
      prompt.tokens(from: first, countMax: 2 * Explanation.repeatedWindow)
    }
    var answer = Explanation()
    answer.cause = .appended
    _ = answer.enterRepeated(
      words,
      from: min(start - first, words.count),
      wordsPerBlock: namespace.core.wordsPerBlock
    )
    return answer.cause.rawValue
  }
}

extension Namespace {
  /// Begins a session under a name of the caller's (at most 64 bytes); several may have one name.
  public func beginSession(_ name: String = "") throws(StoreError) -> Session {
    try store.enter()
    defer { store.leave() }
    guard !store.core.configuration.readOnly else { throw .readOnly }
    guard name.utf8.count <= SessionRow.nameByteCountMax else {
      throw .invalidArgument(.sessionName)
    }
    let row = store.core.newSession(of: core.id, name: Array(name.utf8))
    store.core.note(row, [])
    return Session(self, row)
  }
}

extension NamespaceCore {
  /// Tokens that so many words stand for.
  fileprivate func tokenCount(ofWords count: Int) -> UInt32 {
    UInt32(
      clamping: identity.identityMode == .tokens
        ? count : count / wordsPerBlock * identity.tokensPerBlock
    )
  }
}
