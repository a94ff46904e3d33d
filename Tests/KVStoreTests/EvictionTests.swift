import Foundation
import KVCore
import KVStore
import Testing

/// A full store: bounds, order of victims, leases, several slot sizes.
@Suite struct EvictionTests {
  private static func fixture(
    _ policy: EvictionPolicy = StoreConfiguration(path: "").evictionPolicy
  ) throws -> StoreFixture {
    try StoreFixture {
      $0.evictionPolicy = policy
      $0.capacityBytes = 64 << 20
      $0.hostBytes = 8 << 20
    }
  }

  private static func prompt(_ number: Int, blocks: Int = 8) -> [UInt32] {
    (0..<blocks * 4).map { UInt32(number * 100_000 + $0) }
  }

  static func diskBytes(_ path: String) throws -> Int {
    var sum = 0
    for name in try FileManager.default.subpathsOfDirectory(atPath: path) {
      var status = stat()
      if lstat(path + "/" + name, &status) == 0 { sum += Int(status.st_blocks) * 512 }
    }
    return sum
  }

  /// Where nothing ever came back the newest stay, whatever the policy.
  @Test(arguments: EvictionPolicy.allCases)
  func theBoundIsKeptAndTheNewestStays(_ policy: EvictionPolicy) throws {
    let fixture = try Self.fixture(policy)
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([131_072, 131_072]))
    for number in 0..<40 {
      let result = try namespace.offload(Self.prompt(number))
      #expect(result.doneBlockCount == 8)
      try fixture.store.flush()
      #expect(try Self.diskBytes(fixture.configuration.path) <= 64 << 20)
    }
    let statistics = try fixture.store.statistics()
    #expect(statistics.blocksEvicted > 100)
    #expect(statistics.blocksDroppedFull == 0)
    #expect(statistics.diskBytesUsed <= 64 << 20)
    #expect(try namespace.peek(Self.prompt(39)) == 8)
    #expect(try namespace.peek(Self.prompt(0)) == 0)
    // What is left of every prompt is a prefix of right bytes.
    try fixture.reopen()
    let reopened = try fixture.store.openNamespace(StoreFixture.identity([131_072, 131_072]))
    var restoredCount = 0
    for number in 0..<40 {
      let (result, isRight) = try reopened.restore(Self.prompt(number))
      #expect(isRight, "prompt \(number)")
      restoredCount += result.doneBlockCount
    }
    // Slots are kept free ahead, so some blocks more may have left since the figures above.
    #expect(try restoredCount == Int(fixture.store.statistics().blocksStored))
  }

  @Test(arguments: EvictionPolicy.allCases)
  func whatWasUsedLastLeavesLast(_ policy: EvictionPolicy) throws {
    let fixture = try Self.fixture(policy)
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([131_072, 131_072]))
    for number in 0..<6 {
      try namespace.offload(Self.prompt(number))
      try fixture.store.flush()
    }
    #expect(try namespace.touch(Self.prompt(0)) == 8)
    for number in 6..<16 {
      try namespace.offload(Self.prompt(number))
      try fixture.store.flush()
    }
    // Prompt 1 was used longest ago, prompt 0 was touched after 5.
    #expect(try namespace.peek(Self.prompt(1)) == 0)
    #expect(try namespace.peek(Self.prompt(0)) > 0)
  }

  @Test func leavesGoFirst() throws {
    let fixture = try Self.fixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([131_072, 131_072]))
    let trunk = Self.prompt(1000, blocks: 4)
    for number in 0..<40 {
      try namespace.offload(trunk + Self.prompt(number, blocks: 4))
      try fixture.store.flush()
    }
    // Every request used the trunk, so it is there, and its blocks are stored once.
    #expect(try namespace.peek(trunk) == 4)
    #expect(try namespace.peek(trunk + Self.prompt(39, blocks: 4)) == 8)
  }

  @Test(arguments: EvictionPolicy.allCases)
  func aLeasedPrefixStays(_ policy: EvictionPolicy) throws {
    let fixture = try Self.fixture(policy)
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([131_072, 131_072]))
    try namespace.offload(Self.prompt(0))
    try fixture.store.flush()
    let lease = try namespace.match(Self.prompt(0)).lease
    #expect(lease != 0)
    for number in 1..<30 {
      try namespace.offload(Self.prompt(number))
      try fixture.store.flush()
    }
    #expect(try namespace.peek(Self.prompt(0)) == 8)
    #expect(try fixture.store.releaseLease(lease))
    for number in 30..<60 {
      try namespace.offload(Self.prompt(number))
      try fixture.store.flush()
    }
    #expect(try namespace.peek(Self.prompt(0)) == 0)
  }

  @Test func anotherSlotSizeGetsRoom() throws {
    let fixture = try Self.fixture()
    let small = try fixture.store.openNamespace(StoreFixture.identity([65_536]))
    for number in 0..<60 { try small.offload(Self.prompt(number)) }
    try fixture.store.flush()
    let large = try fixture.store.openNamespace(StoreFixture.identity([524_288, 524_288]))
    #expect(try large.offload(Self.prompt(7)).doneBlockCount == 8)
    #expect(try fixture.store.flush().droppedFullBlockCount == 0)
    #expect(try large.peek(Self.prompt(7)) == 8)
    #expect(try Self.diskBytes(fixture.configuration.path) <= 64 << 20)
    let (result, isRight) = try large.restore(Self.prompt(7))
    #expect(result.doneBlockCount == 8 && isRight)
  }

  @Test func smallPayloadsAreEvictedFromTheCatalog() throws {
    let fixture = try StoreFixture {
      $0.capacityBytes = 64 << 20
      $0.catalogBytes = 4 << 20
      $0.hostBytes = 8 << 20
    }
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([8192]))
    for number in 0..<200 {
      #expect(try namespace.offload(Self.prompt(number)).doneBlockCount == 8)
      // What is on its way at once has to fit: its own blocks do not make room for each other.
      if number % 8 == 7 {
        let flushed = try fixture.store.flush()
        #expect(flushed.droppedErrorBlockCount == 0 && flushed.droppedFullBlockCount == 0)
      }
    }
    let statistics = try fixture.store.statistics()
    #expect(statistics.blocksEvicted > 0)
    #expect(statistics.catalogBytesUsed <= 4 << 20)
    #expect(try namespace.peek(Self.prompt(199)) == 8)
  }

  /// A block that was taken is not lost because its parent, the coldest of all, leaves before it is written.
  @Test(arguments: EvictionPolicy.allCases)
  func theParentOfABlockOnItsWayStays(_ policy: EvictionPolicy) throws {
    let fixture = try StoreFixture {
      $0.evictionPolicy = policy
      $0.capacityBytes = 64 << 20
      $0.catalogBytes = 4 << 20
      // Far fewer blocks on their way than the catalog has room for.
      $0.hostBytes = 1 << 20
      $0.commitIntervalNanoseconds = 1_000_000
    }
    let namespace = try fixture.store.openNamespace(StoreFixture.identity([64]))
    func block(_ number: Int) -> [UInt32] { tokens(number * 4..<number * 4 + 4) }
    var prompts = (0..<2000).map(block)
    var takenCount = 0
    for round in 0..<6 {
      // The chain that is lengthened is always the one that was used longest ago.
      for index in prompts.indices {
        let next = prompts[index] + block(100_000 + round * 2000 + index)
        let blockCount = try namespace.offload(next, from: next.count / 4 - 1).doneBlockCount
        takenCount += blockCount
        prompts[index] = blockCount == 1 ? next : block(index)
        if blockCount == 0 { try namespace.offload(prompts[index]) }
      }
    }
    let flushed = try fixture.store.flush()
    let statistics = try fixture.store.statistics()
    #expect(takenCount > 1000 && statistics.blocksEvicted > 1000)
    #expect(flushed.droppedParentBlockCount == 0 && flushed.droppedFullBlockCount == 0)
    #expect(statistics.blocksDroppedParent == 0 && statistics.blocksDroppedError == 0)
  }
}
