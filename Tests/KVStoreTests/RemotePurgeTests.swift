import Foundation
import KVCore
import KVRemote
import KVStore
import KVTestSupport
import Testing

/// What is purged leaves the remote as well, whenever that can be reached.
@Suite struct RemotePurgeTests {
  private let identity = StoreFixture.identity([2000, 1000])

  /// Waits until the remote has confirmed all purges of a store.
  static func waitForPurges(_ fixture: StoreFixture) throws {
    for _ in 0..<6000 {
      if try fixture.store.statistics().remote?.purgesPending == 0 { return }
      usleep(10_000)
    }
    Issue.record("a purge did not end")
  }

  @Test func aPurgedNamespaceLeavesTheRemote() throws {
    let machines = try RemoteFixture()
    let other = StoreFixture.identity([2000, 1000]) { $0.weightsDigest = [3] }
    try machines.write(tokens(0..<64), identity)
    try machines.write(tokens(0..<32), other)
    #expect(machines.remote.objects.count == 14)
    _ = try machines.a.store.openNamespace(identity).purge()
    try Self.waitForPurges(machines.a)
    #expect(machines.remote.objects.count == 5)
    #expect(try machines.find(tokens(0..<64), identity).blockCount == 0)
    #expect(try machines.find(tokens(0..<32), other).blockCount == 8)
    // It can be filled again.
    try machines.write(tokens(0..<64), identity)
    #expect(machines.remote.objects.count == 14)
  }

  @Test func aPurgedPrefixLeavesTheRemote() throws {
    let machines = try RemoteFixture()
    try machines.write(tokens(0..<64), identity)
    _ = try machines.a.store.openNamespace(identity).purgePrefix(tokens(0..<24))
    try Self.waitForPurges(machines.a)
    // Two chunks of four blocks before it, and the record; the third one held its last block.
    #expect(machines.remote.objects.count == 3)
    #expect(try machines.find(tokens(0..<64), identity).blockCount == 4)
  }

  /// What is purged does not come back from there, neither while that cannot be reached nor by a fetch that was under way.
  @Test func whatIsPurgedDoesNotComeBack() throws {
    let machines = try RemoteFixture { configuration, _ in
      configuration.remote.pauseNanoseconds = 1_000_000
    }
    try machines.write(tokens(0..<64), identity)
    machines.remote.refusesRemovals = true
    let namespace = try machines.a.store.openNamespace(identity)
    _ = try namespace.purge()
    for index in 0..<20 {
      #expect(try namespace.matchRemote(tokens(0..<64 + 4 * index)).blockCount == 0)
    }
    #expect(machines.remote.objects.count == 9)
    #expect(try machines.a.store.statistics().remote?.purgesPending == 1)
    // Nor to the next process.
    try machines.a.reopen { $0.remote.objects = SharedRemote(machines.remote) }
    let again = try machines.a.store.openNamespace(identity)
    #expect(try again.matchRemote(tokens(0..<64)).blockCount == 0)
    machines.remote.refusesRemovals = false
    try Self.waitForPurges(machines.a)
    #expect(machines.remote.objects.isEmpty)
    #expect(try again.matchRemote(tokens(0..<64)).blockCount == 0)
  }

  @Test func aFetchUnderWayBringsNothingThatIsPurged() throws {
    let machines = try RemoteFixture()
    for round in 0..<6 {
      let prompt = tokens(round * 1000..<round * 1000 + 64)
      try machines.write(prompt, identity)
      let namespace = try machines.b.store.openNamespace(identity)
      // The record, the look-up and the chunks take so long each; the purge comes in between.
      machines.remote.fault = .late(50_000_000)
      #expect(try namespace.match(prompt, .remote).isBeingFetched)
      usleep(UInt32(round * 25_000))
      _ = try namespace.purge()
      for _ in 0..<60_000 {
        if machines.b.store.remoteIsIdle { break }
        usleep(1000)
      }
      #expect(try namespace.peek(prompt) == 0, "round \(round)")
      machines.remote.fault = nil
      try RemotePurgeTests.waitForPurges(machines.b)
    }
  }

  @Test func aPurgeWaitsForARemoteThatIsAwayOverARestart() throws {
    let machines = try RemoteFixture { configuration, _ in
      configuration.remote.pauseNanoseconds = 1_000_000
    }
    try machines.write(tokens(0..<64), identity)
    let count = machines.remote.objects.count
    machines.remote.fault = .dead
    _ = try machines.a.store.openNamespace(identity).purge()
    #expect(try machines.a.store.statistics().remote?.purgesPending == 1)
    // A new client each time, since the store closes its own.
    try machines.a.reopen { $0.remote.objects = SharedRemote(machines.remote) }
    #expect(try machines.a.store.statistics().remote?.purgesPending == 1)
    #expect(machines.remote.objects.count == count)
    machines.remote.fault = nil
    try Self.waitForPurges(machines.a)
    #expect(machines.remote.objects.isEmpty)
    try machines.a.reopen { $0.remote.objects = SharedRemote(machines.remote) }
    #expect(try machines.a.store.statistics().remote?.purgesPending == 0)
  }
}

extension Namespace {
  fileprivate func purgePrefix(_ tokens: [UInt32]) throws -> Int {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in try self.purge(prompt) }
  }
}
