import Foundation
import KVAdmin
import KVCore
import KVFile
import KVStore
import KVTestSupport
import Testing

/// Blocks that have to leave the disk go to the archive first, compressed, and come back when they are used.
@Suite struct ArchiveTests {
  private static let identity = StoreFixture.identity([40_000, 24_000])
  private static let slotByteCount = 4096 + 65_536

  /// About 50 slots on disk, and an archive of so many bytes.
  private static func fixture(
    archive: Int = 16 << 20,
    _ change: (inout StoreConfiguration) -> Void = { _ in }
  ) throws -> StoreFixture {
    try StoreFixture {
      $0.capacityBytes = 64 << 20
      $0.catalogBytes = 56 << 20
      $0.archiveBytesMin = 1
      $0.archiveBytes = archive
      $0.archiveFileBytes = 1 << 20
      change(&$0)
    }
  }

  private static func prompt(_ number: Int, blocks: Int = 10) -> [UInt32] {
    QuotaTests.prompt(number, blocks: blocks)
  }

  /// Offloads prompts of ten blocks, each durable.
  private static func fill(_ namespace: Namespace, _ store: Store, _ numbers: Range<Int>) throws {
    for number in numbers {
      try namespace.offload(prompt(number))
      try store.flush()
    }
  }

  private static func bytes(_ folder: String) throws -> Int {
    try EvictionTests.diskBytes(folder)
  }

  private static func expectSound(
    _ store: Store,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    #expect(try store.verify().findings == [], sourceLocation: sourceLocation)
  }

  private static func waitFor(_ condition: () throws -> Bool) throws {
    for _ in 0..<1500 {
      if try condition() { return }
      usleep(20_000)
    }
    Issue.record("it did not come to be")
  }

  @Test func whatLeavesTheDiskIsInTheArchive() throws {
    let fixture = try Self.fixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    try Self.fill(namespace, fixture.store, 0..<15)
    var statistics = try fixture.store.statistics()
    #expect(statistics.blocksDemoted >= 90)
    #expect(statistics.blocksEvicted == 0)
    #expect(statistics.blocksStored == 150)
    // Ten of sixteen bits carry something.
    #expect(statistics.demotedBytesStored * 10 < statistics.demotedBytes * 8)
    #expect(statistics.demotedBytes == statistics.blocksDemoted * 64_000)
    #expect(try Self.bytes(fixture.configuration.path) <= (64 + 16) << 20)
    try Self.expectSound(fixture.store)
    // Nothing of it is in RAM after this.
    try fixture.reopen()
    let again = try fixture.store.openNamespace(Self.identity)
    let match = try again.match(Self.prompt(0))
    #expect(match.blockCount == 10 && match.archiveBlockCount == 10 && match.diskBlockCount == 0)
    _ = try fixture.store.releaseLease(match.lease)
    let newest = try again.match(Self.prompt(14))
    #expect(newest.blockCount == 10 && newest.diskBlockCount == 10)
    _ = try fixture.store.releaseLease(newest.lease)
    // A layer alone first, which promotes nothing to the arena.
    let layer = try again.restore(Self.prompt(0), regions: 1..<2)
    #expect(layer.isRight && layer.result.doneBlockCount == 10)
    for number in 0..<15 {
      let (result, isRight) = try again.restore(Self.prompt(number))
      #expect(isRight && result.doneBlockCount == 10, "prompt \(number)")
    }
    statistics = try fixture.store.statistics()
    #expect(statistics.blocksRestoredArchive > 0)
    #expect(statistics.missesCorrupt == 0)
    #expect(statistics.bytesPerSecondArchive > 0)
    try Self.expectSound(fixture.store)
  }

  @Test func whatIsUsedComesBackToDisk() throws {
    let fixture = try Self.fixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    try Self.fill(namespace, fixture.store, 0..<15)
    try fixture.reopen()
    let again = try fixture.store.openNamespace(Self.identity)
    let cursor = try fixture.store.inspector.summary().events?.upperBound ?? 0
    #expect(try again.restore(Self.prompt(0)).isRight)
    try Self.waitFor { try fixture.store.statistics().blocksPromoted == 10 }
    let summary = try fixture.store.inspector.summary()
    #expect(summary.events.map { $0.upperBound >= cursor + 20 } ?? false)
    try fixture.reopen()
    let last = try fixture.store.openNamespace(Self.identity)
    let match = try last.match(Self.prompt(0))
    #expect(match.diskBlockCount == 10)
    // What went in their stead was the coldest.
    #expect(try last.match(Self.prompt(14)).diskBlockCount == 10)
    let (result, isRight) = try last.restore(Self.prompt(0))
    #expect(isRight && result.doneBlockCount == 10)
    try Self.expectSound(fixture.store)
  }

  /// Beyond the archive's bound the coldest leave the store, leaves first; its bytes stay within the bound all the time.
  @Test func aFullArchiveEvicts() throws {
    let fixture = try Self.fixture(archive: 3 << 20)
    let namespace = try fixture.store.openNamespace(Self.identity)
    for number in 0..<25 {
      try Self.fill(namespace, fixture.store, number..<number + 1)
      #expect(try Self.bytes(fixture.configuration.path + "/archive") <= 3 << 20)
      #expect(try Self.bytes(fixture.configuration.path) <= (64 + 3) << 20)
      try Self.expectSound(fixture.store)
    }
    let statistics = try fixture.store.statistics()
    #expect(statistics.blocksEvicted > 0 && statistics.blocksDemoted > 50)
    #expect(statistics.archiveBytesUsed <= 3 << 20 && statistics.archiveBytesUsed > 2 << 20)
    #expect(statistics.blocksDroppedFull == 0)
    var stored = 0
    for number in 0..<25 {
      let count = try namespace.peek(Self.prompt(number))
      // Tail first, oldest first.
      #expect(stored == 0 || count == 10)
      stored += count
    }
    #expect(stored == Int(statistics.blocksStored) && stored > 60)
  }

  @Test func itMayLieOnAnotherPath() throws {
    let fixture = try Self.fixture()
    try fixture.store.close()
    try FileManager.default.removeItem(atPath: fixture.configuration.path)
    let elsewhere = fixture.folder.appending(path: "elsewhere").path
    fixture.configuration.archivePath = elsewhere
    try fixture.reopenClosed()
    let namespace = try fixture.store.openNamespace(Self.identity)
    try Self.fill(namespace, fixture.store, 0..<12)
    #expect(try Self.bytes(elsewhere) > 2 << 20)
    #expect(try fixture.store.statistics().archiveBytesUsed > 2 << 20)
    // It is chosen once.
    try fixture.store.close()
    fixture.configuration.archivePath = fixture.folder.path
    #expect(throws: StoreError.invalidArgument(.archivePath)) {
      _ = try Store.open(fixture.configuration)
    }
    // A disk that is not there: what lies on it is a miss, and all else goes on.
    fixture.configuration.archivePath = elsewhere
    try FileManager.default.moveItem(atPath: elsewhere, toPath: elsewhere + ".away")
    try fixture.reopenClosed()
    let away = try fixture.store.openNamespace(Self.identity)
    #expect(try away.restore(Self.prompt(0)).result.doneBlockCount == 0)
    #expect(try away.restore(Self.prompt(11)).result.doneBlockCount == 10)
    try away.offload(Self.prompt(100))
    #expect(try fixture.store.flush().durableBlockCount == 10)
    #expect(!FileManager.default.fileExists(atPath: elsewhere))
    try fixture.whileClosed {
      try FileManager.default.moveItem(atPath: elsewhere + ".away", toPath: elsewhere)
    }
    let back = try fixture.store.openNamespace(Self.identity)
    let number = try #require(
      try (0..<12).first { try back.match(Self.prompt($0)).archiveBlockCount == 10 }
    )
    #expect(try back.restore(Self.prompt(number)).isRight)
    try Self.expectSound(fixture.store)
  }

  @Test func damageInTheArchiveIsAMiss() throws {
    let fixture = try Self.fixture()
    try Self.fill(
      try fixture.store.openNamespace(Self.identity),
      fixture.store,
      0..<12
    )
    let folder = fixture.configuration.path + "/archive/"
    try fixture.whileClosed {
      // In the frames of every slot, behind the header.
      for name in try FileManager.default.contentsOfDirectory(atPath: folder) {
        let url = URL(filePath: folder + name)
        var bytes = [UInt8](try Data(contentsOf: url))
        for slot in bytes.ranges(of: Array("KVSLOT".utf8)) { bytes[slot.lowerBound + 4500] ^= 8 }
        try Data(bytes).write(to: url)
      }
    }
    let findings = try fixture.store.verify().findings
    #expect(!findings.isEmpty && findings.allSatisfy { $0.kind == .payload })
    let namespace = try fixture.store.openNamespace(Self.identity)
    #expect(try namespace.match(Self.prompt(0)).archiveBlockCount == 10)
    #expect(try namespace.restore(Self.prompt(0)).result.doneBlockCount == 0)
    #expect(try fixture.store.statistics().missesCorrupt == 1)
    #expect(try namespace.peek(Self.prompt(0)) == 0)
    #expect(try namespace.restore(Self.prompt(11)).isRight)
    // Stored anew it is whole again.
    try Self.fill(namespace, fixture.store, 0..<1)
    #expect(try namespace.restore(Self.prompt(0)).result.doneBlockCount == 10)
  }

  /// A block on disk that is damaged is not handed on to the archive.
  @Test func damageOnDiskStaysThere() throws {
    let fixture = try Self.fixture()
    var namespace = try fixture.store.openNamespace(Self.identity)
    try Self.fill(namespace, fixture.store, 0..<3)
    try fixture.whileClosed {
      let folder = fixture.configuration.path + "/slots/"
      for name in try FileManager.default.contentsOfDirectory(atPath: folder) {
        let url = URL(filePath: folder + name)
        var bytes = [UInt8](try Data(contentsOf: url))
        for slot in bytes.ranges(of: Array("KVSLOT".utf8)) { bytes[slot.lowerBound + 9000] ^= 8 }
        try Data(bytes).write(to: url)
      }
    }
    namespace = try fixture.store.openNamespace(Self.identity)
    try Self.fill(namespace, fixture.store, 3..<15)
    let statistics = try fixture.store.statistics()
    #expect(statistics.blocksDemoted > 0 && statistics.missesCorrupt > 0)
    for number in 0..<15 {
      #expect(try namespace.restore(Self.prompt(number)).isRight, "prompt \(number)")
    }
    for number in 0..<3 { #expect(try namespace.peek(Self.prompt(number)) == 0) }
    try Self.expectSound(fixture.store)
  }

  @Test func repairFindsTheArchive() throws {
    let fixture = try Self.fixture()
    try Self.fill(try fixture.store.openNamespace(Self.identity), fixture.store, 0..<14)
    let archived = try fixture.store.statistics().blocksDemoted
    #expect(archived > 50)
    try fixture.whileClosed {
      try FileManager.default.removeItem(atPath: fixture.configuration.path + "/catalog.mdb")
      let repair = try Store.repair(fixture.configuration)
      #expect(repair.blockCount == 140 && repair.damagedCount == 0)
    }
    let namespace = try fixture.store.openNamespace(Self.identity)
    #expect(try namespace.match(Self.prompt(0)).archiveBlockCount == 10)
    for number in 0..<14 {
      let (result, isRight) = try namespace.restore(Self.prompt(number))
      #expect(isRight && result.doneBlockCount == 10, "prompt \(number)")
    }
    try Self.expectSound(fixture.store)
    // The archive's slots are taken on as they were: it goes on.
    try Self.fill(namespace, fixture.store, 20..<25)
    try Self.expectSound(fixture.store)
  }

  @Test func purgedBlocksAreOverwrittenInTheArchiveToo() throws {
    let fixture = try Self.fixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    try Self.fill(namespace, fixture.store, 0..<14)
    #expect(try fixture.store.statistics().blocksDemoted > 50)
    #expect(try namespace.purge() == 140)
    try Self.waitFor { try fixture.store.statistics().slotsErasePending == 0 }
    for folder in ["/slots/", "/archive/"] {
      let path = fixture.configuration.path + folder
      for name in try FileManager.default.contentsOfDirectory(atPath: path) {
        let bytes = [UInt8](try Data(contentsOf: URL(filePath: path + name)))
        #expect(bytes.ranges(of: Array("KVSLOT".utf8)).isEmpty, "\(folder)\(name)")
      }
    }
    try Self.expectSound(fixture.store)
  }

  /// Leases and slots of several namespaces and sizes, payload that does not shrink: nothing of it is ever wrong.
  @Test func severalSizesShareIt() throws {
    let fixture = try Self.fixture(archive: 5 << 20)
    let identities = [[40_000, 24_000], [90_000], [17_000, 3000]].map { StoreFixture.identity($0) }
    let namespaces = try identities.map { try fixture.store.openNamespace($0) }
    var random = SystemRandomNumberGenerator()
    for step in 0..<120 {
      let namespace = namespaces[step % 3]
      let prompt = Self.prompt(Int.random(in: 0..<30, using: &random), blocks: 4)
      try namespace.offload(prompt)
      if step % 2 == 0 { try fixture.store.flush() }
      let other = namespaces[Int.random(in: 0..<3, using: &random)]
      let (_, isRight) = try other.restore(
        Self.prompt(Int.random(in: 0..<30, using: &random), blocks: 4)
      )
      #expect(isRight)
      if step % 20 == 0 { try Self.expectSound(fixture.store) }
    }
    try fixture.store.flush()
    #expect(try Self.bytes(fixture.configuration.path) <= (64 + 5) << 20)
    #expect(try fixture.store.statistics().missesCorrupt == 0)
    try Self.expectSound(fixture.store)
  }
}

/// An archive that stops to answer is given up, and taken up again when it does.
@Suite struct HungArchiveTests {
  private static let identity = StoreFixture.identity([40_000, 24_000])

  @Test(arguments: [FileOperation.write, .sync, .allocate])
  func offloadsGoOn(_ operation: FileOperation) throws {
    let storage = FaultInjectingStorage()
    let fixture = try StoreFixture {
      $0.capacityBytes = 64 << 20
      $0.catalogBytes = 56 << 20
      $0.archiveBytesMin = 1
      $0.archiveBytes = 16 << 20
      $0.archiveFileBytes = 1 << 20
      $0.archiveLimitNanoseconds = 50_000_000
      $0.storage = storage
    }
    defer { storage.release() }
    let namespace = try fixture.store.openNamespace(Self.identity)
    func fill(_ numbers: Range<Int>) throws {
      for number in numbers {
        let prompt = QuotaTests.prompt(number, blocks: 10)
        #expect(try namespace.offload(prompt).doneBlockCount == 10)
        let flushed = try fixture.store.flush()
        #expect(flushed.durableBlockCount == 10)
      }
    }
    try fill(0..<8)
    #expect(try fixture.store.statistics().blocksDemoted > 0)
    storage.hold(operation, at: "/archive/")
    try fill(8..<30)
    #expect(storage.heldCount > 0)
    let stuck = try fixture.store.statistics()
    #expect(stuck.blocksEvicted > 0)
    // The disk is as good as ever.
    for number in 27..<30 {
      let prompt = QuotaTests.prompt(number, blocks: 10)
      let (result, isRight) = try namespace.restore(prompt)
      #expect(result.doneBlockCount == 10 && isRight)
    }
    storage.release()
    var next = 30
    for _ in 0..<200 where try fixture.store.statistics().blocksDemoted == stuck.blocksDemoted {
      try fill(next..<next + 1)
      next += 1
      usleep(20_000)
    }
    #expect(try fixture.store.statistics().blocksDemoted > stuck.blocksDemoted)
    #expect(try fixture.store.verify().findings == [])
    // Whatever is there is right.
    for number in 0..<next {
      let prompt = QuotaTests.prompt(number, blocks: 10)
      let count = try namespace.peek(prompt)
      guard count > 0 else { continue }
      let (result, isRight) = try namespace.restore(QuotaTests.prompt(number, blocks: count))
      #expect(result.doneBlockCount == count && isRight)
    }
    try fixture.store.close()
  }
}
