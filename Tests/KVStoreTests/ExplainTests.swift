import KVAdmin
import KVCore
import KVReplaySupport
import KVStore
import Testing

/// What people do to their prompts, through the real store, and what the store says of each.
@Suite struct ExplainTests {
  // MARK: Prompts

  /// Words as token ids: the same word is the same token.
  private static func tokens(_ text: String) -> [UInt32] {
    text.split { $0 == " " || $0 == "\n" }.map { word in
      word.utf8.reduce(UInt32(2_166_136_261)) { ($0 ^ UInt32($1)) &* 16_777_619 }
    }
  }

  /// So many words that stand nowhere else.
  private static func text(_ name: String, _ count: Int) -> String {
    (0..<count).map { "\(name)\($0)" }.joined(separator: " ")
  }

  private static let rules = text("rule", 80)
  private static let tools = text("tool", 60)
  private static let front = rules + " " + tools
  private static let messages = (1...5).map { text("message\($0)-", 40) }

  private static func thread(_ messages: [String], front: String = front) -> [UInt32] {
    tokens(([front] + messages).joined(separator: " "))
  }

  private func store(
    _ change: (inout StoreConfiguration) -> Void = { _ in }
  ) throws -> (StoreFixture, Namespace) {
    let fixture = try StoreFixture(change)
    return (fixture, try fixture.store.openNamespace(StoreFixture.identity([4096])))
  }

  private func keep(_ namespace: Namespace, _ fixture: StoreFixture, _ prompts: [[UInt32]]) throws {
    for prompt in prompts { try namespace.offload(Array(prompt.prefix(prompt.count / 4 * 4))) }
    try fixture.store.flush()
  }

  // MARK: The fixture

  @Test func anAppendedTurnLosesNothing() throws {
    let (fixture, namespace) = try store()
    let stored = Self.thread(Self.messages)
    try keep(namespace, fixture, [stored])
    let answer = try namespace.explain(stored + Self.tokens(Self.text("turn", 24)))
    #expect(answer.cause == .appended)
    #expect(answer.matchedTokenCount == stored.count)
    #expect(answer.lostTokenCount == 0)
    #expect(answer.message.contains("only what is new is computed"))
  }

  @Test(arguments: [2, 4])
  func anEditedMessageLosesAllBehindIt(number: Int) throws {
    let (fixture, namespace) = try store()
    let stored = Self.thread(Self.messages)
    try keep(namespace, fixture, [stored])
    var messages = Self.messages
    messages[number - 1] = Self.text("other", 30)
    let answer = try namespace.explain(Self.thread(messages))
    #expect(answer.cause == .edited)
    #expect(answer.divergenceToken == 140 + (number - 1) * 40)
    #expect(answer.storedTokenCount == 40)
    #expect(answer.promptTokenCount == 30)
    #expect(answer.lostTokenCount == (5 - number) * 40)
    #expect(answer.message.contains("something was edited"))
    #expect(answer.message.contains("Append a correction"))
  }

  @Test func anAppendedCorrectionLosesNothing() throws {
    let (fixture, namespace) = try store()
    let stored = Self.thread(Self.messages)
    try keep(namespace, fixture, [stored])
    let answer = try namespace.explain(
      stored + Self.tokens("correction: I meant the other file please")
    )
    #expect(answer.cause == .appended)
    #expect(answer.matchedTokenCount == stored.count)
  }

  @Test func aForkKeepsTheSharedPart() throws {
    let (fixture, namespace) = try store()
    try keep(namespace, fixture, [Self.thread(Self.messages)])
    let fork = Self.messages[..<3] + [Self.text("another", 60)]
    let answer = try namespace.explain(Self.thread(Array(fork)))
    #expect(answer.cause == .forked)
    #expect(answer.matchedTokenCount == 140 + 3 * 40)
    #expect(answer.branchCount == 1)
    #expect(answer.branches.first?.nextTokens.first == Self.tokens("message4-0").first)
    #expect(answer.message.contains("The shared front stays stored"))
  }

  @Test func anotherThreadHitsTheCommonFront() throws {
    let (fixture, namespace) = try store()
    try keep(
      namespace,
      fixture,
      [Self.thread(Self.messages), Self.thread([Self.text("second", 90)])]
    )
    let answer = try namespace.explain(Self.thread([Self.text("third", 90)]))
    #expect(answer.cause == .forked)
    #expect(answer.matchedTokenCount == 140)
    #expect(answer.branchCount == 2)
    #expect(answer.lostTokenCount == 0)
  }

  @Test func anotherModelIsAnotherNamespace() throws {
    let (fixture, namespace) = try store()
    let stored = Self.thread(Self.messages)
    try keep(namespace, fixture, [stored])
    let other = try fixture.store.openNamespace(
      StoreFixture.identity([4096]) {
        $0.modelName = "other"
        $0.kvDtype = "bf16"
      }
    )
    let answer = try other.explain(stored)
    #expect(answer.cause == .otherNamespace)
    #expect(answer.matchedTokenCount == 0)
    #expect(answer.otherNamespace == namespace.id)
    #expect(answer.otherMatchedTokenCount == stored.count)
    #expect(answer.differences.map(\.field) == ["model name", "KV dtype"])
    #expect(answer.message.contains("differs in: model name, KV dtype"))
  }

  @Test func aTimestampAtTheTopIsNamedAsVolatile() throws {
    let (fixture, namespace) = try store()
    let prompts = (0..<4).map { minute in
      Self.tokens("now it is 10:0\(minute) o'clock ") + Self.thread(Self.messages)
    }
    try keep(namespace, fixture, [prompts[0]])
    // One stored prompt alone may as well have been edited.
    let second = try namespace.explain(prompts[1])
    #expect(second.cause == .edited)
    #expect(second.message.contains("near the front"))
    try keep(namespace, fixture, [prompts[1], prompts[2]])
    let fourth = try namespace.explain(prompts[3])
    #expect(fourth.cause == .volatileValue)
    #expect(fourth.matchedTokenCount == 0)
    #expect(fourth.divergenceToken == 3)
    // Of 345 tokens the last one fills no block and was not stored.
    #expect(fourth.lostTokenCount == prompts[3].count - 4 - 1)
    #expect(fourth.message.contains("Move it to the end"))
  }

  @Test func aDeletedToolResultIsNamed() throws {
    let (fixture, namespace) = try store()
    try keep(namespace, fixture, [Self.thread(Self.messages)])
    var messages = Self.messages
    messages.remove(at: 2)
    let answer = try namespace.explain(Self.thread(messages))
    #expect(answer.cause == .deleted)
    #expect(answer.storedTokenCount == 40)
    #expect(answer.promptTokenCount == 0)
    #expect(answer.lostTokenCount == 80)
    #expect(answer.message.contains("left out"))
    #expect(answer.message.contains("Leave old messages where they are"))
  }

  @Test func aToolResultReplacedByATagIsAnEdit() throws {
    let (fixture, namespace) = try store()
    try keep(namespace, fixture, [Self.thread(Self.messages)])
    var messages = Self.messages
    messages[2] = "[tool result removed]"
    let answer = try namespace.explain(Self.thread(messages))
    #expect(answer.cause == .edited)
    #expect(answer.storedTokenCount == 40)
    #expect(answer.promptTokenCount == 3)
    #expect(answer.lostTokenCount == 80)
    #expect(answer.message.contains("40 tokens of the stored prompt are 3 tokens now"))
    #expect(answer.message.contains("Append a correction"))
  }

  @Test func oneWordInTheRulesCostsEverything() throws {
    let (fixture, namespace) = try store()
    let stored = Self.thread(Self.messages)
    try keep(namespace, fixture, [stored])
    let changed = Self.rules.replacing("rule7 ", with: "never ") + " " + Self.tools
    let answer = try namespace.explain(Self.thread(Self.messages, front: changed))
    #expect(answer.cause == .edited)
    #expect(answer.divergenceToken == 7)
    #expect(answer.storedTokenCount == 1)
    #expect(answer.promptTokenCount == 1)
    #expect(answer.lostTokenCount == stored.count - 8)
    #expect(answer.message.contains("keep rules and tools fixed"))
  }

  @Test func skillsInAnotherOrder() throws {
    let (fixture, namespace) = try store()
    let skills = ["alpha", "beta", "gamma"].map { Self.text($0, 50) }
    try keep(namespace, fixture, [Self.thread(skills + [Self.messages[0]], front: Self.rules)])
    let prompt = Self.thread(
      [skills[2], skills[0], skills[1], Self.messages[0]],
      front: Self.rules
    )
    let answer = try namespace.explain(prompt)
    #expect(answer.cause == .reordered)
    #expect(answer.matchedTokenCount == 80)
    #expect(answer.lostTokenCount >= 150)
    #expect(answer.message.contains("fixed order"))
  }

  @Test func jsonKeysInAnotherOrder() throws {
    let (fixture, namespace) = try store()
    let fields = [
      #""name" : "search" , "version" : 3 ,"#, #""description" : "find text in files" ,"#,
      #""parameters" : { "pattern" : "string" } ,"#,
    ]
    let rest = Self.messages[0]
    try keep(namespace, fixture, [Self.thread(fields + [rest], front: Self.rules)])
    let prompt = Self.thread([fields[1], fields[2], fields[0], rest], front: Self.rules)
    let answer = try namespace.explain(prompt)
    #expect(answer.cause == .reordered)
    #expect(answer.message.contains("JSON keys"))
  }

  @Test func theSameFileAttachedAgainLater() throws {
    let (fixture, namespace) = try store()
    let file = Self.text("line", 120)
    let stored = Self.thread([file, Self.messages[0]])
    try keep(namespace, fixture, [stored])
    // In the same thread: the file stands in the prompt's own front.
    let again = try namespace.explain(stored + Self.tokens(file))
    #expect(again.cause == .elsewhere)
    #expect(again.elsewhereDepth == 140)
    #expect(again.lostTokenCount == 120)
    // In another thread, behind other messages.
    let other = Self.thread(
      [Self.text("question", 50), file, Self.text("answer", 300)],
      front: Self.text("unlike", 60)
    )
    let elsewhere = try namespace.explain(other)
    #expect(elsewhere.cause == .elsewhere)
    #expect(elsewhere.elsewhereDepth == 140)
    #expect(elsewhere.lostTokenCount >= 112)
    #expect(elsewhere.message.contains("behind another prefix (they begin at token 140 there)"))
  }

  // MARK: What left

  private static let day: UInt64 = 86_400_000_000_000

  /// A thread that was left for three days, the store closed meanwhile.
  ///
  /// Whether an idle life ended then cannot be told from a clock that somebody set: it goes on until the next use.
  @Test(arguments: [
    TimeToLive.unlimited, .absolute(nanoseconds: 4 * day), .idle(nanoseconds: day),
  ])
  func aThreadReopenedAfterDaysComesFromDisk(life: TimeToLive) throws {
    let clock = ManualClock()
    let fixture = try StoreFixture { $0.clock = clock }
    let limits = NamespaceLimits(timeToLive: life)
    let identity = StoreFixture.identity([4096])
    let namespace = try fixture.store.openNamespace(identity, limits: limits)
    let stored = Self.thread(Self.messages)
    try keep(namespace, fixture, [stored])
    try fixture.whileClosed { clock.advance(nanoseconds: 3 * Self.day) }
    let reopened = try fixture.store.openNamespace(identity, limits: limits)
    let answer = try reopened.explain(stored)
    #expect(answer.cause == .stored)
    #expect(answer.matchedTokenCount == stored.count / 4 * 4)
    // Nothing of it is in RAM yet.
    let match = try reopened.match(stored)
    #expect(match.diskBlockCount == stored.count / 4)
    #expect(match.hostBlockCount == 0)
    #expect(try reopened.restore(stored).isRight)
    let turn = try reopened.explain(stored + Self.tokens(Self.text("turn", 24)))
    #expect(turn.cause == .appended)
    #expect(turn.lostTokenCount == 0)
  }

  /// The same thread, whose time to live was a day: gone, with the date, while its rows are there and when they have been removed.
  @Test func aThreadReopenedAfterDaysIsGoneByItsTimeToLive() throws {
    let clock = ManualClock()
    let fixture = try StoreFixture { $0.clock = clock }
    let limits = NamespaceLimits(timeToLive: .absolute(nanoseconds: Self.day))
    let identity = StoreFixture.identity([4096])
    let namespace = try fixture.store.openNamespace(identity, limits: limits)
    let stored = Self.thread(Self.messages)
    // The clock begins on 2027-01-15 at 08:00 UTC.
    let end = clock.realTimeNanoseconds() + Self.day
    try keep(namespace, fixture, [stored])
    try fixture.whileClosed { clock.advance(nanoseconds: 3 * Self.day) }
    // A reader removes nothing.
    try fixture.reopen { $0.readOnly = true }
    let reader = try fixture.store.openNamespace(identity)
    let gone = try reader.explain(stored)
    #expect(gone.cause == .expired)
    #expect(gone.leftNanoseconds == end)
    #expect(gone.matchedTokenCount == 0)
    #expect(gone.message.contains("time to live ended on 2027-01-16 08:00:00 UTC"))
    #expect(gone.message.contains("give it a longer time to live"))
    try fixture.reopen { $0.readOnly = false }
    _ = try fixture.store.collectGarbage()
    let reopened = try fixture.store.openNamespace(identity)
    let removed = try reopened.explain(stored)
    #expect(removed.cause == .expired)
    #expect(removed.message.contains("time to live ended, and it was removed on 2027-01-18 08:00"))
    // It is computed once more, and stays for its day.
    try keep(reopened, fixture, [stored])
    #expect(try reopened.explain(stored).cause == .stored)
  }

  /// A server that runs on for three days: an idle life ends a day after the last use.
  @Test func aThreadThatPausedForDaysIsGoneByItsIdleLife() throws {
    let clock = ManualClock()
    let fixture = try StoreFixture { $0.clock = clock }
    let namespace = try fixture.store.openNamespace(
      StoreFixture.identity([4096]),
      limits: NamespaceLimits(timeToLive: .idle(nanoseconds: Self.day))
    )
    let stored = Self.thread(Self.messages)
    try keep(namespace, fixture, [stored])
    // Used once more an hour later; kept alive it would be there still.
    clock.advance(seconds: 3600)
    #expect(try namespace.match(stored).tokenCount == stored.count)
    let reader = try namespace.explain(stored)
    #expect(reader.cause == .stored)
    clock.advance(nanoseconds: 3 * Self.day)
    _ = try fixture.store.collectGarbage()
    let gone = try namespace.explain(stored)
    #expect(gone.cause == .expired)
    #expect(gone.message.contains("removed on 2027-01-18 09:00"))
    #expect(gone.message.contains("Touch the prefix while the session pauses (keep-alive)"))
  }

  @Test(arguments: [
    TimeToLive.idle(nanoseconds: 3_600_000_000_000), .absolute(nanoseconds: 3_600_000_000_000),
  ])
  func whatExpiredIsNamedWithItsDate(life: TimeToLive) throws {
    let clock = ManualClock()
    let fixture = try StoreFixture { $0.clock = clock }
    let namespace = try fixture.store.openNamespace(
      StoreFixture.identity([4096]),
      limits: NamespaceLimits(timeToLive: life)
    )
    let stored = Self.thread(Self.messages)
    try keep(namespace, fixture, [stored])
    clock.advance(seconds: 3_500)
    #expect(try namespace.explain(stored).cause == .stored)
    clock.advance(seconds: 200)
    let answer = try namespace.explain(stored)
    #expect(answer.cause == .expired)
    #expect(answer.leftNanoseconds > 0)
    #expect(answer.message.contains("time to live ended on"))
    // After its room was taken back the events still tell.
    try fixture.store.flush()
    #expect(try namespace.peek(stored) == 0)
    #expect(try namespace.explain(stored).cause == .expired)
  }

  @Test func whatWasEvictedIsNamedWithItsDate() throws {
    let (fixture, namespace) = try store {
      $0.capacityBytes = 72 << 20
      $0.catalogBytes = 32 << 20
    }
    let big = try fixture.store.openNamespace(StoreFixture.identity([1 << 20]))
    let first = Self.thread([Self.messages[0]], front: "")
    try keep(big, fixture, [first])
    for number in 0..<4 {
      try keep(big, fixture, [Self.thread([Self.text("filler\(number)-", 40)], front: "")])
    }
    let answer = try big.explain(first)
    #expect(answer.cause == .evicted)
    #expect(answer.leftNanoseconds > 1_700_000_000_000_000_000)
    #expect(answer.message.contains("was evicted on 20"))
    // The history is durable: another open knows it too.
    try fixture.reopen()
    let reopened = try fixture.store.openNamespace(StoreFixture.identity([1 << 20]))
    #expect(try reopened.explain(first).cause == .evicted)
    withExtendedLifetime(namespace) {}
  }

  @Test func whatWasForgottenAndPurgedIsNamed() throws {
    let (fixture, namespace) = try store()
    let stored = Self.thread(Self.messages)
    try keep(namespace, fixture, [stored])
    _ = try namespace.forget(Array(stored[..<160]))
    let forgotten = try namespace.explain(stored)
    #expect(forgotten.cause == .forgotten)
    #expect(forgotten.matchedTokenCount == 156)
    _ = try namespace.purge()
    let purged = try namespace.explain(stored)
    #expect(purged.cause == .forgotten)
    #expect(purged.matchedTokenCount == 0)
    // Stored again, it is found again.
    try keep(namespace, fixture, [stored])
    #expect(try namespace.explain(stored).cause == .stored)
  }

  // MARK: Edges

  @Test func anUnrelatedPromptIsNotAFork() throws {
    let (fixture, namespace) = try store()
    try keep(
      namespace,
      fixture,
      [Self.thread(Self.messages), Self.thread([Self.text("second", 90)])]
    )
    for common in [0, 1, 3] {
      // As many tokens in common as a template has before the first message; no block holds them.
      let other =
        Array(Self.thread(Self.messages).prefix(common)) + Self.tokens(Self.text("unrelated", 200))
      let answer = try namespace.explain(other)
      #expect(answer.cause == .nothingStored)
      #expect(answer.matchedBlockCount == 0)
      #expect(answer.divergenceToken == common)
      #expect(!answer.message.contains("shared front"))
    }
  }

  @Test func nothingStoredAndPartialBlocks() throws {
    let (fixture, namespace) = try store()
    let stored = Self.thread(Self.messages)
    #expect(try namespace.explain(stored).cause == .nothingStored)
    #expect(throws: StoreError.invalidArgument(.noTokens)) { try namespace.explain([]) }
    #expect(try namespace.explain([1, 2, 3]).cause == .partialBlock)
    try keep(namespace, fixture, [stored])
    #expect(try namespace.explain(stored + [7]).cause == .partialBlock)
  }

  @Test func anotherSaltIsNotTold() throws {
    let (fixture, _) = try store()
    func open(_ salt: String, _ model: String) throws -> Namespace {
      try fixture.store.openNamespace(
        StoreFixture.identity([4096]) {
          $0.salt = Array(salt.utf8)
          $0.modelName = model
        }
      )
    }
    let stored = Self.thread(Self.messages)
    try keep(try open("tenant a", "model"), fixture, [stored])
    // Another tenant, and one without a salt, learn nothing; not even with the same model.
    for (salt, model) in [("tenant b", "model"), ("", "model"), ("tenant b", "other")] {
      let answer = try open(salt, model).explain(stored)
      #expect(answer.cause == .nothingStored)
      #expect(answer.otherNamespace == nil)
      #expect(answer.differences.isEmpty)
    }
    // The same tenant under another model is told which field it is.
    let own = try open("tenant a", "other").explain(stored)
    #expect(own.cause == .otherNamespace)
    #expect(own.differences.map(\.field) == ["model name"])
    // The store's owner sees all.
    let b = try open("tenant b", "model")
    let seen = try fixture.store.inspector.explain(b.id, stored)
    #expect(seen.cause == .otherNamespace)
    #expect(seen.differences.map(\.field) == ["salt"])
  }

  @Test func digestsAreExplainedByTheirBranches() throws {
    let (fixture, _) = try store()
    let namespace = try fixture.store.openNamespace(
      StoreFixture.identity([4096]) {
        $0.identityMode = .digest
        $0.digestByteCount = 32
      }
    )
    let chain = (0..<48).map { UInt32($0) }
    try namespace.offload(chain)
    try fixture.store.flush()
    var other = chain
    other[16] = 99
    let answer = try namespace.explain(other)
    #expect(answer.cause == .forked)
    #expect(answer.matchedBlockCount == 2)
    #expect(answer.branchCount == 1)
  }

  @Test func explainingLeavesNoTrace() throws {
    let (fixture, namespace) = try store()
    let stored = Self.thread(Self.messages)
    try keep(namespace, fixture, [stored])
    let before = try fixture.store.inspector.summary().transactionID
    for _ in 0..<10 { _ = try namespace.explain(Array(stored[..<100])) }
    try fixture.store.flush()
    #expect(try fixture.store.inspector.summary().transactionID == before)
    #expect(try fixture.store.statistics().matchCalls == 0)
    #expect(try fixture.store.statistics().leasesActive == 0)
  }
}

extension Namespace {
  func explain(_ tokens: [UInt32]) throws -> Explanation {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in try self.explain(prompt) }
  }
}
