import Foundation
import KVAdmin
import KVCatalog
import KVCore
import KVReplaySupport
import KVStore
import KVTestSupport
import Testing

/// A day in the life of a store with a tenant a minute: salts, quotas, lives, purges, readers that are killed, less room, restarts
/// and repairs.
///
/// `KVSTORE_DAY_MINUTES` makes it longer (`Scripts/check` runs ten thousand tenants); the calendar turns by itself.
@Suite struct DayTests {
  private static let minute: UInt64 = 60_000_000_000
  private static let capacityBytes = 96 << 20

  private static var minuteCount: Int {
    ProcessInfo.processInfo.environment["KVSTORE_DAY_MINUTES"].flatMap { Int($0) } ?? 1000
  }

  /// What calls did that should cost the same at the end as at the beginning.
  private struct Costs {
    var readByteCounts: [Int] = []
    var catalogByteCounts: [Int] = []

    mutating func note(_ day: Day, _ body: () throws -> Void) throws {
      let (read, written) = (day.storage.readByteCount, day.catalogBytesWritten)
      try body()
      readByteCounts.append(day.storage.readByteCount - read)
      catalogByteCounts.append(day.catalogBytesWritten - written)
    }

    /// The median of the last tenth, and that of the first.
    func isSteady(_ counts: [Int]) -> Bool {
      func median(_ part: ArraySlice<Int>) -> Int { part.sorted()[part.count / 2] }
      let tenth = max(1, counts.count / 10)
      return median(counts.suffix(tenth)) <= median(counts.prefix(tenth)) * 3 / 2 + 16_384
    }
  }

  private final class Day {
    let clock = ManualClock()
    let storage = FaultInjectingStorage()
    let fixture: StoreFixture
    var generator = SeededGenerator(seed: 24)

    init() throws {
      let (clock, storage) = (clock, storage)
      fixture = try StoreFixture {
        $0.capacityBytes = DayTests.capacityBytes
        $0.catalogBytes = 8 << 20
        $0.clock = clock
        $0.storage = storage
      }
    }

    var catalogBytesWritten: Int { Int(clamping: fixture.store.core.catalog.bytesWritten) }

    func identity(_ tenant: Int) -> NamespaceIdentity {
      StoreFixture.identity([90_000]) { $0.salt = Array("tenant \(tenant)".utf8) }
    }

    func limits(_ tenant: Int) -> NamespaceLimits {
      var limits = NamespaceLimits()
      if tenant % 50 == 7 { limits.quotaBytes = 300_000 }
      if tenant % 3 == 0 { limits.timeToLive = .idle(nanoseconds: 120 * DayTests.minute) }
      if tenant % 7 == 1 { limits.timeToLive = .absolute(nanoseconds: 90 * DayTests.minute) }
      return limits
    }

    func open(_ tenant: Int) throws -> Namespace {
      try fixture.store.openNamespace(identity(tenant), limits: limits(tenant))
    }

    func openOne(ofLast count: Int, _ tenant: Int) throws -> Namespace {
      try open(Int.random(in: max(0, tenant - count)...tenant, using: &generator))
    }

    /// Everybody asks the same.
    func prompt(_ tenant: Int) -> [UInt32] { QuotaTests.prompt(0, blocks: 1 + tenant % 3) }

    func checkBound() throws {
      let capacity = fixture.configuration.capacityBytes
      for _ in 0..<2000 {
        if try EvictionTests.diskBytes(fixture.configuration.path) <= capacity { return }
        usleep(5000)
      }
      Issue.record("more than \(capacity) bytes on disk")
    }

    /// A reader that follows the events, and is killed in the middle of it.
    func killAReader() throws {
      let process = Process()
      process.executableURL = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath()
        .deletingLastPathComponent().appending(path: "kvstore")
      process.arguments = ["inspect", "events", fixture.configuration.path, "--follow"]
      let output = Pipe()
      process.standardOutput = output
      try process.run()
      _ = output.fileHandleForReading.availableData
      kill(process.processIdentifier, SIGKILL)
      process.waitUntilExit()
    }
  }

  @Test func aTenantAMinute() throws {
    let day = try Day()
    var opens = Costs()
    var forgets = Costs()
    for tenant in 0..<Self.minuteCount {
      try opens.note(day) { _ = try day.open(tenant) }
      let namespace = try day.open(tenant)
      #expect(try namespace.peek(day.prompt(tenant)) == 0, "another tenant's blocks")
      try namespace.offload(day.prompt(tenant))
      if tenant % 10 == 9 { try lookAround(day, tenant) }
      if tenant % 17 == 16 {
        _ = try day.openOne(ofLast: 200, tenant).purge()
      }
      if tenant % 23 == 22 {
        let other = try day.openOne(ofLast: 20, tenant)
        try forgets.note(day) { _ = try other.forget(Array(day.prompt(0).prefix(4))) }
      }
      if tenant % 60 == 59 { try day.killAReader() }
      if tenant % 240 == 119 {
        try day.fixture.reopen { $0.capacityBytes = StoreConfiguration.capacityBytesMin }
        try day.checkBound()
      }
      if tenant % 240 == 179 { try day.fixture.reopen { $0.capacityBytes = Self.capacityBytes } }
      if tenant % 360 == 300 {
        try day.fixture.whileClosed {
          let repair = try Store.repair(day.fixture.configuration)
          #expect(repair.damagedCount == 0)
          // Its keeper looks at what was replaced, and removes it: it is beside the store's bound.
          try FileManager.default.removeItem(atPath: try #require(repair.keptAside))
        }
      }
      day.clock.advance(nanoseconds: Self.minute)
    }
    #expect(opens.isSteady(opens.readByteCounts), "\(opens.readByteCounts)")
    #expect(opens.isSteady(opens.catalogByteCounts), "\(opens.catalogByteCounts)")
    #expect(forgets.isSteady(forgets.readByteCounts), "\(forgets.readByteCounts)")
    #expect(forgets.isSteady(forgets.catalogByteCounts), "\(forgets.catalogByteCounts)")
    // A namespace has blocks, or a quota, or was the last to leave.
    let namespaces = try day.fixture.store.inspector.namespaces()
    let needless = namespaces.filter { $0.blockCount == 0 && $0.quotaBytes == 0 }.count
    #expect(needless < 64 && namespaces.count < 700 + Self.minuteCount / 50, "\(namespaces.count)")
    #expect(day.fixture.store.core.openNamespaceCount <= namespaces.count)
    #expect(try day.fixture.store.verify().findings.isEmpty)
  }

  /// The disk is bounded, and the tenants of the last minutes have their blocks.
  private func lookAround(_ day: Day, _ tenant: Int) throws {
    let flushed = try day.fixture.store.flush()
    #expect(flushed.droppedFullBlockCount == 0 && flushed.droppedErrorBlockCount == 0)
    #expect(flushed.droppedParentBlockCount == 0)
    try day.checkBound()
    #expect(try day.open(tenant).peek(day.prompt(tenant)) == day.prompt(tenant).count / 4)
    let statistics = try day.fixture.store.statistics()
    #expect(statistics.catalogBytesUsed < statistics.catalogBytesCapacity)
  }
}
