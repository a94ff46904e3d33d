import Foundation
import KVAdmin
import KVCore
import KVStore
import Testing

/// A store without its catalog, or with a damaged one, gets back what is provably intact, and nothing else.
@Suite struct RepairTests {
  private static let identity = StoreFixture.identity([40_000, 24_000])
  private static let salted = StoreFixture.identity([40_000, 24_000]) {
    $0.salt = Array("tenant".utf8)
  }
  private static let inlineIdentity = StoreFixture.identity([600]) { $0.modelName = "inline" }
  private static let slotByteCount = 4096 + 65_536
  private static let prompt = tokens(0..<40)
  private static let fork = tokens(0..<20) + tokens(100..<120)

  private static func fill(_ store: Store) throws {
    for identity in [identity, salted, inlineIdentity] {
      let namespace = try store.openNamespace(identity)
      try namespace.offload(prompt)
      try namespace.offload(fork)
    }
    try store.flush()
  }

  private static func path(_ fixture: StoreFixture, _ name: String) -> String {
    fixture.configuration.path + "/" + name
  }

  private static func slotFile(_ fixture: StoreFixture) throws -> String {
    let folder = path(fixture, "slots/")
    return folder
      + (try #require(try FileManager.default.contentsOfDirectory(atPath: folder).first))
  }

  private static func change(_ file: String, _ body: (inout [UInt8]) throws -> Void) throws {
    var bytes = [UInt8](try Data(contentsOf: URL(filePath: file)))
    try body(&bytes)
    try Data(bytes).write(to: URL(filePath: file))
  }

  private static func expectWhole(
    _ store: Store,
    _ identities: [NamespaceIdentity],
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    for identity in identities {
      let namespace = try store.openNamespace(identity)
      for prompt in [prompt, fork] {
        let (result, isRight) = try namespace.restore(prompt)
        #expect(isRight && result.doneBlockCount == 10, sourceLocation: sourceLocation)
      }
    }
    let found = try store.verify().findings
    #expect(found == [], sourceLocation: sourceLocation)
  }

  /// What can happen to a catalog file as a whole.
  enum Damage: String, CaseIterable {
    case absent, empty, zeroed, cutOff, everyThirdPage, noise
  }

  /// A repair that nobody needs is refused; one that is wanted keeps all that means the same in a new catalog.
  @Test func aSoundCatalogIsNotReplaced() throws {
    let fixture = try StoreFixture()
    try Self.fill(fixture.store)
    let namespace = try fixture.store.openNamespace(Self.identity)
    let gone = try #require(try namespace.pin(Self.prompt, seconds: 3600)).id
    let pin = try #require(try namespace.pin(Self.fork, seconds: 3600)).id
    #expect(try fixture.store.unpin(gone))
    let session = try namespace.beginSession("agent")
    _ = try Prompt.with(Self.fork) { (prompt) throws(StoreError) in try session.match(prompt) }
    #expect(try session.step() != nil)
    try fixture.store.flush()
    let pins = try fixture.store.inspector.pins()
    let lifetime = try fixture.store.inspector.lifetime()
    try fixture.whileClosed {
      let refused = try Store.repair(fixture.configuration, force: false)
      #expect(refused.isRefused && refused.catalogIsSound && refused.keptAside == nil)
      #expect(refused.kept.pinCount == 1 && refused.kept.sessionCount == 1)
      let names = try FileManager.default.contentsOfDirectory(atPath: fixture.configuration.path)
      #expect(!names.contains { $0.hasPrefix("repair-") })
      #expect(try Store.repair(fixture.configuration, dryRun: true, force: false).catalogIsSound)
      let result = try Store.repair(fixture.configuration, force: true)
      #expect(result.kept == refused.kept && result.blockCount == 45)
    }
    let kept = try fixture.store.inspector.pins()
    #expect(kept.map(\.id) == pins.map(\.id) && kept.map(\.blockKey) == pins.map(\.blockKey))
    #expect(kept.map(\.blockCount) == [10])
    let found = try #require(try fixture.store.inspector.session(session.id))
    #expect(found.name == "agent" && found.steps.count == 1)
    #expect(found.head == kept.first?.end)
    let after = try fixture.store.inspector.lifetime()
    #expect(after.blocksOffloaded == lifetime.blocksOffloaded)
    let next = try fixture.store.openNamespace(Self.identity)
    #expect(try #require(try next.pin(Self.prompt, seconds: 3600)).id > pin)
    #expect(try fixture.store.unpin(pin))
    try Self.expectWhole(fixture.store, [Self.identity, Self.salted, Self.inlineIdentity])
  }

  @Test(arguments: Damage.allCases)
  func slotFilesAloneAreEnough(_ damage: Damage) throws {
    let fixture = try StoreFixture()
    try Self.fill(fixture.store)
    var result = Repair()
    try fixture.whileClosed {
      let catalog = Self.path(fixture, "catalog.mdb")
      switch damage {
      case .absent: try FileManager.default.removeItem(atPath: catalog)
      case .empty: try Data().write(to: URL(filePath: catalog))
      case .zeroed: try Self.change(catalog) { $0 = [UInt8](repeating: 0, count: $0.count) }
      case .cutOff: try Self.change(catalog) { $0 = Array($0[..<5000]) }
      case .everyThirdPage:
        try Self.change(catalog) { bytes in
          for page in stride(from: 0, to: bytes.count - 4095, by: 3 * 4096) {
            bytes.replaceSubrange(page..<page + 4096, with: [UInt8](repeating: 0xA5, count: 4096))
          }
        }
      case .noise:
        try Self.change(catalog) { bytes in
          var state: UInt64 = 7
          for index in bytes.indices {
            state = state &* 6_364_136_223_846_793_005 &+ 1
            bytes[index] = UInt8(truncatingIfNeeded: state >> 56)
          }
        }
      }
      let dry = try Store.repair(fixture.configuration, dryRun: true)
      result = try Store.repair(fixture.configuration, force: false)
      #expect(!dry.catalogIsSound && !result.isRefused)
      #expect(dry.blockCount == result.blockCount && dry.keptAside == nil)
      let aside = try #require(result.keptAside)
      if damage != .absent {
        #expect(FileManager.default.fileExists(atPath: aside + "/catalog.mdb"))
      }
    }
    #expect(result.blockCount - result.inlineBlockCount == 30)
    #expect(result.damagedCount == 0 && result.unknownCount == 0)
    // Payloads in the catalog are lost with its pages.
    #expect(result.orphanCount == 0 || damage == .everyThirdPage)
    // The salt's key lies beside the slot files too.
    try Self.expectWhole(fixture.store, [Self.identity, Self.salted])
    // And it goes on: what comes now gets generations that were never given.
    let namespace = try fixture.store.openNamespace(Self.identity)
    try namespace.offload(tokens(500..<540))
    try fixture.store.flush()
    let found = try fixture.store.verify().findings
    #expect(found == [])
  }

  @Test func aSoundStoreIsGivenBackWhole() throws {
    let fixture = try StoreFixture()
    try Self.fill(fixture.store)
    try fixture.whileClosed {
      let result = try Store.repair(fixture.configuration)
      #expect(result.blockCount == 45 && result.inlineBlockCount == 15)
      #expect(result.namespaceCount == 3)
    }
    try Self.expectWhole(fixture.store, [Self.identity, Self.salted, Self.inlineIdentity])
  }

  @Test func damagedBlocksAndWhatIsBelowThemAreLeftOut() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity)
    try namespace.offload(Self.prompt)
    try namespace.offload(Self.fork)
    try fixture.store.flush()
    try fixture.whileClosed {
      try FileManager.default.removeItem(atPath: Self.path(fixture, "catalog.mdb"))
      // Payload of block 8, header of the fork's first block.
      try Self.change(try Self.slotFile(fixture)) { bytes in
        bytes[8 * Self.slotByteCount + 50_000] ^= 1
        bytes[10 * Self.slotByteCount + 60] ^= 1
      }
      let result = try Store.repair(fixture.configuration)
      #expect(result.blockCount == 8 && result.damagedCount == 1)
      #expect(result.orphanCount == 1 + 4)
    }
    let again = try fixture.store.openNamespace(Self.identity)
    let (restored, isRight) = try again.restore(Self.prompt)
    #expect(isRight && restored.doneBlockCount == 8)
    #expect(try again.peek(Self.fork) == 5)
    #expect(try fixture.store.verify().findings == [])
  }

  @Test func theRemovedStayRemoved() throws {
    let fixture = try StoreFixture {
      $0.capacityBytes = 64 << 20
      $0.catalogBytes = 48 << 20
    }
    let namespace = try fixture.store.openNamespace(Self.identity)
    let other = try fixture.store.openNamespace(Self.salted)
    // So much that the first prompts are evicted and offered again: older copies lie in free slots.
    for _ in 0..<2 {
      for prompt in 0..<12 {
        try namespace.offload([UInt32(prompt), 7, 7, 7] + tokens(0..<36))
        try other.offload([UInt32(prompt), 7, 7, 7] + tokens(0..<36))
      }
      try fixture.store.flush()
    }
    #expect(try fixture.store.statistics().blocksEvicted > 0)
    for prompt in 9..<12 {
      try namespace.offload([UInt32(prompt), 7, 7, 7] + tokens(0..<36))
      try fixture.store.flush()
    }
    // A whole branch, the lower part of another one, and all of the other namespace.
    let gone: [UInt32] = [11, 7, 7, 7]
    let cut: [UInt32] = [10, 7, 7, 7]
    #expect(try namespace.forget(gone) == 10)
    #expect(try namespace.forget(cut + tokens(0..<16)) == 6)
    #expect(try other.purge() > 0)
    // Forgotten and offered again: alive.
    #expect(try namespace.forget([9, 7, 7, 7]) == 10)
    try namespace.offload([9, 7, 7, 7] + tokens(0..<36))
    try other.offload([500, 7, 7, 7] + tokens(0..<36))
    try fixture.store.flush()
    var result = Repair()
    try fixture.whileClosed {
      try FileManager.default.removeItem(atPath: Self.path(fixture, "catalog.mdb"))
      result = try Store.repair(fixture.configuration)
    }
    #expect(result.removedCount > 0)
    let after = try fixture.store.openNamespace(Self.identity)
    #expect(try after.peek(gone + tokens(0..<36)) == 0)
    #expect(try after.peek(cut + tokens(0..<36)) == 4)
    #expect(try after.peek([9, 7, 7, 7] + tokens(0..<36)) == 10)
    let afterOther = try fixture.store.openNamespace(Self.salted)
    for prompt in 0..<12 {
      #expect(try afterOther.peek([UInt32(prompt), 7, 7, 7] + tokens(0..<36)) == 0)
    }
    #expect(try afterOther.peek([500, 7, 7, 7] + tokens(0..<36)) == 10)
    #expect(try fixture.store.verify().findings == [])
  }

  /// A copy of the folder from earlier, its slot files mixed in: older generations of the same store.
  @Test func theNewestCopyWins() throws {
    let fixture = try StoreFixture()
    let identity = StoreFixture.identity([40_000, 24_000])
    var namespace = try fixture.store.openNamespace(identity)
    try namespace.offload(Self.prompt, seed: 1)
    try fixture.store.flush()
    let old = try Data(contentsOf: URL(filePath: try Self.slotFile(fixture)))
    #expect(try namespace.forget(tokens(0..<4)) == 10)
    try namespace.offload(Self.prompt, seed: 2)
    try fixture.store.flush()
    try fixture.whileClosed {
      try old.write(to: URL(filePath: Self.path(fixture, "slots/0200000009.kvs")))
      // Without the mark of the removal (40 + 48 bytes), the generation alone tells.
      try Self.change(Self.path(fixture, "identities.kvs")) { $0.removeLast(88) }
      try FileManager.default.removeItem(atPath: Self.path(fixture, "catalog.mdb"))
      let result = try Store.repair(fixture.configuration)
      #expect(result.blockCount == 10)
    }
    namespace = try fixture.store.openNamespace(identity)
    let (result, isRight) = try namespace.restore(Self.prompt, seed: 2)
    #expect(isRight && result.doneBlockCount == 10)
    #expect(try fixture.store.verify().findings == [])
  }

  @Test func anotherStoresSlotsAreSetAside() throws {
    let first = try StoreFixture()
    try Self.fill(first.store)
    let second = try StoreFixture()
    try Self.fill(second.store)
    let foreign = try Self.slotFile(first)
    try second.whileClosed {
      try FileManager.default.copyItem(
        atPath: foreign,
        toPath: Self.path(second, "slots/0200000009.kvs")
      )
      let result = try Store.repair(second.configuration)
      #expect(result.blockCount == 45 && result.slotFilesSetAside == 1)
      #expect(result.unknownCount >= 30)
    }
    try Self.expectWhole(second.store, [Self.identity, Self.salted, Self.inlineIdentity])
  }

  @Test func anOpenStoreIsRefused() throws {
    let fixture = try StoreFixture()
    try Self.fill(fixture.store)
    #expect(throws: StoreError.locked(.inUse)) { try Store.repair(fixture.configuration) }
  }

  /// Without its catalog a store is not taken for an empty folder: a new one would overwrite the slot files.
  @Test func aStoreWithoutCatalogIsNotMadeAnew() throws {
    let fixture = try StoreFixture()
    try Self.fill(fixture.store)
    let catalog = Self.path(fixture, "catalog.mdb")
    try fixture.whileClosed {
      try FileManager.default.removeItem(atPath: catalog)
      #expect(throws: StoreError.corrupt(.catalogMissing)) {
        try Store.open(fixture.configuration)
      }
      _ = try Store.repair(fixture.configuration)
    }
    try Self.expectWhole(fixture.store, [Self.identity, Self.salted])
  }

  @Test func aFolderWithoutAnythingIsRefused() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "kvstore-\(UUID())").path
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    #expect(throws: StoreError.notAStore) { try Store.repair(StoreConfiguration(path: folder)) }
  }
}
