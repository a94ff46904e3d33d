import KVAdmin
import KVCore
import KVReplaySupport
import KVStore
import Testing

@Suite struct SessionTests {
  private static func tokens(_ range: Range<Int>) -> [UInt32] { range.map { UInt32($0) } }

  /// One step: match, compute the rest, offload all of it.
  private func step(_ session: Session, _ namespace: Namespace, _ tokens: [UInt32]) throws {
    let result = try Prompt.with(tokens) { (prompt) throws(StoreError) in try session.match(prompt)
    }
    try namespace.offload(
      Array(tokens.prefix(tokens.count / 4 * 4)),
      from: min(result.blockCount, tokens.count / 4 - 1)
    )
    #expect(try session.step() != nil)
  }

  @Test func anAgentThatAppendsHitsNearlyAll() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([4096]))
    let session = try namespace.beginSession("agent")
    for turn in 1...6 { try step(session, namespace, Self.tokens(0..<turn * 100)) }
    try session.end()
    #expect(throws: StoreError.closed) { try session.step() }
    try fixture.reopen()
    let found = try #require(try fixture.store.inspector.sessions().first)
    #expect(found.name == "agent")
    #expect(found.isEnded)
    #expect(found.id == session.id)
    #expect(found.namespace == namespace.id)
    #expect(found.steps.map(\.number) == Array(1...6))
    #expect(found.steps.map(\.tokenCount) == (1...6).map { $0 * 100 })
    #expect(found.steps.map(\.matchedTokenCount) == (0..<6).map { $0 * 100 })
    #expect(found.steps.map(\.computedTokenCount) == [Int](repeating: 100, count: 6))
    #expect(found.steps.map(\.commonTokenCount) == (0..<6).map { $0 * 100 })
    #expect(found.steps.dropFirst().allSatisfy { $0.cause == .appended })
    #expect(found.tokenCount == 2100)
    #expect(found.matchedTokenCount == 1500)
    #expect(found.computedTokenCount == 600)
  }

  @Test func aPrefixThatBreaksIsNamed() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([4096]))
    let session = try namespace.beginSession()
    for turn in 1...3 {
      // A counter at token 10 changes with every step.
      var tokens = Self.tokens(0..<turn * 100)
      tokens[10] = 1_000_000 + UInt32(turn)
      try step(session, namespace, tokens)
    }
    // The prompt of the third step again, but what was stored of it has left.
    var third = Self.tokens(0..<300)
    third[10] = 1_000_003
    _ = try namespace.forget(Array(third[..<200]))
    try step(session, namespace, third)
    try fixture.store.flush()
    let steps = try #require(try fixture.store.inspector.session(session.id)).steps
    #expect(steps.map(\.matchedTokenCount) == [0, 8, 8, 196])
    #expect(steps.map(\.commonTokenCount) == [0, 10, 10, 300])
    #expect(steps.map(\.cause) == [.appended, .edited, .edited, .forgotten])
  }

  @Test func aFirstStepIsNamedByWhatIsStored() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([4096]))
    try step(try namespace.beginSession(), namespace, Self.tokens(0..<300))
    try fixture.store.flush()
    // Another session, whose front was edited.
    let second = try namespace.beginSession()
    try step(second, namespace, Self.tokens(0..<100) + [1, 2, 3] + Self.tokens(103..<300))
    // And another conversation, which forks from none: it begins as the first one did.
    let third = try namespace.beginSession()
    try step(third, namespace, Self.tokens(5_000..<5_200))
    try fixture.store.flush()
    let causes = try [second, third].map {
      try #require(try fixture.store.inspector.session($0.id)).steps.map(\.cause)
    }
    #expect(causes == [[.edited], [.appended]])
  }

  /// A file that is attached once more breaks nothing, but is computed once more; a phrase of it is no file.
  @Test func aFileSentOnceMoreIsNamed() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([4096]))
    let session = try namespace.beginSession()
    let file = Self.tokens(1_000..<1_100)
    var prompt = Self.tokens(0..<50) + file + Self.tokens(200..<210)
    try step(session, namespace, prompt)
    prompt += Self.tokens(300..<330) + file
    try step(session, namespace, prompt)
    prompt += Self.tokens(400..<430) + file.prefix(40)
    try step(session, namespace, prompt)
    try fixture.store.flush()
    let steps = try #require(try fixture.store.inspector.session(session.id)).steps
    #expect(steps.map(\.cause) == [.appended, .elsewhere, .appended])
    #expect(steps.map(\.commonTokenCount) == [0, 160, 290])
    let compared = PromptComparison(prompt, Array(prompt.prefix(190)), tokensPerBlock: 4)
    #expect(compared.cause == .elsewhere)
  }

  @Test func touchKeepsThePrefix() throws {
    let fixture = try StoreFixture {
      $0.capacityBytes = 72 << 20
      $0.catalogBytes = 32 << 20
    }
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([1 << 20]))
    let session = try namespace.beginSession()
    #expect(try session.touch() == 0)
    let kept = Self.tokens(0..<16)
    try step(session, namespace, kept)
    for filler in 1...30 {
      try namespace.offload(Self.tokens(filler * 1000..<filler * 1000 + 16))
      #expect(try session.touch() == 4)
      try fixture.store.flush()
    }
    #expect(try namespace.peek(kept) == 4)
    #expect(try namespace.peek(Self.tokens(1000..<1016)) == 0)
  }

  /// Blocks live for a minute after a use, the session's for an hour after its last step.
  @Test func aSessionsTimeToLiveOutlastsItsBlocks() throws {
    let clock = ManualClock()
    let fixture = try StoreFixture { $0.clock = clock }
    let limits = NamespaceLimits(timeToLive: .idle(nanoseconds: 60_000_000_000))
    let identity = StoreFixture.identity([4096])
    let namespace = try fixture.store.openNamespace(identity, limits: limits)
    let session = try namespace.beginSession()
    #expect(try session.keep(nanoseconds: 3600_000_000_000) == 0)
    let kept = Self.tokens(0..<40)
    try step(session, namespace, kept)
    let other = kept.prefix(20) + Self.tokens(100..<120)
    try namespace.offload(Array(other))
    try fixture.store.flush()
    clock.advance(seconds: 3600)
    try fixture.store.reclaimExpired()
    #expect(try namespace.peek(kept) == 10)
    // What the other branch has alone was nobody's.
    #expect(try namespace.peek(Array(other)) == 5)
    // Another process reads the same from the catalog.
    try fixture.reopen()
    let reopened = try fixture.store.openNamespace(identity)
    #expect(try reopened.peek(kept) == 10)
    clock.advance(seconds: 1)
    #expect(try reopened.peek(kept) == 0)
  }

  @Test func aKeepAliveCountsFromItsOwnTime() throws {
    let clock = ManualClock()
    let fixture = try StoreFixture { $0.clock = clock }
    let limits = NamespaceLimits(timeToLive: .idle(nanoseconds: 60_000_000_000))
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([4096]), limits: limits)
    let session = try namespace.beginSession()
    let kept = Self.tokens(0..<40)
    try step(session, namespace, kept)
    clock.advance(seconds: 50)
    #expect(try session.keep(nanoseconds: 600_000_000_000) == 10)
    clock.advance(seconds: 500)
    #expect(try session.touch() == 10)
    clock.advance(seconds: 600)
    #expect(try namespace.peek(kept) == 10)
    // From now on a use is worth a minute again, and takes nothing away.
    #expect(try session.keep(nanoseconds: 0) == 0)
    #expect(try session.touch() == 10)
    clock.advance(seconds: 61)
    #expect(try namespace.peek(kept) == 0)
    #expect(throws: StoreError.closed) {
      try session.end()
      try session.keep(nanoseconds: 1)
    }
  }

  @Test func anAbsoluteEndIsKept() throws {
    let clock = ManualClock()
    let fixture = try StoreFixture { $0.clock = clock }
    let limits = NamespaceLimits(timeToLive: .absolute(nanoseconds: 60_000_000_000))
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([4096]), limits: limits)
    let session = try namespace.beginSession()
    try session.keep(nanoseconds: 3600_000_000_000)
    try step(session, namespace, Self.tokens(0..<40))
    clock.advance(seconds: 61)
    #expect(try namespace.peek(Self.tokens(0..<40)) == 0)
  }

  @Test func onlySoManyAreKept() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([4096]))
    var last: UInt64 = 0
    for _ in 0..<1_100 {
      let session = try namespace.beginSession()
      #expect(session.id > last)
      last = session.id
      try session.end()
    }
    try fixture.store.flush()
    let kept = try fixture.store.inspector.sessions()
    #expect(kept.count == 1_024)
    #expect(kept.last?.id == last)
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  @Test func aSmallCatalogKeepsFewer() throws {
    let fixture = try StoreFixture { $0.catalogBytes = 1 << 20 }
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([4096]))
    var last: UInt64 = 0
    for _ in 0..<40 {
      let session = try namespace.beginSession()
      for _ in 0..<20 {
        _ = try Prompt.with(Self.tokens(0..<40)) { (prompt) throws(StoreError) in
          try session.match(prompt)
        }
        _ = try session.step()
      }
      last = session.id
    }
    try fixture.store.flush()
    // A 32nd of 1 MiB, 120 bytes a row: 273 rows, 21 of each session.
    let kept = try fixture.store.inspector.sessions()
    #expect(kept.count == 13)
    #expect(kept.last?.id == last)
    #expect(kept.allSatisfy { $0.steps.count == 20 })
  }

  @Test func aStepWithoutAMatchIsNone() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([4096]))
    let session = try namespace.beginSession()
    #expect(try session.step() == nil)
    _ = try Prompt.with(Self.tokens(0..<40)) { (prompt) throws(StoreError) in
      try session.match(prompt, options: .peek)
    }
    #expect(try session.step() == nil)
    #expect(throws: StoreError.invalidArgument(.sessionName)) {
      try namespace.beginSession(String(repeating: "x", count: 65))
    }
  }
}
