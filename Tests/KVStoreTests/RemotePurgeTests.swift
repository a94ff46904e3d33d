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
