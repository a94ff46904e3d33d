import Foundation
import KVAdmin
import KVCore
import KVStore
import Testing

/// `verify` finds no fault in a sound store, and each kind of damage.
@Suite struct VerifyTests {
  private static let identity = StoreFixture.identity([40_000, 24_000])
  private static let inlineIdentity = StoreFixture.identity([600]) { $0.modelName = "inline" }
  private static let slotByteCount = 4096 + 65_536
  private static let prompt = tokens(0..<40)

  /// Two namespaces (slots, inline), forks, a forgotten branch.
  private static func fill(_ store: Store) throws {
    for identity in [identity, inlineIdentity] {
      let namespace = try store.openNamespace(identity)
      try namespace.offload(prompt)
      try namespace.offload(tokens(0..<20) + tokens(100..<120))
      try namespace.offload(tokens(0..<8) + tokens(200..<212))
      try store.flush()
      #expect(try namespace.forget(tokens(0..<8) + tokens(200..<204)) == 3)
    }
  }

  private static let blockCount = 2 * (10 + 5)

  private static func file(_ fixture: StoreFixture, _ name: String) throws -> URL {
    if name != "slots" { return URL(filePath: fixture.configuration.path + "/" + name) }
    let folder = fixture.configuration.path + "/slots"
    let first = try #require(try FileManager.default.contentsOfDirectory(atPath: folder).first)
    return URL(filePath: folder + "/" + first)
  }

  /// Closes the store, changes a file, opens it again.
  private static func damaged(
    _ name: String,
    _ change: (inout [UInt8]) throws -> Void
  ) throws -> StoreFixture {
    let fixture = try StoreFixture()
    try fill(fixture.store)
    let url = try file(fixture, name)
    try fixture.whileClosed {
      var bytes = [UInt8](try Data(contentsOf: url))
      try change(&bytes)
      try Data(bytes).write(to: url)
    }
    return fixture
  }

  @Test func aSoundStoreHasNoFindings() throws {
    let fixture = try StoreFixture()
    #expect(try fixture.store.verify().isSound)
    try Self.fill(fixture.store)
    for _ in 0..<2 {
      let result = try fixture.store.verify()
      #expect(result.findings == [])
      #expect(result.blockCount == Self.blockCount)
      #expect(result.headerCount == Self.blockCount && result.payloadCount == Self.blockCount)
      #expect(result.payloadByteCount == UInt64(15 * (64_000 + 600)))
      #expect(result.namespaceCount == 2 && result.runCount == 4)
      #expect(result.leftOver == .init())
      #expect(!result.wasWritten)
      try fixture.reopen()
    }
    var quick = VerifyOptions()
    quick.checksPayload = false
    let result = try fixture.store.verify(quick)
    #expect(result.isSound && result.headerCount == Self.blockCount && result.payloadCount == 0)
  }

  @Test func aFullStoreThatEvictedIsSound() throws {
    let fixture = try StoreFixture {
      $0.capacityBytes = 64 << 20
      $0.catalogBytes = 4 << 20
    }
    let namespace = try fixture.store.openNamespace(Self.identity)
    for prompt in 0..<120 {
      try namespace.offload(
        [UInt32(prompt % 3), 1, 2, 3] + tokens(prompt * 100..<prompt * 100 + 36)
      )
    }
    try fixture.store.flush()
    #expect(try fixture.store.statistics().blocksEvicted > 0)
    #expect(try fixture.store.verify().findings == [])
  }

  /// Another thread offloads and evicts while it looks: no finding, since nothing is wrong.
  @Test func nothingIsFoundBesideAWriter() throws {
    let fixture = try StoreFixture {
      $0.capacityBytes = 64 << 20
      $0.catalogBytes = 4 << 20
    }
    let store = fixture.store
    let namespace = try store.openNamespace(Self.identity)
    let group = DispatchGroup()
    let failures = Monitor(0)
    DispatchQueue.global().async(group: group) {
      for round in 0..<60 {
        do {
          try namespace.offload(tokens(0..<8) + tokens(round * 50..<round * 50 + 40))
          try store.flush()
        } catch { failures.withLock { $0 += 1 } }
      }
    }
    var writtenCount = 0
    while group.wait(timeout: .now()) == .timedOut {
      let result = try store.verify()
      #expect(result.findings == [])
      if result.wasWritten { writtenCount += 1 }
    }
    #expect(failures.withLock { $0 } == 0)
    #expect(writtenCount > 0)
    #expect(try store.verify().findings == [])
  }

  // MARK: Slot files

  @Test(arguments: [0, 8, 12, 24, 28, 40, 48, 60, 75, 90, 110, 120, 130, 150, 170, 195, 200])
  func aFlippedByteOfAHeaderIsFound(_ offset: Int) throws {
    let fixture = try Self.damaged("slots") { $0[3 * Self.slotByteCount + offset] ^= 0x10 }
    let result = try fixture.store.verify()
    #expect(result.findings.map(\.kind) == [.slotHeader])
    #expect(result.headerCount == Self.blockCount - 1)
  }

  @Test(arguments: [4096, 30_000, 44_095, 44_096, 4096 + 63_999])
  func aFlippedByteOfThePayloadIsFound(_ offset: Int) throws {
    let fixture = try Self.damaged("slots") { $0[3 * Self.slotByteCount + offset] ^= 0x10 }
    #expect(try fixture.store.verify().findings.map(\.kind) == [.payload])
    var quick = VerifyOptions()
    quick.checksPayload = false
    #expect(try fixture.store.verify(quick).isSound)
  }

  @Test func swappedSlotsAreFound() throws {
    let fixture = try Self.damaged("slots") { bytes in
      let (a, b) = (2 * Self.slotByteCount, 3 * Self.slotByteCount)
      let first = Array(bytes[a..<b])
      bytes.replaceSubrange(a..<b, with: bytes[b..<b + Self.slotByteCount])
      bytes.replaceSubrange(b..<b + Self.slotByteCount, with: first)
    }
    #expect(try fixture.store.verify().findings.map(\.kind) == [.slotHeader, .slotHeader])
  }

  @Test func aCutOffSlotFileIsFound() throws {
    let fixture = try Self.damaged("slots") { $0 = Array($0[..<(4 * Self.slotByteCount + 100)]) }
    let kinds = try fixture.store.verify().findings.map(\.kind)
    #expect(kinds.count == 12 && kinds.allSatisfy { $0 == .slotFile })
  }

  @Test func anAbsentSlotFileIsFound() throws {
    let fixture = try StoreFixture()
    try Self.fill(fixture.store)
    let url = try Self.file(fixture, "slots")
    try fixture.whileClosed { try FileManager.default.removeItem(at: url) }
    let kinds = Set(try fixture.store.verify().findings.map(\.kind))
    #expect(kinds == [.unreadable, .slotFile])
  }

  @Test func anAbsentIdentityRecordIsFound() throws {
    // The store's record of 40 + 76 bytes comes first, then the namespaces'.
    for offset in [60, 40 + 76 + 40 + 20] {
      let fixture = try Self.damaged("identities.kvs") { $0[offset] ^= 1 }
      let found = try fixture.store.verify().findings
      #expect(found.map(\.kind) == [.identityRecord], "\(offset)")
    }
  }

  // MARK: The catalog

  /// Block rows, and the rows of every other table, by a part of their contents.
  @Test func aFlippedByteOfARowIsFound() throws {
    let words = tokens(16..<20).flatMap { word in
      (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
    }
    for offset in [0, 5, words.count - 1] {
      let fixture = try Self.damaged("catalog.mdb") { bytes in
        let places = bytes.ranges(of: words)
        #expect(!places.isEmpty)
        for place in places { bytes[place.lowerBound + offset] ^= 4 }
      }
      let kinds = try fixture.store.verify().findings.map(\.kind)
      #expect(kinds.contains(.checksum), "\(offset)")
    }
  }

  /// Rows whose checksum fits, and which say something wrong: a slot that two blocks claim, a key that leads elsewhere.
  @Test func contradictionsBehindRightChecksumsAreFound() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    try namespace.offload(Self.prompt)
    try fixture.store.flush()
    let id = namespace.id.rawValue
    let url = try Self.file(fixture, "catalog.mdb")
    try fixture.whileClosed {
      var bytes = [UInt8](try Data(contentsOf: url))
      // The row at position 3 gets the place of the row at position 2.
      for (value, key) in bytes.blockRows(namespace: id, wordCount: 4)
      where key.suffix(4) == [0, 0, 0, 3] {
        var row = Array(bytes[value])
        let two = bytes.blockRows(namespace: id, wordCount: 4).first {
          $0.key.suffix(4) == [0, 0, 0, 2]
        }
        let other = try #require(two)
        row.replaceSubrange(
          48..<80,
          with: bytes[other.value][(other.value.lowerBound + 48)..<(other.value.lowerBound + 80)]
        )
        bytes.replaceSubrange(value, with: checksummed(row, tag: 3, key: key))
      }
      try Data(bytes).write(to: url)
    }
    let kinds = Set(try fixture.store.verify().findings.map(\.kind))
    #expect(kinds == [.slotTwice, .slotHeader, .slotOfNobody])
  }

  // MARK: What dead processes leave

  @Test func leftOversAreCountedAndNoFault() throws {
    let fixture = try StoreFixture()
    try Self.fill(fixture.store)
    let path = fixture.configuration.path
    try fixture.whileClosed {
      try Data("x".utf8).write(to: URL(filePath: path + "/owners/000000fe.lock"))
      try Data(count: 4096).write(to: URL(filePath: path + "/slots/0200000777.kvs"))
      // Looked at only: an open for writing frees what is left over.
      var configuration = fixture.configuration
      configuration.readOnly = true
      let store = try Store.open(configuration)
      let result = try store.verify()
      try store.close()
      #expect(result.isSound)
      #expect(result.leftOver.ownerFileCount == 1 && result.leftOver.slotFileCount == 1)
      #expect(result.leftOver.leaseCount == 0)
    }
    // On the writer's thread, soon after.
    let deadline = ContinuousClock.now + .seconds(60)
    while try fixture.store.verify().leftOver != .init(), ContinuousClock.now < deadline {
      usleep(10_000)
    }
    #expect(try fixture.store.verify().leftOver == .init())
    // A lease of owner 254, who is gone: its id and its owner are the first two words of the table.
    var status = stat()
    #expect(stat(path + "/catalog.mdb", &status) == 0)
    let name = String(format: "%016lx-%016lx", Int(status.st_dev), Int(status.st_ino))
    let table = "/dev/shm/kvstore-\(status.st_uid)/\(name)/shared"
    guard let file = FileHandle(forWritingAtPath: table) else {
      // Where there is no tmpfs, it lies in the store's folder.
      #expect(FileManager.default.fileExists(atPath: path + "/memory"))
      return
    }
    try file.write(contentsOf: Data([5, 0, 1, 0, 0, 0, 0, 0, 0xFE, 0, 0, 0, 0, 0, 0, 0]))
    try file.close()
    #expect(try fixture.store.verify().leftOver.leaseCount == 1)
  }
}
