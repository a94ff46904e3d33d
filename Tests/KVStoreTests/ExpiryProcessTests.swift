import Foundation
import KVAdmin
import KVCore
import KVReplaySupport
import KVStore
import Testing

/// Lives of blocks across processes: each has a clock of its own that is set to the same time.
@Suite struct ExpiryProcessTests {
  private static let minute = TimeToLive.idle(nanoseconds: 60_000_000_000)

  private static func open(_ path: String, at seconds: UInt64) throws -> (Store, Namespace) {
    let clock = ManualClock()
    clock.advance(seconds: Double(seconds))
    var configuration = StoreConfiguration(path: path)
    configuration.hostBytes = 16 << 20
    configuration.clock = clock
    let store = try Store.open(configuration)
    return (store, try store.openNamespace(QuotaTests.inlineIdentity))
  }

  private let clock = ManualClock()

  private func stored(_ numbers: ClosedRange<Int>) throws -> (StoreFixture, Namespace) {
    let clock = clock
    let fixture = try StoreFixture { $0.clock = clock }
    let namespace = try fixture.store.openNamespace(
      QuotaTests.inlineIdentity,
      limits: NamespaceLimits(timeToLive: Self.minute)
    )
    for number in numbers { try namespace.offload(QuotaTests.prompt(number)) }
    try fixture.store.flush()
    return (fixture, namespace)
  }

  @Test func aUseInAnotherProcessProlongsALife() async throws {
    let (fixture, namespace) = try stored(1...2)
    clock.advance(seconds: 40)
    let path = fixture.configuration.path
    await #expect(processExitsWith: .success) { [path = path as String] in
      let (store, namespace) = try ExpiryProcessTests.open(path, at: 40)
      guard try namespace.touch(QuotaTests.prompt(1)) == 4 else { exit(2) }
      try store.close()
    }
    clock.advance(seconds: 40)
    // This process's index says that both are over; the catalog knows better.
    #expect(try namespace.peek(QuotaTests.prompt(1)) == 4)
    #expect(try namespace.peek(QuotaTests.prompt(2)) == 0)
    try fixture.store.reclaimExpired()
    #expect(try fixture.store.statistics().blocksStored == 4)
    clock.advance(seconds: 20)
    #expect(try namespace.peek(QuotaTests.prompt(1)) == 4)
    clock.advance(nanoseconds: 1)
    #expect(try namespace.peek(QuotaTests.prompt(1)) == 0)
  }

  @Test func whatIsOverIsGoneForAllProcesses() async throws {
    let (fixture, namespace) = try stored(1...1)
    let path = fixture.configuration.path
    await #expect(processExitsWith: .success) { [path = path as String] in
      let (store, namespace) = try ExpiryProcessTests.open(path, at: 61)
      guard try namespace.peek(QuotaTests.prompt(1)) == 0 else { exit(2) }
      guard try store.reclaimExpired() == 4 else { exit(3) }
      try store.close()
    }
    // Its clock is behind, but not behind what was committed.
    #expect(try fixture.store.statistics().blocksStored == 0)
    #expect(try namespace.restore(QuotaTests.prompt(1)).result.doneBlockCount == 0)
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  /// What a use did is durable with the next commit, which comes by itself within a second; only what came after that is lost.
  @Test func aKilledProcessLosesItsLastUsesOnly() async throws {
    let (fixture, namespace) = try stored(1...3)
    clock.advance(seconds: 40)
    let path = fixture.configuration.path
    await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String] in
      let (store, namespace) = try ExpiryProcessTests.open(path, at: 40)
      let before = try store.statistics().catalogCommits
      guard try namespace.touch(QuotaTests.prompt(1)) == 4 else { exit(2) }
      while try store.statistics().catalogCommits == before { usleep(10_000) }
      guard try namespace.touch(QuotaTests.prompt(2)) == 4 else { exit(3) }
      kill(getpid(), SIGKILL)
    }
    clock.advance(seconds: 40)
    #expect(try namespace.peek(QuotaTests.prompt(1)) == 4)
    // What nobody used is over, whatever the killed process was about to write.
    #expect(try namespace.peek(QuotaTests.prompt(3)) == 0)
    #expect(try fixture.store.verify().findings.isEmpty)
  }
}
