import Foundation
import KVCore
import KVRemote
import KVStore
import KVTestSupport
import Testing

/// A remote that fails, lies or is somebody's tool: misses with a cause, never wrong bytes, and nothing local is lost.
@Suite struct RemoteFaultTests {
  private let identity = StoreFixture.identity([2000, 1000])
  private let prompt = tokens(0..<32)
  private let own = tokens(500..<532)

  /// Shorter limits, for faults that last until them.
  private func machines() throws -> RemoteFixture {
    let machines = try RemoteFixture { configuration, index in
      guard index == 1 else { return }
      configuration.remote.lookUpTimeoutNanoseconds = 50_000_000
      configuration.remote.transferTimeoutNanoseconds = 50_000_000
    }
    try machines.write(prompt, identity)
    return machines
  }

  @Test(arguments: [
    (SimulatedRemote.Fault.late(10_000_000_000), RemoteStatistics.Cause.timedOut),
    (.hanging, .timedOut), (.dead, .unreachable), (.unauthorized, .unauthorized),
    (.unavailable, .unavailable), (.cut(1), .length), (.cut(5000), .length),
    (.flipped(bit: 8 * 5900), .damaged),
  ])
  func faultsAreMissesWithACause(
    fault: SimulatedRemote.Fault,
    cause: RemoteStatistics.Cause
  ) throws {
    let machines = try machines()
    let namespace = try machines.b.store.openNamespace(identity)
    try namespace.offload(own)
    // The identity record is known by then; what comes after is chunks.
    _ = try namespace.matchRemote(tokens(1000..<1032))
    machines.remote.fault = fault
    #expect(try namespace.matchRemote(prompt).blockCount == 0)
    let statistics = try machines.statistics
    #expect(statistics.misses[cause] ?? 0 >= 1, "\(statistics)")
    try namespace.offload(tokens(700..<732))
    let flushed = try machines.b.store.flush()
    #expect(flushed.durableBlockCount == 16)
    for local in [own, tokens(700..<732)] {
      let restored = try namespace.restore(local)
      #expect(restored.isRight)
      #expect(restored.result.doneBlockCount == 8)
    }
  }

  /// Bits all over the first chunk that is asked for, header and payload.
  @Test func noFlippedBitComesThrough() throws {
    let machines = try machines()
    let namespace = try machines.b.store.openNamespace(identity)
    let byteCount = try #require(
      machines.remote.objects.filter { !$0.key.text.hasSuffix(":id") }.values.first?.count
    )
    let kept = machines.remote.objects
    _ = try namespace.matchRemote(tokens(1000..<1032))
    for bit in stride(from: 3, to: byteCount * 8, by: 8 * 97 + 5) {
      machines.remote.objects = kept
      machines.remote.fault = .flipped(bit: bit)
      // Another rest each time, so that it is looked up again.
      let result = try namespace.matchRemote(prompt + tokens(bit..<bit + 8))
      #expect(result.blockCount == 0, "bit \(bit)")
      machines.remote.fault = nil
    }
    let statistics = try machines.statistics
    #expect(statistics.chunksFetched == 0)
    #expect(statistics.objectsRemoved > 20)
  }

  /// It says that it has what it has not, and not what it has.
  @Test func liesAreMisses() throws {
    let machines = try machines()
    let namespace = try machines.b.store.openNamespace(identity)
    _ = try namespace.matchRemote(tokens(1000..<1032))
    machines.remote.fault = .lying
    #expect(try namespace.matchRemote(prompt).blockCount == 0)
    #expect(try namespace.matchRemote(tokens(2000..<2032)).blockCount == 0)
    #expect(try machines.statistics.misses[.absent] ?? 0 >= 2)
  }

  @Test func aFullRemoteIsLeftAlone() throws {
    let machines = try machines()
    machines.remote.fault = .full
    let namespace = try machines.b.store.openNamespace(identity)
    try namespace.offload(own)
    try machines.b.store.flush()
    machines.b.store.waitForRemote()
    let putCount = machines.remote.counts.put
    #expect(try machines.statistics.drops[.full] ?? 0 >= 1)
    #expect(try machines.statistics.isPaused)
    try namespace.offload(tokens(700..<732))
    try machines.b.store.flush()
    machines.b.store.waitForRemote()
    #expect(machines.remote.counts.put == putCount)
    // Reading goes on.
    #expect(try namespace.matchRemote(prompt).blockCount == 8)
  }

  @Test func aDeadRemoteIsNotAskedAgain() throws {
    let machines = try machines()
    machines.remote.fault = .dead
    let namespace = try machines.b.store.openNamespace(identity)
    for index in 0..<3 { _ = try namespace.matchRemote(tokens(index * 100..<index * 100 + 32)) }
    #expect(try machines.statistics.breakerOpened == 1)
    #expect(try machines.statistics.isBreakerOpen)
    var isFetched = false
    let before = machines.remote.counts
    for index in 0..<200 {
      let result = try namespace.match(tokens(index * 100..<index * 100 + 32), .remote)
      if result.isBeingFetched { isFetched = true }
    }
    #expect(!isFetched)
    // A probe after each pause, and nothing else.
    #expect(machines.remote.counts.exist == before.exist)
    #expect(machines.remote.counts.get == before.get)
    machines.remote.fault = nil
    for _ in 0..<6000 {
      guard try machines.statistics.isBreakerOpen else { break }
      _ = try namespace.match(tokens(0..<32), .remote)
      usleep(10_000)
    }
    #expect(try namespace.matchRemote(prompt).blockCount == 8)
  }

  // MARK: Somebody who can write

  @Test func anotherPathsObjectUnderOurNameIsRemoved() throws {
    let machines = try machines()
    try machines.write(tokens(1000..<1032), identity)
    let a = try machines.a.store.openNamespace(identity)
    let names = try [prompt, tokens(1000..<1032)].map { tokens in
      let key = try a.keys(tokens)[1].hexadecimal
      return try #require(machines.remote.objects.keys.first { $0.text.hasSuffix(key) })
    }
    machines.remote.objects[names[0]] = machines.remote.objects[names[1]]
    let namespace = try machines.b.store.openNamespace(identity)
    #expect(try namespace.matchRemote(prompt).blockCount == 0)
    #expect(try machines.statistics.misses[.tokens] == 1)
    #expect(machines.remote.objects[names[0]] == nil)
    #expect(machines.remote.objects[names[1]] != nil)
  }

  @Test func twoModelsUnderOneNameShareNothing() throws {
    let machines = try RemoteFixture()
    let models = [UInt8(1), 2].map { digest in
      StoreFixture.identity([2000, 1000]) { $0.weightsDigest = [digest] }
    }
    try machines.write(prompt, models[0])
    #expect(try machines.find(prompt, models[1]).blockCount == 0)
    #expect(try machines.find(prompt, models[0]).blockCount == 8)
    #expect(try machines.statistics.chunksFetched == 4)
  }

  @Test func anotherIdentityRecordUnderOurNameKeepsEverybodyOut() throws {
    let machines = try machines()
    let name = try #require(machines.remote.objects.keys.first { $0.text.hasSuffix(":id") })
    machines.remote.change(name) { $0[20] ^= 1 }
    let namespace = try machines.b.store.openNamespace(identity)
    #expect(try namespace.matchRemote(prompt).blockCount == 0)
    #expect(try machines.statistics.misses[.identity] == 1)
    let count = machines.remote.objects.count
    try namespace.offload(own)
    try machines.b.store.flush()
    machines.b.store.waitForRemote()
    #expect(machines.remote.objects.count == count)
    #expect(try machines.statistics.drops[.identity] ?? 0 >= 1)
  }

  /// With keys of eight bits, names of different prompts are often the same.
  @Test func collisionsAreMisses() throws {
    let machines = try RemoteFixture { configuration, _ in configuration.keyBitCount = 8 }
    var rightCount = 0
    for seed in 0..<60 {
      let tokens = (0..<8).map { UInt32(seed * 1000 + $0) }
      try machines.write(tokens, identity)
      let namespace = try machines.b.store.openNamespace(identity)
      let result = try namespace.matchRemote(tokens)
      let restored = try namespace.restore(tokens)
      #expect(restored.isRight)
      #expect(restored.result.doneBlockCount == result.blockCount)
      if result.blockCount == 2 { rightCount += 1 }
    }
    #expect(rightCount > 10)
    #expect(try machines.statistics.misses[.tokens] ?? 0 > 0)
  }

  // MARK: Tenants

  @Test(arguments: [(false, false), (true, false), (true, true)])
  func saltedNamespacesAreLocalWithoutTheSameKey(aHasKey: Bool, bHasSame: Bool) throws {
    let machines = try RemoteFixture { configuration, index in
      if index == 0, aHasKey { configuration.remote.key = RemoteFixture.key }
      if index == 1, bHasSame { configuration.remote.key = RemoteFixture.key }
      if index == 1, aHasKey, !bHasSame {
        configuration.remote.key = [UInt8](repeating: 1, count: 32)
      }
    }
    let tenant = StoreFixture.identity([2000, 1000]) { $0.salt = Array("a tenant's secret".utf8) }
    try machines.write(prompt, tenant)
    #expect(machines.remote.objects.count == (aHasKey ? 5 : 0))
    #expect(try machines.find(prompt, tenant).blockCount == (bHasSame ? 8 : 0))
    let other = StoreFixture.identity([2000, 1000]) { $0.salt = [1, 2, 3] }
    #expect(try machines.find(prompt, other).blockCount == 0)
    #expect(try machines.find(prompt, StoreFixture.identity([2000, 1000])).blockCount == 0)
    let keys = try machines.a.store.openNamespace(tenant).keys(prompt).map(\.hexadecimal)
    for (name, bytes) in machines.remote.objects {
      #expect(!keys.contains { name.text.contains($0) })
      #expect(Data(bytes).range(of: Data("a tenant's secret".utf8)) == nil)
    }
    if bHasSame {
      #expect(try machines.b.store.openNamespace(tenant).restore(prompt).isRight)
    }
  }

  @Test func whoHasNotTheKeyCannotMakeAChunk() throws {
    let machines = try RemoteFixture { configuration, _ in
      configuration.remote.key = RemoteFixture.key
    }
    try machines.write(prompt, identity)
    // A payload and the checksums that belong to it: somebody with the rights to write knows how.
    for name in machines.remote.objects.keys where !name.text.hasSuffix(":id") {
      machines.remote.change(name) { $0[$0.count - 40] ^= 1 }
    }
    #expect(try machines.find(prompt, identity).blockCount == 0)
    #expect(try machines.statistics.misses[.code] == 1)
    #expect(try machines.statistics.objectsRemoved == 1)
  }
}
