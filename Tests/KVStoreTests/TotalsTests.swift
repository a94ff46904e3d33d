import Foundation
import KVAdmin
import KVCore
import KVReplaySupport
import KVStore
import Testing

/// What `inspect summary` says of a store's past: counters of all processes, prefixes that saved most, ages and depths.
@Suite struct TotalsTests {
  private static let identity = StoreFixture.identity([40_000, 24_000])
  private static let front = tokens(0..<40)

  private func prompt(_ number: Int) -> [UInt32] {
    Self.front + tokens(number * 1000..<number * 1000 + 8)
  }

  /// Counts of one opening after the other add up, and what was not committed alone is not written.
  @Test func countersOutliveTheProcess() throws {
    let fixture = try StoreFixture()
    for opening in 1...3 {
      let namespace = try fixture.store.openNamespace(Self.identity)
      try namespace.offload(prompt(opening))
      try fixture.store.flush()
      #expect(try namespace.match(prompt(opening)).blockCount == 12)
      #expect(try namespace.match(tokens(90_000..<90_008)).blockCount == 0)
      try fixture.reopen()
      let lifetime = try fixture.store.inspector.lifetime()
      #expect(lifetime.matchCalls == UInt64(2 * opening))
      #expect(lifetime.tokensAsked == UInt64(56 * opening))
      #expect(lifetime.tokensFound == UInt64(48 * opening))
      #expect(lifetime.blocksFoundHost + lifetime.blocksFoundDisk == UInt64(12 * opening))
      // The front once, and each prompt's own two blocks.
      let blockCount = UInt64(10 + 2 * opening)
      #expect(lifetime.blocksOffloaded == blockCount)
      #expect(lifetime.payloadBytesOffloaded == blockCount * 64_000)
      #expect(lifetime.diskBytesWritten >= blockCount * 64_000)
      #expect(lifetime.commits > 0)
      // At least a page of a table, the main one's and the meta page each.
      #expect(lifetime.catalogBytesWritten >= 3 * 4096 * (lifetime.commits - 1))
      #expect(lifetime.ioPath != .none)
    }
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  /// Peeks, and readers, leave no trace.
  @Test func lookingLeavesNoTrace() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    try namespace.offload(prompt(1))
    try fixture.store.flush()
    _ = try namespace.peek(prompt(1))
    try fixture.reopen { $0.readOnly = true }
    let reader = try fixture.store.openNamespace(Self.identity)
    #expect(try reader.match(prompt(1)).blockCount == 12)
    try fixture.reopen { $0.readOnly = false }
    #expect(try fixture.store.inspector.lifetime().matchCalls == 0)
    #expect(try fixture.store.inspector.topPrefixes(limit: 9).isEmpty)
  }

  @Test func thePrefixThatSavesMostIsFirst() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    for number in 1...3 { try namespace.offload(prompt(number)) }
    try fixture.store.flush()
    // The second and third begin runs of their own behind the front.
    for _ in 0..<5 { _ = try namespace.match(prompt(3)) }
    for _ in 0..<2 { _ = try namespace.match(prompt(2)) }
    try fixture.reopen()
    let again = try fixture.store.openNamespace(Self.identity)
    _ = try again.match(prompt(2))
    try fixture.reopen()
    let top = try fixture.store.inspector.topPrefixes(limit: 9)
    #expect(top.map(\.hitCount) == [5, 3])
    #expect(top.map(\.tokenCount) == [5 * 48, 3 * 48])
    #expect(top.map(\.tokenCountError) == [0, 0])
    #expect(top.map(\.blockCount) == [12, 12])
    #expect(top.first?.firstWords == Array(Self.front.prefix(4)))
    // What has left is not listed.
    let last = try fixture.store.openNamespace(Self.identity)
    _ = try last.forget(Array(prompt(3).prefix(44)))
    #expect(try fixture.store.inspector.topPrefixes(limit: 9).map(\.hitCount) == [3])
  }

  /// What is found before it is durable counts as well.
  @Test func hitsOfBlocksOnTheirWay() throws {
    let fixture = try StoreFixture { $0.commitIntervalNanoseconds = 500_000_000 }
    let namespace = try fixture.store.openNamespace(Self.identity)
    try namespace.offload(prompt(1))
    for _ in 0..<3 { _ = try namespace.match(prompt(1)) }
    try fixture.reopen()
    let top = try fixture.store.inspector.topPrefixes(limit: 9)
    #expect(top.map(\.hitCount) == [3])
    #expect(top.map(\.tokenCount) == [3 * 48])
  }

  /// More runs than are listed: those that saved much stay, with counts that are no lies.
  @Test func theListIsBoundedAndKeepsTheLargest() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([64]))
    let count = 120
    let prompts = (0..<count).map { tokens($0 * 1000..<$0 * 1000 + 8) }
    for prompt in prompts { try namespace.offload(prompt) }
    try fixture.store.flush()
    for (index, prompt) in prompts.enumerated() {
      for _ in 0..<(index % 40 == 7 ? 30 : 1) { _ = try namespace.match(prompt) }
      if index % 10 == 9 { try fixture.store.flush() }
    }
    try fixture.reopen()
    let top = try fixture.store.inspector.topPrefixes(limit: .max)
    #expect((1...40).contains(top.count))
    #expect(
      Set(top.prefix(3).map(\.firstWords)) == Set([7, 47, 87].map { Array(prompts[$0].prefix(4)) })
    )
    let total = try fixture.store.inspector.lifetime().tokensFound
    #expect(total == UInt64((count - 3 + 3 * 30) * 8))
    for prefix in top {
      let isLarge = prefix.firstWords[0] / 1000 % 40 == 7
      let truth: UInt64 = isLarge ? 30 * 8 : 8
      #expect(prefix.tokenCount >= truth)
      #expect(prefix.tokenCount - prefix.tokenCountError <= truth)
    }
  }

  @Test func agesAndDepths() throws {
    let clock = ManualClock()
    let fixture = try StoreFixture { $0.clock = clock }
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([64]))
    // 300 blocks of 4 tokens: 256 of them up to 1 Ki.
    try namespace.offload(tokens(0..<1200))
    try fixture.store.flush()
    clock.advance(seconds: 7200)
    // Behind 290 blocks, and at the front.
    try namespace.offload(tokens(0..<1160) + tokens(5000..<5040))
    try namespace.offload(tokens(7000..<7020))
    try fixture.store.flush()
    let survey = try fixture.store.inspector.survey(limit: .max)
    #expect(survey.isWhole)
    #expect(survey.blockCount == 315)
    #expect(survey.blockCountsByAge == [15, 0, 300, 0, 0, 0])
    #expect(survey.blockCountsByTokens == [256 + 5, 44 + 10, 0, 0, 0, 0])
    #expect(survey.tiers.map(\.blockCount) == [315])
    #expect(survey.tiers.map(\.payloadByteCount) == [315 * 64])
    let part = try fixture.store.inspector.survey(limit: 100)
    #expect(!part.isWhole)
  }

  @Test func whoHasItOpen() throws {
    let fixture = try StoreFixture()
    let owners = fixture.store.inspector.owners()
    #expect(owners.map(\.processID) == [getpid()])
    #expect(owners.first?.name.isEmpty == false)
  }

  /// A live process's memory, as another process reads it: from the shared file, without asking.
  @Test func whatItHoldsInMemory() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    try namespace.offload(prompt(1))
    try fixture.store.flush()
    _ = try namespace.match(prompt(1))
    var device: Device? = try namespace.attachDevice(slotCount: 9)
    // A second later at most.
    var memory = try #require(fixture.store.inspector.owners().first?.memory)
    for _ in 0..<600 where memory.hostBlockCount != 12 || memory.deviceSlotsCapacity != 9 {
      usleep(50_000)
      memory = try #require(fixture.store.inspector.owners().first?.memory)
    }
    #expect(memory.hostBlockCount == 12)
    #expect(memory.hostBytesUsed == (try fixture.store.statistics()).hostBytesUsed)
    #expect(memory.hostBytesUsed >= 12 * 64_000)
    #expect(memory.hostBytesCapacity == UInt64(fixture.configuration.hostBytes))
    #expect(memory.diskBytesCapacity == UInt64(fixture.configuration.capacityBytes))
    #expect(memory.deviceSlotsCapacity == 9)
    #expect(memory.leaseCount == 1)
    withExtendedLifetime(device) {}
    device = nil
    // A process that has ended publishes nothing.
    let path = fixture.configuration.path
    try fixture.store.close()
    var configuration = StoreConfiguration(path: path)
    configuration.readOnly = true
    let reader = try Store.open(configuration)
    #expect(reader.inspector.owners().isEmpty)
    try reader.close()
    try fixture.reopenClosed()
    #expect(fixture.store.inspector.owners().first?.memory?.leaseCount == 0)
  }

  @Test func namespacesWithTheirLimits() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(
      Self.identity,
      limits: NamespaceLimits(
        quotaBytes: 1 << 20,
        timeToLive: .idle(nanoseconds: 3_600_000_000_000)
      )
    )
    try namespace.offload(Self.front)
    try fixture.store.flush()
    let summary = try #require(try fixture.store.inspector.namespaces().first)
    #expect(summary.quotaBytes == 1 << 20)
    #expect(summary.quotaBytesUsed == UInt64(10 * summary.slotByteCount))
    #expect(summary.timeToLive == .idle(nanoseconds: 3_600_000_000_000))
  }
}
