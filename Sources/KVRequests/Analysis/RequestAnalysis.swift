/// Reads the requests of a log one after the other, finds their conversations, and compares each with the one that it goes on from.
///
/// Nobody has to say which conversation a request belongs to. It goes on from an earlier request when that is its beginning; else
/// from the one with which it shares most of its messages; else it begins a conversation, and only its front (tools, system
/// prompt) is compared, with the front that is nearest.
public struct RequestAnalysis {
  /// How long a server remembers, and how much is kept here.
  public struct Options: Sendable {
    /// A prompt that was not used for longer is forgotten; one that is not in here never is.
    public var timeToLiveSeconds: [RequestFormat: Double]
    /// Bytes of requests that are kept to compare others with.
    public var keptByteCountMax = 1 << 30
    /// Whether that holds whatever a request asks for.
    public var isFixed = false

    /// What hosted services do: five minutes for Anthropic's interface, an hour for the others.
    public init() {
      timeToLiveSeconds = [:]
      for format in RequestFormat.allCases { timeToLiveSeconds[format] = 3_600 }
      timeToLiveSeconds[.anthropicMessages] = 300
    }

    /// The same time for all; nil for ever.
    public init(timeToLiveSeconds seconds: Double?) {
      timeToLiveSeconds = [:]
      for format in RequestFormat.allCases { timeToLiveSeconds[format] = seconds }
      isFixed = true
    }
  }

  /// Called for each request with changes, with the request before: what counts tokens better, or shows how it should be.
  ///
  /// It answers the tokens that each change costs, or nil to keep the estimates.
  public var review: ((_ line: Int, PromptRequest, PromptRequest, [RequestChange]) -> [Int]?)?
  /// Findings so far, as they came; at the end the whole log is looked at once more.
  public var findings: [LogFinding] { report.findings }
  /// Requests so far.
  public var requestCount: Int { report.requestCount }

  private let options: Options
  private var report = LogReport()
  private var blocks = PrefixBlocks()
  private var tails: [Conversation] = []
  /// Requests by the chain of all their parts.
  private var whole: [UInt64: Whole] = [:]
  /// Where a message was seen last: the two latest conversations.
  private var messages: [UInt64: (latest: Int32, before: Int32)] = [:]
  /// Where a line of a system prompt or a tool was seen last.
  private var fronts: [UInt64: Int32] = [:]
  /// In which conversation a front was used first in a request that begins one, and last.
  private var frontUses: [UInt64: Int] = [:]
  private var keptByteCount = 0
  private var oldestKept = 0
  private var lastTime = 0.0

  /// A request that was seen as a whole.
  private struct Whole {
    var conversation: Int32
    /// How often it was sent, and how many went on from it.
    var count: Int32
    var childCount: Int32
  }

  /// What is kept of a conversation while others come.
  private struct Conversation {
    var latest: PromptRequest?
    var chain: UInt64 = 0
    var line = 0
    var source = 0
    var front: UInt64 = 0
    var messageTokenCount = 0
    var messageCount = 0
    /// Calls of tools: canonical → as written.
    var calls: [UInt64: UInt64] = [:]
  }

  /// An analysis of nothing so far.
  public init(options: Options = Options()) { self.options = options }

  /// What was found, all in all.
  ///
  /// No request can be added afterwards.
  public consuming func finish() -> LogReport {
    var report = report
    let goesOn = Set(report.findings.compactMap(\.twin).filter { whole[$0]?.childCount ?? 0 > 0 })
    FindingReview(frontUses: frontUses, continued: goesOn).review(&report)
    return report
  }

  /// Takes the next request of the log.
  public mutating func add(_ logged: LoggedRequest, source: Int = 0, line: Int) {
    let request = logged.request
    guard !request.isEmpty else { return }
    // Clocks of several machines; none goes back.
    if let time = logged.time { lastTime = max(lastTime, time) }
    let time = logged.time == nil ? 0 : lastTime
    report.requestCount += 1
    report.formatCounts[request.format, default: 0] += 1
    if let model = request.model { report.modelCounts[model, default: 0] += 1 }
    if request.hasHiddenHistory { report.hiddenHistoryCount += 1 }

    var seed: UInt64 = 7
    for setting in request.settings {
      seed = ByteHasher.combined(seed, ByteHasher.hash(setting.value, 0..<setting.value.count))
    }
    let seconds = UInt32(clamping: Int(time))
    var oldest: UInt32 = 0
    let asked = options.isFixed ? nil : request.timeToLiveSeconds
    if let asked {
      report.longestTimeToLiveSeconds = max(report.longestTimeToLiveSeconds ?? 0, asked)
    }
    if let life = asked ?? options.timeToLiveSeconds[request.format], time > life {
      oldest = UInt32(clamping: Int(time - life))
    }
    let found = blocks.use(request.prompt, seed: seed, time: seconds, oldest: oldest)
    let chains = self.chains(request, seed: seed)
    place(request, chains, found, Moment(source: source, line: line, time: time))
  }

  private struct Moment {
    var source: Int
    var line: Int
    var time: Double
  }

  private func chains(_ request: PromptRequest, seed: UInt64) -> [UInt64] {
    var chain = seed
    return request.parts.map { part in
      chain = ByteHasher.combined(chain, part.hash)
      return chain
    }
  }

  // MARK: - Where a request belongs

  private mutating func place(
    _ request: PromptRequest,
    _ chains: [UInt64],
    _ found: PrefixBlocks.Found,
    _ moment: Moment
  ) {
    let all = chains.count
    for count in stride(from: all, to: 0, by: -1) {
      guard var record = whole[chains[count - 1]] else { continue }
      let conversation = Int(record.conversation)
      if count == all {
        // Sent once more.
        record.count += 1
        whole[chains[count - 1]] = record
        return step(request, chains, conversation, found, request.prompt.count, [], moment)
      }
      guard record.childCount < record.count else { break }
      record.childCount += 1
      whole[chains[count - 1]] = record
      let known = request.parts[count - 1].range.upperBound
      var changes: [RequestChange] = []
      if tails[conversation].latest != nil {
        changes = ChangeFinder.attachedAgain(request, from: count)
      }
      let goesOn = tails[conversation].chain == chains[count - 1]
      let place = goesOn ? conversation : begin()
      return step(request, chains, place, found, known, changes, moment, from: conversation)
    }
    // Of what only the server has nothing can be said but what comes before it: tools, instructions.
    if request.hasHiddenHistory { return beginBesideOthers(request, chains, found, moment) }
    let candidate = self.candidate(request)
    guard let candidate, let latest = tails[candidate.conversation].latest else {
      return beginBesideOthers(request, chains, found, moment)
    }
    let comparison = RequestComparison(
      from: latest,
      to: request,
      foundByteCount: found.presentByteCount
    )
    // Something was changed in what was sent before; or it is the same front, and another conversation.
    let goesOn = comparison.relation == .changed || comparison.relation == .appended
    // The same prompt to another model: a switch, unless the conversation goes on with the first one as well.
    let isTwin = comparison.changes.allSatisfy(\.isWhole) && request.prompt == latest.prompt
    let isSame = goesOn && candidate.isSame && !isTwin
    if isSame { whole[tails[candidate.conversation].chain]?.childCount += 1 }
    let place = isSame ? candidate.conversation : begin()
    step(
      request,
      chains,
      place,
      found,
      comparison.commonByteCount,
      comparison.changes,
      moment,
      from: candidate.conversation,
      freshFrom: goesOn ? start(of: comparison.appended, in: request) : nil,
      twin: isTwin ? tails[candidate.conversation].chain : nil
    )
  }

  /// The conversation with which a request shares most of its messages.
  private func candidate(_ request: PromptRequest) -> (conversation: Int, isSame: Bool)? {
    var votes: [Int: (tokenCount: Int, count: Int)] = [:]
    var (tokenCount, count) = (0, 0)
    func vote(_ conversation: Int32, _ part: RequestPart) {
      let so = votes[Int(conversation)] ?? (0, 0)
      votes[Int(conversation)] = (so.tokenCount + part.tokenCount, so.count + 1)
    }
    for part in request.parts where part.role != .tool && part.role != .system {
      tokenCount += part.tokenCount
      count += 1
      guard let seen = messages[part.hash] else { continue }
      vote(seen.latest, part)
      if seen.before >= 0 { vote(seen.before, part) }
    }
    let best = votes.filter { tails[$0.key].latest != nil }
      .max { ($0.value.tokenCount, $0.key) < ($1.value.tokenCount, $1.key) }
    guard let best else { return nil }
    let tail = tails[best.key]
    let least = min(tokenCount, tail.messageTokenCount)
    // Most of the messages, though a long one among them is another.
    let isMost =
      best.value.count >= 3 && best.value.count * 2 >= max(count, tail.messageCount)
    guard isMost || best.value.tokenCount * 8 >= least else { return nil }
    // Another agent that is shown a message or two of this conversation.
    let isLittle = best.value.count < 3 || best.value.tokenCount * 2 < tail.messageTokenCount
    if isLittle, let latest = tail.latest, !sharesFront(latest, request, least: 0) { return nil }
    return (best.key, isMost || best.value.tokenCount * 4 >= least)
  }

  /// The first request of a conversation: its front beside the nearest one.
  private mutating func beginBesideOthers(
    _ request: PromptRequest,
    _ chains: [UInt64],
    _ found: PrefixBlocks.Found,
    _ moment: Moment
  ) {
    var votes: [Int: Int] = [:]
    for (hash, weight) in frontHashes(request) {
      if let seen = fronts[hash] { votes[Int(seen), default: 0] += weight }
    }
    for hash in questionHashes(request) + frontEdges(request) {
      if let seen = fronts[hash] { votes[Int(seen), default: 0] += Self.edgeByteCount }
    }
    let best = votes.filter { tails[$0.key].latest != nil }
      .max { ($0.value, $0.key) < ($1.value, $1.key) }
    guard let best, let latest = tails[best.key].latest else {
      return step(request, chains, begin(), found, 0, [], moment)
    }
    let comparison = RequestComparison(
      from: latest,
      to: request,
      foundByteCount: found.presentByteCount
    )
    let front = frontEnd(request)
    let isSame = !request.hasHiddenHistory && isSameQuestion(latest, request)
    // Less than half of the front in common: another agent.
    let isOther = !isSame && !sharesFront(latest, request, least: 0.5)
    var changes = isOther ? [] : comparison.changes
    if !isSame { changes = changes.compactMap { frontChange($0, request, front) } }
    if isSame { whole[tails[best.key].chain]?.childCount += 1 }
    let place = isSame ? best.key : begin()
    step(
      request,
      chains,
      place,
      found,
      comparison.commonByteCount,
      changes,
      moment,
      from: best.key,
      freshFrom: isSame ? start(of: comparison.appended, in: request) : nil
    )
  }

  /// A change in the front of a request that begins a conversation, or one before what stays in its first message.
  private func frontChange(
    _ change: RequestChange,
    _ request: PromptRequest,
    _ front: Int
  ) -> RequestChange? {
    guard change.position < front else {
      return request.hasHiddenHistory ? nil : staticTail(change, request)
    }
    // Little that stayed behind much that is new: other rules, and no edit.
    let isOtherText =
      change.kind == .edited
      && TokenEstimate.count(request.text(at: change)) > 4 * change.tokensLost
    return isOtherText ? nil : change
  }

  /// What two conversations have in common in their first messages, behind something that differs.
  private func staticTail(_ change: RequestChange, _ request: PromptRequest) -> RequestChange? {
    let first = request.parts.first { $0.role != .tool && $0.role != .system }
    guard let first, first.range.contains(change.position), change.tokensLost >= 64,
      change.tokensLost * 2 >= first.tokenCount
    else { return nil }
    var change = change
    if change.kind == .edited { change.kind = .dynamicBeforeStatic }
    return change
  }

  /// The first messages of two requests are one message, changed a little, and the later request goes on.
  private func isSameQuestion(_ a: PromptRequest, _ b: PromptRequest) -> Bool {
    guard let first = a.parts.first(where: { $0.role != .tool && $0.role != .system }),
      let second = b.parts.first(where: { $0.role != .tool && $0.role != .system }),
      b.parts.count > a.parts.count
    else { return false }
    return TextSimilarity.value(a.prompt, first.range, b.prompt, second.range) >= 0.7
  }

  // MARK: - Fronts

  private func frontEnd(_ request: PromptRequest) -> Int {
    request.parts.first { $0.role != .tool && $0.role != .system }?.range.lowerBound
      ?? request.prompt.count
  }

  /// Whether two requests have more than a share of their fronts in common: by whole tools and lines, else by both ends.
  private func sharesFront(_ a: PromptRequest, _ b: PromptRequest, least: Double) -> Bool {
    let (first, second) = (frontHashes(a), frontHashes(b))
    guard !first.isEmpty, !second.isEmpty else { return first.isEmpty && second.isEmpty }
    let known = Set(second.map(\.hash))
    let common = first.reduce(0) { $0 + (known.contains($1.hash) ? $1.weight : 0) }
    let all = min(first.reduce(0) { $0 + $1.weight }, second.reduce(0) { $0 + $1.weight })
    if common > 0, Double(common) >= least * Double(all) { return true }
    // A prompt of one line has no line in common with what it becomes: by its two ends.
    let (one, other) = (0..<frontEnd(a), 0..<frontEnd(b))
    let front = TextSimilarity.commonPrefix(a.prompt, one, b.prompt, other)
    let back = TextSimilarity.commonSuffix(
      a.prompt,
      one.dropFirst(front),
      b.prompt,
      other.dropFirst(front)
    )
    return (front + back) * 2 >= max(one.count, other.count)
  }

  /// Tools, and lines of system prompts; the paragraphs of a prompt that is one text.
  private func frontHashes(_ request: PromptRequest) -> [(hash: UInt64, weight: Int)] {
    var result: [(UInt64, Int)] = []
    for part in request.parts {
      switch part.role {
      case .tool: result.append((part.hash, part.range.count))
      case .system:
        // Without the marks of a template, which all prompts have.
        for piece in request.pieces[part.pieces] where piece.kind != .field {
          for line in LineChanges.lines(request.prompt, piece.range) {
            let text = LineChanges.trimmed(request.prompt, line)
            if text.count >= 8 {
              result.append((ByteHasher.hash(request.prompt, text), text.count))
            }
          }
        }
      default:
        guard request.format == .completion, part.role == .other else { return result }
        result.append((part.hash, part.range.count))
      }
    }
    return result
  }

  /// Bytes at both ends of a first message by which it is found again when it was changed in between.
  private static let edgeByteCount = 48

  private func questionHashes(_ request: PromptRequest) -> [UInt64] {
    guard let first = request.parts.first(where: { $0.role != .tool && $0.role != .system }),
      first.range.count >= 2 * Self.edgeByteCount
    else { return [] }
    let (start, end) = (first.range.lowerBound, first.range.upperBound)
    return [
      ByteHasher.hash(request.prompt, start..<start + Self.edgeByteCount),
      ~ByteHasher.hash(request.prompt, end - Self.edgeByteCount..<end),
    ]
  }

  /// The same of the system prompt: of one long line only a part may be left.
  private func frontEdges(_ request: PromptRequest) -> [UInt64] {
    let systems = request.parts.filter { $0.role == .system }
    guard let first = systems.first, let last = systems.last,
      first.range.count >= 3 * Self.edgeByteCount
    else { return [] }
    let (start, end) = (first.range.upperBound, last.range.upperBound)
    return [
      ByteHasher.hash(request.prompt, start - Self.edgeByteCount..<start),
      ~ByteHasher.hash(request.prompt, end - Self.edgeByteCount..<end),
      ByteHasher.hash(
        request.prompt,
        first.range.lowerBound..<first.range.lowerBound + Self.edgeByteCount
      ),
    ]
  }

  private func frontHash(_ request: PromptRequest) -> UInt64 {
    ByteHasher.hash(request.prompt, 0..<frontEnd(request))
  }

  // MARK: - Steps

  private mutating func begin() -> Int {
    tails.append(Conversation())
    report.conversations.append(LogConversation(number: tails.count))
    return tails.count - 1
  }

  /// Enters a request as the next step of a conversation.
  private mutating func step(
    _ request: PromptRequest,
    _ chains: [UInt64],
    _ conversation: Int,
    _ found: PrefixBlocks.Found,
    _ knownByteCount: Int,
    _ changes: [RequestChange],
    _ moment: Moment,
    from origin: Int? = nil,
    freshFrom: Int? = nil,
    twin: UInt64? = nil
  ) {
    let isFirst = report.conversations[conversation].steps.isEmpty
    let origin = origin ?? conversation
    // Known to the byte from the request before, in whole blocks from all others.
    let present = max(found.presentByteCount, knownByteCount)
    let isExpired = found.byteCount < found.presentByteCount
    let foundByteCount = isExpired ? found.byteCount : present
    var findings = changes
    let foundTokenCount = TokenEstimate.count(request.prompt, 0..<foundByteCount)
    if isExpired, !isFirst {
      // Whatever else was changed: nothing was left to be found.
      let count = TokenEstimate.count(request.prompt, foundByteCount..<present)
      findings = [pause(request, count, foundByteCount)]
    }
    var isExact = false
    if !findings.isEmpty, let review, let latest = tails[origin].latest,
      let counts = review(moment.line, latest, request, findings)
    {
      isExact = true
      for (index, count) in counts.prefix(findings.count).enumerated() {
        findings[index].tokensLost = count
      }
      findings.removeAll { $0.tokensLost == 0 }
    }
    let lost = findings.reduce(0) { $0 + $1.tokensLost }
    let tokenCount = request.tokenCount
    let previous = tails[origin]
    for change in findings {
      report.findings.append(
        LogFinding(
          source: moment.source,
          line: moment.line,
          previousLine: previous.source == moment.source ? previous.line : 0,
          conversation: conversation + 1,
          step: report.conversations[conversation].steps.count + 1,
          isBetweenConversations: isFirst,
          change: change,
          isExact: isExact,
          otherFront: isFirst ? previous.front : nil,
          twin: twin
        )
      )
    }
    report.tokenCount += tokenCount
    report.foundTokenCount += min(foundTokenCount, tokenCount)
    note(request, conversation, previous, isFirst, freshFrom ?? knownByteCount, moment)
    report.conversations[conversation].steps.append(
      LogStep(
        source: moment.source,
        line: moment.line,
        tokenCount: tokenCount,
        foundTokenCount: min(foundTokenCount, tokenCount),
        lostTokenCount: min(lost, max(0, tokenCount - foundTokenCount)),
        time: moment.time
      )
    )
    keep(request, chains, conversation, moment, isFirst)
  }

  private func start(of parts: Range<Int>, in request: PromptRequest) -> Int {
    parts.isEmpty ? request.prompt.count : request.parts[parts.lowerBound].range.lowerBound
  }

  private func pause(
    _ request: PromptRequest,
    _ tokensLost: Int,
    _ position: Int
  ) -> RequestChange {
    RequestChange(
      kind: .resumedAfterPause,
      shape: nil,
      path: "",
      start: 0,
      end: 0,
      previousPath: nil,
      now: "",
      was: "",
      tokensLost: tokensLost,
      position: position,
      context: 0,
      node: request.body,
      previousNode: nil
    )
  }

  /// What an audit asks of a step.
  private mutating func note(
    _ request: PromptRequest,
    _ conversation: Int,
    _ previous: Conversation,
    _ isFirst: Bool,
    _ freshFrom: Int,
    _ moment: Moment
  ) {
    if let last = report.conversations[conversation].steps.last, last.time > 0, moment.time > 0 {
      report.conversations[conversation].longestPause = max(
        report.conversations[conversation].longestPause,
        moment.time - last.time
      )
    }
    if !isFirst, previous.front != frontHash(request) {
      report.conversations[conversation].hasStaticSystemPrompt = false
    }
    for piece in request.pieces where piece.range.lowerBound >= freshFrom {
      switch piece.kind {
      case .result:
        let count = TokenEstimate.count(request.prompt, piece.range)
        report.conversations[conversation].toolResultCount += 1
        report.conversations[conversation].toolResultTokenCount += count
        report.conversations[conversation].largestToolResultTokenCount = max(
          report.conversations[conversation].largestToolResultTokenCount,
          count
        )
      case .callArguments: noteCall(request, piece, conversation)
      default: break
      }
    }
  }

  private mutating func noteCall(
    _ request: PromptRequest,
    _ piece: RequestPiece,
    _ conversation: Int
  ) {
    // The name stands before the arguments or behind them.
    let near = request.pieces.filter {
      $0.kind == .callName
        && abs($0.range.lowerBound - piece.range.lowerBound) <= piece.range.count + 256
    }
    let name = near.min {
      abs($0.range.lowerBound - piece.range.lowerBound)
        < abs($1.range.lowerBound - piece.range.lowerBound)
    }
    let canonical = ByteHasher.combined(
      name?.hash ?? 0,
      CanonicalJSON.hash(Array(request.prompt[piece.range]))
    )
    report.conversations[conversation].toolCallCount += 1
    if let before = tails[conversation].calls.updateValue(piece.hash, forKey: canonical) {
      if before == piece.hash {
        report.conversations[conversation].repeatedToolCallCount += 1
      } else {
        report.conversations[conversation].equivalentToolCallCount += 1
      }
    }
  }

  /// Keeps what the next requests are compared with.
  private mutating func keep(
    _ request: PromptRequest,
    _ chains: [UInt64],
    _ conversation: Int,
    _ moment: Moment,
    _ isFirst: Bool
  ) {
    let number = Int32(conversation)
    if let last = chains.last, whole[last] == nil {
      whole[last] = Whole(conversation: number, count: 1, childCount: 0)
    }
    let front = frontHash(request)
    if isFirst { frontUses[front] = conversation }
    if tails[conversation].front != front || isFirst {
      for (hash, _) in frontHashes(request) { fronts[hash] = number }
      for hash in questionHashes(request) + frontEdges(request) { fronts[hash] = number }
    }
    var (messageTokenCount, messageCount) = (0, 0)
    for part in request.parts where part.role != .tool && part.role != .system {
      messageTokenCount += part.tokenCount
      messageCount += 1
      if let seen = messages[part.hash] {
        if seen.latest != number { messages[part.hash] = (number, seen.latest) }
      } else {
        messages[part.hash] = (number, -1)
      }
    }
    keptByteCount += size(request) - size(tails[conversation].latest)
    tails[conversation].latest = request
    tails[conversation].chain = chains.last ?? 0
    tails[conversation].line = moment.line
    tails[conversation].source = moment.source
    tails[conversation].front = front
    tails[conversation].messageTokenCount = messageTokenCount
    tails[conversation].messageCount = messageCount
    while keptByteCount > options.keptByteCountMax, oldestKept < tails.count - 1 {
      if oldestKept != conversation, tails[oldestKept].latest != nil {
        keptByteCount -= size(tails[oldestKept].latest)
        tails[oldestKept].latest = nil
        report.forgottenConversationCount += 1
      }
      oldestKept += 1
    }
  }

  private func size(_ request: PromptRequest?) -> Int {
    guard let request else { return 0 }
    return request.document.bytes.count + request.prompt.count + request.document.nodes.count * 20
      + request.pieces.count * 56
  }
}
