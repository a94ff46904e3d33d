import Foundation
import KVAdmin
import KVCatalog
import KVCore
import KVReplaySupport
import Testing

@testable import KVStore

/// A side section leaves with the block that it stands behind, whatever the reason.
@Suite struct SectionLifetimeTests {
  private static let byteCountMax = SectionTests.byteCountMax

  private static func identity(_ mode: IdentityMode) -> NamespaceIdentity {
    StoreFixture.identity([65_536]) {
      guard mode == .digest else { return }
      $0.identityMode = .digest
      $0.digestByteCount = 32
    }
  }

  /// Blocks of 4 tokens, or of 8 words.
  private static func prompt(_ number: Int, _ mode: IdentityMode, blocks: Int) -> [UInt32] {
    (0..<blocks * (mode == .tokens ? 4 : 8)).map { UInt32(number * 100_000 + $0) }
  }

  private static func isStored(_ section: Namespace, _ prompt: [UInt32], _ counts: [Int]) throws
    -> [Bool]
  {
    try counts.map { try SectionTests.isStored(section, prompt, $0) }
  }

  /// Prompt 1, whose tail has left for prompt 2, then the rest for prompt 3; in this process, in another one, and on disk.
  @Test(arguments: [IdentityMode.tokens, .digest], [false, true])
  func evictedBlocksTakeTheirSections(_ mode: IdentityMode, _ reopens: Bool) throws {
    let fixture = try StoreFixture()
    let identity = Self.identity(mode)
    let limits = NamespaceLimits(quotaBytes: UInt64(10 * QuotaTests.slotBytes))
    var namespace = try fixture.store.openNamespace(identity, limits: limits)
    var section = try namespace.openSection("recurrent", byteCountMax: Self.byteCountMax)
    let prompt = Self.prompt(1, mode, blocks: 10)
    try namespace.offload(prompt)
    for blockCount in [2, 5, 7, 10] {
      try SectionTests.offload(section, prompt, blockCount: blockCount)
    }
    try fixture.store.flush()
    if reopens {
      try fixture.reopen()
      // The one that evicts has not opened the sections.
      namespace = try fixture.store.openNamespace(identity)
    }
    let steps: [(number: Int, blocks: Int, stored: [Bool])] = [
      (2, 4, [true, true, false, false]), (3, 10, [false, false, false, false]),
    ]
    for step in steps {
      try namespace.offload(Self.prompt(step.number, mode, blocks: step.blocks))
      try fixture.store.flush()
      if reopens {
        section = try namespace.openSection("recurrent", byteCountMax: Self.byteCountMax)
      }
      #expect(try Self.isStored(section, prompt, [2, 5, 7, 10]) == step.stored)
    }
    #expect(try fixture.store.statistics().blocksStored == 10)
    #expect(try fixture.store.verify().findings == [])
  }

  /// An eviction goes around what a lease holds, and is not held up by it.
  @Test func aLeasedSectionStaysUntilItsTurn() throws {
    let fixture = try StoreFixture()
    let limits = NamespaceLimits(quotaBytes: UInt64(4 * QuotaTests.slotBytes))
    let namespace = try fixture.store.openNamespace(Self.identity(.tokens), limits: limits)
    let section = try namespace.openSection("recurrent", byteCountMax: Self.byteCountMax)
    let prompt = Self.prompt(1, .tokens, blocks: 4)
    try namespace.offload(prompt)
    for blockCount in [3, 4] { try SectionTests.offload(section, prompt, blockCount: blockCount) }
    try fixture.store.flush()
    let lease = try section.match(SectionTests.words(section, prompt, 4)).lease
    #expect(lease != 0)
    try namespace.offload(Self.prompt(2, .tokens, blocks: 4))
    #expect(try fixture.store.flush().durableBlockCount == 4)
    #expect(try namespace.peek(prompt) == 0)
    #expect(try Self.isStored(section, prompt, [3, 4]) == [false, true])
    // Neither is a purge.
    let count = try Prompt.with(prompt) { (prompt) throws(StoreError) in
      try namespace.purge(prompt)
    }
    #expect(count == 1)
    #expect(try Self.isStored(section, prompt, [3, 4]) == [false, false])
    #expect(try fixture.store.verify().findings == [])
  }

  @Test func expiredBlocksTakeTheirSections() throws {
    let clock = ManualClock()
    let fixture = try StoreFixture { $0.clock = clock }
    let namespace = try fixture.store.openNamespace(Self.identity(.tokens))
    let section = try namespace.openSection("recurrent", byteCountMax: Self.byteCountMax)
    let front = Self.prompt(1, .tokens, blocks: 4)
    let prompt = front + Self.prompt(2, .tokens, blocks: 4)
    try namespace.offload(front)
    try namespace.offload(prompt, life: .absolute(nanoseconds: 60_000_000_000))
    for blockCount in [4, 6, 8] {
      try SectionTests.offload(section, prompt, blockCount: blockCount)
    }
    try fixture.store.flush()
    clock.advance(seconds: 61)
    _ = try fixture.store.core.reclaimExpired()
    #expect(try namespace.peek(prompt) == 4)
    #expect(try Self.isStored(section, prompt, [4, 6, 8]) == [true, false, false])
    #expect(try fixture.store.verify().findings == [])
  }

  @Test func aQuarantinedBlockTakesItsSections() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity(.tokens))
    let section = try namespace.openSection("recurrent", byteCountMax: Self.byteCountMax)
    let core = fixture.store.core
    let prompt = Self.prompt(1, .tokens, blocks: 8)
    try namespace.offload(prompt)
    for blockCount in [4, 5, 8] {
      try SectionTests.offload(section, prompt, blockCount: blockCount)
    }
    try fixture.store.flush()
    let at = BlockPosition(run: RunID(rawValue: 1), position: 4)
    let row = try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.row(namespace.core.id, at)
    }
    core.quarantine(namespace.core, at, try #require(row?.places.first))
    try fixture.store.flush()
    #expect(try namespace.peek(prompt) == 4)
    #expect(try Self.isStored(section, prompt, [4, 5, 8]) == [true, false, false])
    #expect(try fixture.store.verify().findings == [])
  }

  /// Sections whose blocks never came, or were dropped: the prompt still leads to them, and to nothing above what is stored.
  @Test(arguments: [IdentityMode.tokens, .digest], [true, false])
  func aRemovalTakesWhatStandsAtAnyPrefix(_ mode: IdentityMode, _ purges: Bool) throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(Self.identity(mode))
    let section = try namespace.openSection("recurrent", byteCountMax: Self.byteCountMax)
    let prompt = Self.prompt(1, mode, blocks: 10)
    for blockCount in [2, 5, 10] {
      try SectionTests.offload(section, prompt, blockCount: blockCount)
    }
    func remove() throws -> Int {
      try Prompt.with(prompt) { (prompt) throws(StoreError) in
        try purges ? namespace.purge(prompt) : namespace.forget(prompt)
      }
    }
    let front = Array(prompt.prefix(prompt.count / 10 * 4))
    try namespace.offload(front)
    #expect(try remove() == 2)
    #expect(try Self.isStored(section, prompt, [2, 5, 10]) == [true, false, false])
    #expect(try namespace.peek(prompt) == 4)
    #expect(try namespace.forget(front) == 1)
    #expect(try namespace.forget(Array(prompt.prefix(prompt.count / 10))) == 3)
    #expect(try Self.isStored(section, prompt, [2, 5, 10]) == [false, false, false])
    #expect(try remove() == 0)
    // Nor does a repair find them in their slots.
    try fixture.whileClosed {
      try FileManager.default.removeItem(atPath: fixture.configuration.path + "/catalog.mdb")
      #expect(try Store.repair(fixture.configuration).blockCount == 0)
    }
  }

  /// A repair gives a section back only with its block.
  @Test func aRepairLeavesOutSectionsWithoutTheirBlock() throws {
    let fixture = try StoreFixture()
    let identity = Self.identity(.tokens)
    let namespace = try fixture.store.openNamespace(identity)
    let prompt = Self.prompt(1, .tokens, blocks: 10)
    try namespace.offload(prompt)
    try fixture.store.flush()
    let section = try namespace.openSection("recurrent", byteCountMax: Self.byteCountMax)
    for blockCount in [5, 8, 10] {
      try SectionTests.offload(section, prompt, blockCount: blockCount)
    }
    try fixture.store.flush()
    try fixture.whileClosed {
      let path = fixture.configuration.path
      try FileManager.default.removeItem(atPath: path + "/catalog.mdb")
      // The payload of block 7, wherever it lies.
      let payload = regionBytes([0] + prompt.prefix(28), region: 0, count: 65_536)
      for name in try FileManager.default.contentsOfDirectory(atPath: path + "/slots") {
        let file = URL(filePath: path + "/slots/" + name)
        var bytes = [UInt8](try Data(contentsOf: file))
        for range in bytes.ranges(of: Array(payload.prefix(4096))) { bytes[range.lowerBound] ^= 1 }
        try Data(bytes).write(to: file)
      }
      let result = try Store.repair(fixture.configuration)
      #expect(result.blockCount == 6 + 1)
      #expect(result.damagedCount == 1)
      #expect(result.orphanCount == 3 + 2)
    }
    let again = try fixture.store.openNamespace(identity)
    let sections = try again.openSection("recurrent", byteCountMax: Self.byteCountMax)
    #expect(try again.peek(prompt) == 6)
    #expect(try Self.isStored(sections, prompt, [5, 8, 10]) == [true, false, false])
    #expect(try fixture.store.verify().findings == [])
  }
}
