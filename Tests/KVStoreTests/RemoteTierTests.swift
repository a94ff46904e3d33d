import Foundation
import KVCore
import KVRemote
import KVStore
import KVTestSupport
import Testing

/// What one machine stored, another finds; the remote is simulated (`SimulatedRemote`), the stores are real.
@Suite struct RemoteTierTests {
  private let identity = StoreFixture.identity([2000, 1000])

  @Test(arguments: [[2000, 1000], [40_000, 24_000]])
  func whatOneMachineStoredAnotherRestores(regions: [Int]) throws {
    let machines = try RemoteFixture()
    let identity = StoreFixture.identity(regions)
    let prompt = tokens(0..<34)
    try machines.write(prompt.dropLast(2) + [], identity)
    // Eight blocks are four chunks, and the identity record lies beside them.
    #expect(machines.remote.objects.count == 5)
    let namespace = try machines.b.store.openNamespace(identity)
    let first = try namespace.match(prompt, .remote)
    #expect(first.blockCount == 0)
    #expect(first.isBeingFetched)
    let result = try namespace.matchRemote(prompt)
    #expect(result.blockCount == 8)
    let restored = try namespace.restore(prompt)
    #expect(restored.isRight)
    #expect(restored.result.doneBlockCount == 8)
    #expect(restored.result.hostBlockCount == 8)
    // They are this machine's own from now on.
    try machines.b.store.flush()
    machines.remote.fault = .dead
    try machines.b.reopen()
    let again = try machines.b.store.openNamespace(identity)
    #expect(try again.restore(prompt).isRight)
    #expect(try again.peek(prompt) == 8)
  }

  @Test func whoDoesNotAskIsNotAnswered() throws {
    let machines = try RemoteFixture()
    try machines.write(tokens(0..<32), identity)
    let before = machines.remote.counts
    let namespace = try machines.b.store.openNamespace(identity)
    let result = try namespace.match(tokens(0..<32))
    #expect(result == MatchResult())
    #expect(try namespace.peek(tokens(0..<32)) == 0)
    #expect(machines.remote.counts == before)
    try machines.b.reopen { $0.remote.matchesAlways = true }
    let other = try machines.b.store.openNamespace(identity)
    #expect(try other.match(tokens(0..<32), .peek).isBeingFetched == false)
    #expect(try other.match(tokens(0..<32)).isBeingFetched)
  }

  @Test func aStoreWithoutARemoteHasNone() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(identity)
    try namespace.offload(tokens(0..<32))
    try fixture.store.flush()
    #expect(try namespace.match(tokens(0..<64), .remote).isBeingFetched == false)
    #expect(try fixture.store.statistics().remote == nil)
    #expect(throws: StoreError.invalidArgument(.remote)) {
      try fixture.reopen { $0.remote.url = "gopher://host" }
    }
    fixture.configuration.remote.url = ""
    try fixture.reopenClosed()
  }

  /// Encoded where that is shorter; the reader need not ask for it.
  @Test(arguments: ["fp16", ""]) func payloadsGoInFrames(dtype: String) throws {
    let machines = try RemoteFixture { configuration, index in
      if index == 0 { configuration.remote.encoding = .frames }
    }
    let identity = StoreFixture.identity([40_000, 24_000]) { $0.kvDtype = dtype }
    try machines.write(tokens(0..<32), identity)
    let raw = 4 * 2 * 64_000
    let sent = try #require(try machines.a.store.statistics().remote)
    #expect(sent.chunksSent == 4)
    #expect(Int(sent.bytesSent) < raw)
    #expect(try machines.find(tokens(0..<32), identity).blockCount == 8)
    #expect(try machines.b.store.openNamespace(identity).restore(tokens(0..<32)).isRight)
    #expect(try machines.statistics.bytesFetched == sent.bytesSent)
  }

  /// What leaves the disk by eviction is sent before, as far as that comes in time, and both are counted.
  @Test(arguments: [false, true]) func whatIsEvictedGoesThereBefore(demotes: Bool) throws {
    let machines = try RemoteFixture(writes: .reused) { configuration, index in
      configuration.remote.demotes = demotes
      configuration.evictionPolicy = .lru
      if index == 0 { configuration.capacityBytes = 64 << 20 }
    }
    let identity = StoreFixture.identity([40_000, 24_000])
    let namespace = try machines.a.store.openNamespace(identity)
    for index in 0..<300 {
      try namespace.offload(tokens(index * 1000..<index * 1000 + 32))
      guard index % 10 == 9 else { continue }
      try machines.a.store.flush()
      machines.a.store.waitForRemote()
      // The scan's own jobs come behind it.
      machines.a.store.waitForRemote()
    }
    let statistics = try #require(try machines.a.store.statistics().remote)
    let evicted = try machines.a.store.statistics().blocksEvicted
    #expect(evicted > 500)
    guard demotes else {
      #expect(machines.remote.objects.isEmpty)
      #expect(statistics.blocksDemoted + statistics.blocksLost == 0)
      return
    }
    #expect(statistics.blocksDemoted + statistics.blocksLost == evicted)
    #expect(statistics.blocksDemoted > evicted / 2)
    // Gone here, and found again.
    let gone = (0..<300).filter { index in
      (try? namespace.peek(tokens(index * 1000..<index * 1000 + 32))) == 0
    }
    var foundCount = 0
    for index in gone.suffix(20) {
      let prompt = tokens(index * 1000..<index * 1000 + 32)
      guard try machines.find(prompt, identity).blockCount == 8 else { continue }
      foundCount += 1
      #expect(try machines.b.store.openNamespace(identity).restore(prompt).isRight)
    }
    #expect(foundCount > 10)
  }

  /// A remote that hangs delays no eviction.
  @Test func evictionsDoNotWaitForARemote() throws {
    let machines = try RemoteFixture(writes: .reused) { configuration, index in
      configuration.remote.demotes = true
      configuration.evictionPolicy = .lru
      if index == 0 { configuration.capacityBytes = 64 << 20 }
    }
    machines.remote.fault = .hanging
    let namespace = try machines.a.store.openNamespace(StoreFixture.identity([40_000, 24_000]))
    for index in 0..<200 {
      try namespace.offload(tokens(index * 1000..<index * 1000 + 32))
      try machines.a.store.flush()
    }
    let statistics = try #require(try machines.a.store.statistics().remote)
    #expect(statistics.blocksDemoted == 0)
    #expect(try machines.a.store.statistics().blocksEvicted == statistics.blocksLost)
  }

  @Test func onlyWholeChunksGo() throws {
    let machines = try RemoteFixture()
    try machines.write(tokens(0..<28), identity)
    let result = try machines.find(tokens(0..<28), identity)
    #expect(result.blockCount == 6)
  }

  @Test func whatIsHereAlreadyIsNotTouched() throws {
    let machines = try RemoteFixture()
    try machines.write(tokens(0..<32), identity)
    let namespace = try machines.b.store.openNamespace(identity)
    // Three blocks of its own, of other bytes: those of another machine do not replace them.
    try namespace.offload(tokens(0..<12), seed: 7)
    #expect(try namespace.matchRemote(tokens(0..<32)).blockCount == 8)
    #expect(try namespace.restore(tokens(0..<12), seed: 7).isRight)
    let rest = try namespace.restore(tokens(0..<32), from: 3)
    #expect(rest.isRight)
    #expect(rest.result.doneBlockCount == 5)
    #expect(try machines.statistics.blocksFetched == 5)
  }

  @Test func reusedBlocksGoAtTheirSecondUse() throws {
    let machines = try RemoteFixture(writes: .reused)
    try machines.write(tokens(0..<32), identity)
    #expect(machines.remote.objects.isEmpty)
    _ = try machines.a.store.openNamespace(identity).match(tokens(0..<16))
    machines.a.store.waitForRemote()
    #expect(machines.remote.objects.count == 3)
    #expect(try machines.find(tokens(0..<32), identity).blockCount == 4)
  }

  @Test func nothingGoesWhereNothingIsToBeWritten() throws {
    let machines = try RemoteFixture(writes: .off)
    try machines.write(tokens(0..<32), identity)
    _ = try machines.a.store.openNamespace(identity).match(tokens(0..<32))
    machines.a.store.waitForRemote()
    #expect(machines.remote.counts.all == 0)
  }

  @Test func whatIsThereIsNotSentAgain() throws {
    let machines = try RemoteFixture()
    try machines.write(tokens(0..<32), identity)
    let namespace = try machines.b.store.openNamespace(identity)
    try namespace.offload(tokens(0..<32), seed: 3)
    try machines.b.store.flush()
    machines.b.store.waitForRemote()
    // The first sound writer wins.
    #expect(machines.remote.counts.put == 5)
    #expect(try machines.statistics.chunksExisted == 4)
    #expect(try machines.statistics.chunksSent == 0)
    // And what came from there does not go back.
    let other = try StoreFixture { configuration in
      configuration.remote = machines.b.configuration.remote
      configuration.remote.objects = SharedRemote(machines.remote)
    }
    _ = try other.store.openNamespace(identity).matchRemote(tokens(0..<32))
    try other.store.flush()
    other.store.waitForRemote()
    #expect(machines.remote.counts.put == 5)
    #expect(try other.store.statistics().remote?.chunksFetched == 4)
  }

  @Test func aBudgetOfADayIsKept() throws {
    // An hour's share: three chunks of 6,000 bytes.
    let machines = try RemoteFixture { configuration, _ in
      configuration.remote.writeBytesPerDay = 24 * 20_000
    }
    try machines.write(tokens(0..<64), identity)
    let statistics = try #require(try machines.a.store.statistics().remote)
    #expect(statistics.chunksSent <= 4)
    #expect(statistics.drops[.budget] ?? 0 >= 4)
  }

  @Test func admissionDoesNotKeepOutWhatWasUsedBefore() throws {
    let machines = try RemoteFixture { configuration, index in
      if index == 1 { configuration.admission = .secondTouch }
    }
    try machines.write(tokens(0..<32), identity)
    #expect(try machines.find(tokens(0..<32), identity).blockCount == 8)
  }

  @Test func aWriteBudgetThatIsUsedUpFetchesNothing() throws {
    let machines = try RemoteFixture { configuration, index in
      if index == 1 { configuration.writeBytesPerDay = 24 }
    }
    try machines.write(tokens(0..<32), identity)
    let before = machines.remote.counts.get
    #expect(try machines.find(tokens(0..<32), identity).blockCount == 0)
    #expect(try machines.statistics.misses[.noRoom] == 1)
    // The record was compared; no chunk was asked for.
    #expect(machines.remote.counts.get == before + 1)
  }

  @Test func aLookUpIsNotMadeTwiceAtOnceNorAgainAtOnce() throws {
    let machines = try RemoteFixture()
    try machines.write(tokens(0..<32), identity)
    let namespace = try machines.b.store.openNamespace(identity)
    let other = tokens(100..<132)
    for _ in 0..<20 { _ = try namespace.match(other, .remote) }
    _ = try namespace.matchRemote(other)
    for _ in 0..<20 { _ = try namespace.match(other, .remote) }
    #expect(try machines.statistics.lookUps <= 3)
  }

  @Test func lookUpsTakeOneRound() throws {
    let machines = try RemoteFixture()
    let small = StoreFixture.identity([16])
    let prompt = tokens(0..<4096)
    try machines.write(prompt, small)
    #expect(try machines.find(prompt, small).blockCount == 1024)
    let statistics = try machines.statistics
    #expect(statistics.lookUpRounds == 1)
    #expect(statistics.chunksFound == 512)
    #expect(try machines.b.store.openNamespace(small).restore(prompt).isRight)
  }

  @Test func holesEndThePrefix() throws {
    let machines = try RemoteFixture()
    try machines.write(tokens(0..<64), identity)
    let key = try machines.a.store.openNamespace(identity).keys(tokens(0..<64))[5]
    let name = try #require(
      machines.remote.objects.keys.first { $0.text.hasSuffix(key.hexadecimal) }
    )
    machines.remote.objects[name] = nil
    let result = try machines.find(tokens(0..<64), identity)
    #expect(result.blockCount == 4)
    #expect(try machines.b.store.openNamespace(identity).restore(tokens(0..<64)).isRight)
  }

  @Test func expiryTravels() throws {
    let machines = try RemoteFixture()
    let namespace = try machines.a.store.openNamespace(identity)
    let hour: UInt64 = 3_600_000_000_000
    try namespace.offload(tokens(0..<8), life: .absolute(nanoseconds: hour))
    try namespace.offload(tokens(100..<108), life: .idle(nanoseconds: 2 * hour))
    try machines.a.store.flush()
    machines.a.store.waitForRemote()
    var lives: [UInt64: UInt64] = [:]
    for (name, bytes) in machines.remote.objects where !name.text.hasSuffix(":id") {
      let view = try bytes.span.withUnsafeBytes { (bytes) throws(ChunkFlaw) in
        let view = try ChunkView(bytes)
        return [view.endOfLife, view.idleLife]
      }
      #expect((view[0] > 0) == (view[1] == 0))
      lives[view[1]] = machines.remote.timeLeft(name)
    }
    #expect(lives[0].map { $0 > 0 && $0 <= hour } == true)
    #expect(lives[2 * hour].map { $0 > hour && $0 <= 2 * hour } == true)
    #expect(try machines.find(tokens(0..<8), identity).blockCount == 2)
    #expect(try machines.find(tokens(100..<108), identity).blockCount == 2)
    // Reopened a day later, the second machine has neither.
    try machines.b.store.flush()
  }

  @Test func aStoreClosesWhileItsRemoteHangs() throws {
    let machines = try RemoteFixture()
    try machines.write(tokens(0..<32), identity)
    machines.remote.fault = .hanging
    let namespace = try machines.b.store.openNamespace(identity)
    try namespace.offload(tokens(200..<232))
    try machines.b.store.flush()
    // The calls below return while the remote keeps everybody waiting who asks it.
    #expect(try namespace.match(tokens(0..<32), .remote).isBeingFetched)
    #expect(try namespace.match(tokens(200..<232), .remote).blockCount == 8)
    #expect(try namespace.restore(tokens(200..<232)).isRight)
    try machines.b.store.close()
    machines.remote.fault = nil
    try machines.b.reopenClosed()
  }
}

extension Namespace {
  func keys(_ tokens: [UInt32]) throws -> [BlockKey] {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in try blockKeys(prompt) }
  }
}
