import Foundation
import KVAdmin
import KVCore
import KVRemote
import KVTestSupport
import Testing

@testable import KVStore

/// What a process says of its remote tier, and who sees it.
@Suite struct RemoteReportTests {
  private let identity = StoreFixture.identity([2000, 1000])

  /// What the second machine's process publishes, once it is so; it does so once a second.
  private func report(
    _ machines: RemoteFixture,
    until isSo: (RemoteReport) -> Bool = { _ in true }
  ) throws -> RemoteReport {
    for _ in 0..<6000 {
      if let report = machines.b.store.inspector.owners().first?.remote, isSo(report) {
        return report
      }
      usleep(10_000)
    }
    Issue.record("it does not come to that: \(machines.b.store.inspector.owners())")
    return RemoteReport(
      server: "",
      writes: .off,
      matchesAlways: false,
      statistics: RemoteStatistics(),
      lookUps: []
    )
  }

  @Test func bytesAreReadBackAndOtherBytesAreNone() throws {
    var report = RemoteReport(
      server: "redis://[::1]:7",
      writes: .all,
      matchesAlways: true,
      statistics: RemoteStatistics(),
      lookUps: []
    )
    report.statistics.lookUps = .max
    report.statistics.misses = [.timedOut: 3, .noRoom: 1]
    report.statistics.drops = [.queue: 2]
    report.statistics.state = .leftAlone
    report.statistics.lastFailure = .timedOut
    report.statistics.pauseCause = .full
    report.statistics.isPaused = true
    report.statistics.roundNanoseconds = 5
    var lookUp = RemoteLookUp(
      namespace: NamespaceID(rawValue: 4),
      blockCount: 8,
      blockKey: BlockKey(high: 1, low: 2)
    )
    lookUp.cause = .damaged
    lookUp.endedAt = 9
    report.lookUps = [lookUp, lookUp]
    let bytes = report.encoded
    #expect(RemoteReport(bytes) == report)
    #expect(RemoteReport([]) == nil)
    for index in bytes.indices {
      var changed = bytes
      changed[index] ^= 0x10
      #expect(RemoteReport(changed) == nil)
      #expect(RemoteReport(Array(bytes[..<index])) == nil)
    }
  }

  @Test func othersSeeWhatWasFetchedAndSent() throws {
    let machines = try RemoteFixture()
    let prompt = tokens(0..<32)
    try machines.write(prompt, identity)
    let first = try report(machines)
    #expect(first.statistics.state == .idle && first.statistics.answeredAt == 0)
    #expect(try machines.find(prompt, identity).blockCount == 8)
    let found = try report(machines) { $0.statistics.blocksFetched == 8 }
    #expect(found.statistics.state == .up && found.statistics.answeredAt > 0)
    #expect(found.statistics.lookUps == 1 && found.statistics.lookUpsFound == 1)
    #expect(found.writes == .all && !found.matchesAlways)
    #expect(found.lookUps.map(\.fetchedBlockCount) == [8])
    #expect(found.lookUps.map(\.cause) == [nil])
    let sender = try #require(try machines.a.store.statistics().remote)
    #expect(sender.chunksSent == 4 && sender.state == .up)
    // Metrics of who only looks are those that the process publishes.
    let text = try machines.b.store.metricsText(includesProcess: false)
    let label = #"{process="\#(getpid())"}"#
    #expect(text.contains("kvstore_remote_look_ups_found_total\(label) 1\n"))
    #expect(text.contains("kvstore_remote_available\(label) 1\n"))
    // At the close it goes, and others of the folder do not stay because of it.
    let folder = try #require(machines.b.store.core.sharedMemory.reportsFolder)
    try machines.b.store.close()
    #expect(!FileManager.default.fileExists(atPath: folder))
    try machines.b.reopenClosed()
  }

  @Test func aStoreWithoutARemoteTierSaysNothing() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(identity)
    try namespace.offload(tokens(0..<32))
    try fixture.store.flush()
    #expect(fixture.store.inspector.owners().allSatisfy { $0.remote == nil })
    #expect(
      try fixture.store.inspector.remoteAnswers(for: tokens(0..<32), in: namespace.id).isEmpty
    )
    for includesProcess in [false, true] {
      let text = try fixture.store.metricsText(includesProcess: includesProcess)
      #expect(!text.contains("remote"))
    }
    let folder = try #require(fixture.store.core.sharedMemory.reportsFolder)
    let names = try FileManager.default.contentsOfDirectory(atPath: folder)
    #expect(names.sorted() == ["lock", "shared"])
  }

  @Test func whatAKilledProcessLeftGoes() throws {
    let machines = try RemoteFixture()
    let folder = try #require(machines.b.store.core.sharedMemory.reportsFolder)
    let path = folder + "/remote-4000000000"
    try Data([1, 2, 3]).write(to: URL(filePath: path))
    let owner = machines.b.store.core.owner
    let file = try #require(
      RemoteReportFile(in: folder, owner) { $0.rawValue == 4_000_000_000 }
    )
    #expect(!FileManager.default.fileExists(atPath: path))
    // One that is being written is no report.
    try Data([1, 2, 3]).write(to: URL(filePath: folder + "/remote-\(owner.rawValue)"))
    #expect(RemoteReportFile.read(folder, owner) == nil)
    _ = file
  }

  // MARK: How it stands with it

  @Test(arguments: [
    (
      SimulatedRemote.Fault.dead, RemoteStatistics.State.leftAlone,
      RemoteStatistics.Cause.unreachable
    ),
    (.unavailable, .leftAlone, .unavailable), (.unauthorized, .unauthorized, .unauthorized),
  ])
  func aStateHasACauseAndABeginning(
    fault: SimulatedRemote.Fault,
    state: RemoteStatistics.State,
    cause: RemoteStatistics.Cause
  ) throws {
    let machines = try RemoteFixture { configuration, _ in
      // No probe comes in between.
      configuration.remote.pauseNanoseconds = 3_600_000_000_000
    }
    let before = monotonicNanoseconds()
    machines.remote.fault = fault
    for number in 0..<4 {
      let first = 1000 * number
      _ = try machines.find(tokens(first..<first + 32), identity)
    }
    let found = try report(machines) { $0.statistics.state == state }
    #expect(found.statistics.stateSince >= before)
    #expect(found.statistics.lastFailure == cause)
    #expect(found.statistics.isBreakerOpen == (state == .leftAlone))
    #expect((found.statistics.answeredAt > 0) == (state == .unauthorized))
    #expect(found.statistics.misses[cause] ?? 0 >= 3)
  }

  @Test func aFullOneSaysThatWritingWaits() throws {
    let machines = try RemoteFixture { configuration, _ in
      configuration.remote.pauseNanoseconds = 3_600_000_000_000
    }
    machines.remote.fault = .full
    try machines.write(tokens(0..<32), identity)
    let counts = try #require(try machines.a.store.statistics().remote)
    #expect(counts.isPaused && counts.pauseCause == .full && counts.state == .up)
    #expect(counts.pausedUntil > monotonicNanoseconds())
  }

  @Test func aBudgetSaysWhatIsLeft() throws {
    let day = 24_000_000
    let machines = try RemoteFixture { configuration, _ in
      configuration.remote.writeBytesPerDay = day
    }
    try machines.write(tokens(0..<32), identity)
    let counts = try #require(try machines.a.store.statistics().remote)
    #expect(counts.writeBytesPerDay == UInt64(day))
    // A 24th at once; four chunks of two blocks went.
    #expect(counts.writeBytesLeft < UInt64(day / 24))
    #expect(counts.writeBytesLeft > 0)
  }

  // MARK: Why did a prompt miss?

  @Test func aPromptKnowsWhetherItWasAskedFor() throws {
    let machines = try RemoteFixture()
    let (prompt, stored) = (tokens(0..<32), tokens(500..<532))
    try machines.write(stored, identity)
    let namespace = try machines.b.store.openNamespace(identity)
    func answer(_ words: [UInt32]) throws -> RemoteLookUp? {
      let answers = try machines.b.store.inspector.remoteAnswers(for: words, in: namespace.id)
      #expect(answers.count == 1)
      return answers.first?.lookUp
    }
    #expect(try answer(prompt) == nil)
    _ = try namespace.matchRemote(prompt)
    _ = try namespace.matchRemote(stored)
    _ = try report(machines) { $0.lookUps.count == 2 && $0.lookUps.allSatisfy { $0.endedAt > 0 } }
    let missing = try #require(try answer(prompt))
    #expect(missing.cause == .absent && missing.foundBlockCount == 0)
    // However the prompt goes on, its front was asked for.
    #expect(try answer(prompt + tokens(900..<1000)) == missing)
    #expect(try answer(Array(prompt.prefix(12))) == missing)
    #expect(try answer(tokens(1..<33)) == nil)
    let found = try #require(try answer(stored))
    #expect(found.cause == nil && found.fetchedBlockCount == 8)
  }
}
