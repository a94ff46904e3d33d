import Foundation
import KVAdmin
import KVCore
import KVFile
import KVStore
import KVTestSupport
import Testing

/// Namespaces leave when they hold nothing, and come back as new ones.
@Suite struct NamespaceLifeTests {
  private static func identity(_ name: String, payload: Int = 1000) -> NamespaceIdentity {
    StoreFixture.identity([payload]) { $0.salt = Array(name.utf8) }
  }

  private static func numbers(_ fixture: StoreFixture) throws -> [UInt32] {
    try fixture.store.inspector.namespaces().map(\.id.rawValue)
  }

  private static func identityByteCount(_ fixture: StoreFixture) throws -> Int {
    let path = fixture.configuration.path + "/identities.kvs"
    return try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0
  }

  /// A salt for each request: neither catalog, file nor memory grow with them.
  @Test func strangersLeave() throws {
    let fixture = try StoreFixture()
    let kept = try fixture.store.openNamespace(Self.identity("kept"))
    try kept.offload(QuotaTests.prompt(1))
    try fixture.store.flush()
    var seen: Set<UInt32> = []
    var used: [UInt64] = []
    for number in 0..<1500 {
      let namespace = try fixture.store.openNamespace(Self.identity("\(number)"))
      #expect(seen.insert(namespace.id.rawValue).inserted, "a number is given once")
      if number % 500 == 499 { used.append(try fixture.store.statistics().catalogBytesUsed) }
    }
    #expect(try Self.numbers(fixture).count < 40)
    #expect(used[2] <= used[0] + 64 << 10, "\(used)")
    #expect(try Self.identityByteCount(fixture) < 600 << 10)
    #expect(fixture.store.core.openNamespaceCount < 20)
    #expect(try kept.peek(QuotaTests.prompt(1)) == 4)
    #expect(try fixture.store.verify().findings.isEmpty)
    try fixture.reopen()
    #expect(try fixture.store.collectGarbage().namespaceCount > 0)
    #expect(try Self.numbers(fixture) == [kept.id.rawValue])
    #expect(try fixture.store.openNamespace(Self.identity("kept")).peek(QuotaTests.prompt(1)) == 4)
    #expect(try fixture.store.openNamespace(Self.identity("again")).id.rawValue > 1500)
  }

  /// Blocks, a quota, a pin and a handle keep one; a handle that was closed keeps it no longer than its blocks are on their way.
  @Test func whatKeepsOne() throws {
    let fixture = try StoreFixture()
    let open = try fixture.store.openNamespace(Self.identity("open"))
    var limits = NamespaceLimits()
    limits.quotaBytes = 1 << 30
    _ = try fixture.store.openNamespace(Self.identity("quota"), limits: limits)
    do {
      let closed = try fixture.store.openNamespace(Self.identity("blocks"))
      try closed.offload(QuotaTests.prompt(2))
    }
    _ = try fixture.store.openNamespace(Self.identity("nothing"))
    #expect(try fixture.store.collectGarbage().namespaceCount == 1)
    try fixture.store.flush()
    #expect(try fixture.store.collectGarbage().namespaceCount == 0)
    #expect(try Self.numbers(fixture).count == 3)
    // One that another process may write to, as the kernel tells of it.
    do {
      _ = try fixture.store.openNamespace(Self.identity("other"))
      let other = try #require(try Self.numbers(fixture).last)
      let file = try FileDescriptor.open(
        fixture.configuration.path + "/catalog.mdb",
        mode: .existing
      )
      #expect(try file.tryDescriptionLock(at: 1 << 62 + UInt64(other), isExclusive: false))
      #expect(try fixture.store.collectGarbage().namespaceCount == 0)
    }
    #expect(try fixture.store.collectGarbage().namespaceCount == 1)
    try open.offload(QuotaTests.prompt(3))
    #expect(try fixture.store.flush().durableBlockCount == 4)
    #expect(try open.purge() == 4)
    let again = try fixture.store.openNamespace(Self.identity("blocks"))
    #expect(try again.peek(QuotaTests.prompt(2)) == 4)
  }

  /// One that was just made is nobody's to remove before it is used.
  @Test func whatOneOpensAnotherDoesNotRemove() throws {
    let fixture = try StoreFixture()
    let store = fixture.store
    DispatchQueue.concurrentPerform(iterations: 4) { thread in
      for number in 0..<120 {
        do {
          // Shared with the other threads, and there for a moment only.
          let namespace = try store.openNamespace(Self.identity("\((number + thread) % 5)"))
          if number % 30 == 0 { try namespace.offload(QuotaTests.prompt(number)) }
        } catch {
          Issue.record("\(error)")
        }
      }
    }
    #expect(try store.flush().droppedParentBlockCount == 0)
  }

  /// A reservation, and an operation that runs, may outlive the handle.
  @Test func aReservationKeepsOne() throws {
    let fixture = try StoreFixture()
    let prompt = QuotaTests.prompt(4)
    let reservation = try { () throws -> OffloadReservation in
      let namespace = try fixture.store.openNamespace(Self.identity("reserved"))
      return try namespace.reserve(prompt)
    }()
    #expect(try fixture.store.collectGarbage().namespaceCount == 0)
    for block in reservation.blocks {
      _ = reservation.withMutableBytes(block: block, region: 0) {
        $0.copyBytes(from: regionBytes(prompt.prefix((block + 1) * 4), region: 0, count: 1000))
      }
    }
    _ = try reservation.commit()
    try fixture.store.flush()
    let namespace = try fixture.store.openNamespace(Self.identity("reserved"))
    #expect(try namespace.peek(prompt) == 4)
  }

  /// An identity that left and came back has a new number; a repair gives its new blocks back, and nothing of what it once forgot.
  @Test(arguments: [false, true]) func aRepairKnowsTheNewNumber(catalogIsLost: Bool) throws {
    let fixture = try StoreFixture { $0.capacityBytes = 64 << 20 }
    let (old, new) = (QuotaTests.prompt(5), QuotaTests.prompt(6))
    var firstNumber: UInt32 = 0
    do {
      let namespace = try fixture.store.openNamespace(Self.identity("tenant", payload: 20_000))
      firstNumber = namespace.id.rawValue
      try namespace.offload(old)
      try fixture.store.flush()
      _ = try namespace.forget([])
    }
    #expect(try fixture.store.collectGarbage().namespaceCount == 1)
    // The file is replaced: the record of the first number is gone, with what was forgotten under it.
    for number in 0..<1800 { _ = try fixture.store.openNamespace(Self.identity("\(number)")) }
    #expect(try Self.identityByteCount(fixture) < 600 << 10)
    let namespace = try fixture.store.openNamespace(Self.identity("tenant", payload: 20_000))
    let number = namespace.id.rawValue
    #expect(number > firstNumber)
    try namespace.offload(new)
    try fixture.store.flush()
    try fixture.whileClosed {
      let path = fixture.configuration.path + "/catalog.mdb"
      if catalogIsLost {
        try FileManager.default.removeItem(atPath: path)
      } else {
        // Both meta pages: LMDB refuses it, its pages are there.
        var bytes = try Data(contentsOf: URL(filePath: path))
        for page in 0..<2 { bytes[page * 4096 + 16] ^= 0xFF }
        try bytes.write(to: URL(filePath: path))
      }
      let repair = try Store.repair(fixture.configuration)
      #expect(repair.blockCount == 4 && repair.damagedCount == 0)
    }
    let repaired = try fixture.store.openNamespace(Self.identity("tenant", payload: 20_000))
    #expect(repaired.id.rawValue == number)
    #expect(try repaired.peek(new) == 4)
    #expect(try repaired.peek(old) == 0)
    #expect(try fixture.store.openNamespace(Self.identity("new")).id.rawValue > number)
    #expect(try fixture.store.verify().findings.isEmpty)
  }

  /// So many tenants with blocks that their identities do not fit: the coldest leave, the newest stay, and the bound holds.
  @Test func theNewestTenantsStay() throws {
    let fixture = try StoreFixture { $0.capacityBytes = 64 << 20 }
    func identity(_ number: Int) -> NamespaceIdentity {
      StoreFixture.identity([5000]) {
        $0.salt = Array("tenant \(number)".utf8)
        $0.layout = String(repeating: "layout ", count: 280)
      }
    }
    let hot = try fixture.store.openNamespace(identity(0))
    try hot.offload(QuotaTests.prompt(0))
    for number in 1...1000 {
      let prompt = Array(QuotaTests.prompt(number).prefix(4))
      try fixture.store.openNamespace(identity(number)).offload(prompt)
      if number % 100 == 0 {
        let flushed = try fixture.store.flush()
        #expect(flushed.durableBlockCount == (number == 100 ? 104 : 100), "\(flushed)")
        let onDisk = try EvictionTests.diskBytes(fixture.configuration.path)
        #expect(onDisk <= fixture.configuration.capacityBytes)
        #expect(try Self.identityByteCount(fixture) <= 1536 << 10)
      }
    }
    for number in 950...1000 {
      let namespace = try fixture.store.openNamespace(identity(number))
      #expect(try namespace.peek(Array(QuotaTests.prompt(number).prefix(4))) == 1)
    }
    // Somebody has it open.
    #expect(try hot.peek(QuotaTests.prompt(0)) == 4)
    #expect(try fixture.store.verify().findings.isEmpty)
  }
}
