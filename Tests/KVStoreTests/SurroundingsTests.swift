import Foundation
import KVCatalog
import KVCore
import KVStore
import KVTestSupport
import Synchronization
import Testing

/// What surrounds a store misbehaves: memory is refused, the clock jumps, a dead process and a crash left their files.
@Suite struct SurroundingsTests {
  private static let identity = StoreFixture.identity([131_072, 131_072])

  private static func prompt(_ number: Int) -> [UInt32] {
    (0..<32).map { UInt32(number * 100_000 + $0) }
  }

  // MARK: Memory

  /// Whether the address or thread sanitizer runs, which takes up more addresses than any limit allows.
  static var isSanitized: Bool {
    dlsym(nil, "__asan_init") != nil || dlsym(nil, "__tsan_init") != nil
  }

  @Test(.enabled(if: !isSanitized)) func refusedMemoryIsAStatus() async {
    await #expect(processExitsWith: .exitCode(0)) {
      let folder = try TemporaryFolder()
      let used =
        (try String(contentsOfFile: "/proc/self/statm", encoding: .utf8))
        .split(separator: " ").first.flatMap { UInt(String($0)) } ?? 0
      var limit = rlimit()
      limit.rlim_cur = used * 4096 + 1 << 30
      limit.rlim_max = limit.rlim_cur
      guard setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0 else { exit(10) }

      var configuration = StoreConfiguration(path: folder.path + "/store")
      configuration.capacityBytes = 64 << 30
      // The catalog's map, then the arena.
      configuration.catalogBytes = 16 << 30
      guard Self.error(configuration) == .outOfMemory else { exit(11) }
      configuration.catalogBytes = 32 << 20
      configuration.hostBytes = 4 << 30
      guard Self.error(configuration) == .outOfMemory else { exit(12) }
      configuration.hostBytes = 32 << 20
      let store = try Store.open(configuration)
      try store.openNamespace(Self.identity).offload(Self.prompt(0))
      guard try store.flush().durableBlockCount == 8 else { exit(13) }
      try store.close()
      exit(0)
    }
  }

  private static func error(_ configuration: StoreConfiguration) -> StoreError? {
    do throws(StoreError) {
      _ = try Store.open(configuration)
      return nil
    } catch {
      return error
    }
  }

  // MARK: Time

  private final class SteppingClock: StoreClock {
    let real = Atomic<UInt64>(1_800_000_000_000_000_000)
    let boot = Atomic<UInt64>(1_000_000_000_000)
    func realTimeNanoseconds() -> UInt64 { real.load(ordering: .relaxed) }
    func bootTimeNanoseconds() -> UInt64 { boot.load(ordering: .relaxed) }
  }

  @Test func aClockThatJumpsLosesNothing() throws {
    let clock = SteppingClock()
    let fixture = try StoreFixture { $0.clock = clock }
    let namespace = try fixture.store.openNamespace(Self.identity)
    let year: UInt64 = 365 * 86_400_000_000_000
    let start = clock.realTimeNanoseconds()
    let times = [start, start - 10 * year, start + 100 * year, 0, start]
    var lease: UInt64 = 0
    for (number, time) in times.enumerated() {
      clock.real.store(time, ordering: .relaxed)
      try namespace.offload(Self.prompt(number))
      #expect(try fixture.store.flush().durableBlockCount == 8)
      // Leases run by the time since boot: none of this ends one.
      if number == 0 { lease = try namespace.match(Self.prompt(0)).lease }
      #expect(try fixture.store.extendLease(lease, nanoseconds: 60_000_000_000))
    }
    clock.boot.add(61_000_000_000, ordering: .relaxed)
    #expect(try !fixture.store.extendLease(lease, nanoseconds: 60_000_000_000))
    try fixture.reopen()
    let reopened = try fixture.store.openNamespace(Self.identity)
    for number in times.indices {
      let (result, isRight) = try reopened.restore(Self.prompt(number))
      #expect(isRight && result.doneBlockCount == 8, "written at \(times[number])")
    }
    try fixture.whileClosed {
      var options = CatalogOptions(path: fixture.configuration.path + "/catalog.mdb")
      options.lock = .none
      let catalog = try Catalog(options)
      // While a store is open, steps of the wall's clock do not count; committed time never goes back.
      let committed = try catalog.read { (transaction) throws(CatalogError) in
        try transaction.lastCommittedNanoseconds()
      }
      #expect(committed >= start && committed < start + year)
      catalog.close()
    }
  }

  // MARK: Files of the dead

  @Test func whatTheDeadLeftIsInNobodysWay() throws {
    let fixture = try StoreFixture {
      $0.capacityBytes = 64 << 20
      $0.hostBytes = 8 << 20
    }
    try fixture.store.openNamespace(Self.identity).offload(Self.prompt(0))
    try fixture.whileClosed {
      let path = fixture.configuration.path
      var generator = SeededGenerator(seed: 1)
      func garbage(_ count: Int) -> Data {
        Data((0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) })
      }
      // What an older library mapped, after a power cut; a process number that nobody holds; a creation that did not end.
      try garbage(200 * 48).write(to: URL(filePath: path + "/leases"))
      try garbage(8192).write(to: URL(filePath: path + "/catalog.mdb-lock"))
      try garbage(16).write(to: URL(filePath: path + "/owners/00000099.lock"))
      try garbage(5000).write(to: URL(filePath: path + "/catalog.new"))
      try garbage(10).write(to: URL(filePath: path + "/identities.kvs.torn"))
    }
    let namespace = try fixture.store.openNamespace(Self.identity)
    #expect(!FileManager.default.fileExists(atPath: fixture.configuration.path + "/leases"))
    let (result, isRight) = try namespace.restore(Self.prompt(0))
    #expect(isRight && result.doneBlockCount == 8)
    for number in 1..<30 {
      try namespace.offload(Self.prompt(number))
      #expect(try fixture.store.flush().durableBlockCount == 8)
    }
    #expect(try fixture.store.statistics().blocksEvicted > 0)
    #expect(try namespace.match(Self.prompt(29)).lease != 0)
  }
}
