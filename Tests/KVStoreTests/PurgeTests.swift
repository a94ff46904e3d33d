import Foundation
import KVAdmin
import KVCore
import KVFile
import KVStore
import KVTestSupport
import Testing

/// A purged namespace is gone at once, and its payload is overwritten soon after.
@Suite struct PurgeTests {
  private static let identity = StoreFixture.identity([40_000, 24_000])
  private static let neighbour = StoreFixture.identity([40_000, 24_000]) { $0.modelName = "other" }

  /// What each slot begins with that has been written.
  private static let slotMagic: [UInt8] = [0x4B, 0x56, 0x53, 0x4C, 0x4F, 0x54, 0x01, 0x0A]

  private static func waitUntilErased(_ store: Store) throws {
    var waitCount = 0
    while try store.statistics().slotsErasePending > 0, waitCount < 3000 {
      waitCount += 1
      usleep(10_000)
    }
    #expect(try store.statistics().slotsErasePending == 0)
  }

  /// Payload of a block as it would lie in its slot.
  private static func payload(_ prompt: [UInt32], block: Int) -> [UInt8] {
    Array(regionBytes([0] + prompt[..<((block + 1) * 4)], region: 0, count: 40_000).prefix(512))
  }

  /// A prefix with all below it, and what a session has alone.
  @Test func aPrefixAndASessionsTail() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    let shared = tokens(0..<40)
    let sessions = (1...3).map { shared + tokens($0 * 1000..<$0 * 1000 + 40) }
    // The second one goes on where a sub-session of it branches off.
    let deeper = sessions[1] + tokens(9000..<9020)
    for prompt in sessions + [deeper] { try namespace.offload(prompt) }
    try fixture.store.flush()
    #expect(try fixture.store.statistics().blocksStored == 45)
    let purge: ([UInt32], Bool) throws -> Int = { prompt, onlyTail in
      try Prompt.with(prompt) { (prompt) throws(StoreError) in
        try namespace.purge(prompt, onlyTail: onlyTail)
      }
    }
    #expect(try purge(sessions[0], true) == 10)
    // Its longest stored prefix is what others share by now.
    #expect(try purge(sessions[0], true) == 0)
    #expect(try namespace.peek(sessions[0]) == 10)
    // Others go on from its end.
    #expect(try purge(sessions[1], true) == 0)
    // More than what is stored of it is fine.
    #expect(try purge(deeper + tokens(1..<9), true) == 15)
    #expect(try namespace.peek(sessions[1]) == 10 && namespace.peek(sessions[2]) == 20)
    try fixture.reopen()
    let again = try fixture.store.openNamespace(Self.identity)
    #expect(try again.peek(sessions[1]) == 10 && again.peek(sessions[2]) == 20)
    // The only path that is left is its own from the first block on.
    #expect(
      try Prompt.with(sessions[2]) { (prompt) throws(StoreError) in
        try again.purge(prompt, onlyTail: true)
      } == 20
    )
    try again.offload(sessions[0])
    try again.offload(sessions[1])
    #expect(
      try Prompt.with(tokens(0..<20)) { (prompt) throws(StoreError) in try again.purge(prompt) }
        == 26
    )
    #expect(try again.peek(sessions[0]) == 4)
    try Self.waitUntilErased(fixture.store)
    #expect(try fixture.store.statistics().slotsErased >= 45)
    #expect(try fixture.store.verify().findings == [])
    // What was purged does not come back.
    try fixture.whileClosed {
      try FileManager.default.removeItem(atPath: fixture.configuration.path + "/catalog.mdb")
      #expect(try Store.repair(fixture.configuration).blockCount == 4)
    }
  }

  @Test func purgedSlotsAreOverwritten() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    let other = try fixture.store.openNamespace(Self.neighbour)
    for prompt in 0..<8 {
      try namespace.offload(tokens(prompt * 100..<prompt * 100 + 80))
      try other.offload(tokens(prompt * 100..<prompt * 100 + 80))
    }
    try fixture.store.flush()
    let folder = fixture.configuration.path + "/slots/"
    let found: (Bool) throws -> Int = { isPurged in
      var count = 0
      for name in try FileManager.default.contentsOfDirectory(atPath: folder) {
        let bytes = [UInt8](try Data(contentsOf: URL(filePath: folder + name)))
        for prompt in 0..<8 {
          let pattern = Self.payload(tokens(prompt * 100..<prompt * 100 + 80), block: 3)
          count += bytes.ranges(of: pattern).count
        }
      }
      return count
    }
    // The same bytes in both namespaces.
    #expect(try found(false) == 16)
    #expect(try namespace.purge() == 160)
    #expect(try namespace.peek(tokens(0..<80)) == 0)
    #expect(try namespace.restore(tokens(0..<80)).result.doneBlockCount == 0)
    try Self.waitUntilErased(fixture.store)
    #expect(try fixture.store.statistics().slotsErased == 160)
    #expect(try found(true) == 8)
    #expect(try fixture.store.verify().findings == [])
    let (result, isRight) = try other.restore(tokens(0..<80))
    #expect(isRight && result.doneBlockCount == 20)
    #expect(try namespace.purge() == 0)
  }

  /// Blocks that moved to the archive, and some of them back: no copy is left on either.
  @Test(arguments: [true, false]) func copiesOfMovedBlocksAreOverwritten(_ whole: Bool) throws {
    let fixture = try StoreFixture {
      $0.capacityBytes = 64 << 20
      $0.catalogBytes = 56 << 20
      $0.archiveBytesMin = 1
      $0.archiveBytes = 16 << 20
      $0.archiveFileBytes = 1 << 20
    }
    let namespace = try fixture.store.openNamespace(Self.identity)
    let prompts = (0..<15).map { QuotaTests.prompt($0, blocks: 10) }
    for prompt in prompts {
      try namespace.offload(prompt)
      try fixture.store.flush()
    }
    #expect(try fixture.store.statistics().blocksDemoted > 80)
    // Some come back to disk, where others leave for them: each move leaves a copy on the other side.
    try fixture.reopen()
    let again = try fixture.store.openNamespace(Self.identity)
    #expect(try again.restore(prompts[0]).isRight)
    var waitCount = 0
    while try fixture.store.statistics().blocksPromoted < 10, waitCount < 1500 {
      waitCount += 1
      usleep(20_000)
    }
    #expect(try fixture.store.statistics().blocksPromoted == 10)
    if whole {
      #expect(try again.purge() == 150)
    } else {
      for prompt in prompts {
        let count = try Prompt.with(Array(prompt.prefix(4))) { (prompt) throws(StoreError) in
          try again.purge(prompt)
        }
        #expect(count == 10)
      }
    }
    try Self.waitUntilErased(fixture.store)
    #expect(try fixture.store.verify().findings == [])
    var magicCount = 0
    for folder in ["/slots/", "/archive/"] {
      let path = fixture.configuration.path + folder
      for name in try FileManager.default.contentsOfDirectory(atPath: path)
      where name.hasSuffix(".kvs") {
        let bytes = [UInt8](try Data(contentsOf: URL(filePath: path + name)))
        magicCount += bytes.ranges(of: Self.slotMagic).count
      }
    }
    #expect(magicCount == 0)
  }

  /// Killed or closed before its slots are overwritten: the next open goes on, and nobody gets them before.
  @Test func erasingGoesOnAfterReopening() throws {
    let storage = FaultInjectingStorage()
    let fixture = try StoreFixture { $0.storage = storage }
    let namespace = try fixture.store.openNamespace(Self.identity)
    try namespace.offload(tokens(0..<80))
    try fixture.store.flush()
    storage.add(
      .init(.write, number: storage.count(of: .write) + 2, errno: EIO, isLasting: true)
    )
    // The first write is the mark in identities.kvs, the next would be the zeros.
    #expect(try namespace.purge() == 20)
    while try fixture.store.flush().durableBlockCount > 0 {}
    #expect(try fixture.store.statistics().slotsErasePending == 20)
    storage.removeFaults()
    let result = try fixture.store.verify()
    #expect(result.findings == [] && result.erasePendingSlotCount == 20)
    try fixture.reopen()
    try Self.waitUntilErased(fixture.store)
    #expect(try fixture.store.verify().findings == [])
  }

  @Test func aLargeNamespaceGoesInSteps() throws {
    let fixture = try StoreFixture {
      $0.capacityBytes = 64 << 20
      $0.catalogBytes = 8 << 20
    }
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([16]))
    // Forks at several depths, more than one step takes.
    for branch in 0..<64 {
      let shared = branch % 8 * 20
      let own = 1000 * (branch + 1)
      try namespace.offload(tokens(0..<shared) + tokens(own..<own + 320))
    }
    try fixture.store.flush()
    let stored = try fixture.store.statistics().blocksStored
    #expect(stored > 4096)
    #expect(try namespace.purge() == Int(stored))
    #expect(try fixture.store.statistics().blocksStored == 0)
    #expect(try fixture.store.verify().findings == [])
  }

  @Test func anUnknownNamespaceIsAnError() throws {
    let fixture = try StoreFixture()
    #expect(throws: StoreError.invalidArgument(.namespace)) {
      try fixture.store.purgeNamespace(NamespaceID(rawValue: 7))
    }
  }
}
