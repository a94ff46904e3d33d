import KVCatalog
import KVCore
import KVTestSupport
import Testing

/// Blocks change their tier: which ones, and what a move leaves behind.
@Suite struct MoveTests {
  private static let owner = OwnerID(rawValue: 1)

  /// A random forest of blocks on disk, used in random order; the same for the same seed.
  private struct Forest {
    let fixture: CatalogFixture
    let namespace: NamespaceID
    var blocks: [BlockPosition] = []
    var archiveSlots: [SlotAddress] = []
    var resume: StampOrder?

    init(seed: UInt64, blockCount: Int, priorities: [UInt8] = [9]) throws {
      var random = SeededGenerator(seed: seed)
      fixture = try CatalogFixture()
      namespace = try fixture.namespace(1, slotByteCount: 8192)
      let namespace = namespace
      var blocks: [BlockPosition] = []
      var keys: [BlockPosition: BlockKey] = [:]
      archiveSlots = try fixture.write { (txn) throws(CatalogError) in
        _ = try txn.createSlotFile(tier: .disk, slotByteCount: 8192, slotCount: 200)
        _ = try txn.createSlotFile(tier: .archive, slotByteCount: 4096, slotCount: 200)
        let slots = try txn.reserveSlots(
          tier: .disk,
          slotByteCount: 8192,
          count: blockCount,
          owner: owner
        )
        for (index, slot) in slots.enumerated() {
          let parent =
            Int.random(in: 0...9, using: &random) == 0 ? nil : blocks.randomElement(using: &random)
          let parentKey = parent.flatMap { keys[$0] } ?? BlockKey(high: 0, low: 1)
          let key = testKey(after: parentKey, UInt32(index))
          let outcome = try txn.publish(
            namespace,
            key,
            parent: parent ?? .root,
            word: UInt32(index),
            place: slotPlace(slot),
            priority: priorities.randomElement(using: &random) ?? 9
          )
          guard case .stored(let position) = outcome else { throw .invalidArgument }
          blocks.append(position)
          keys[position] = key
          while Int.random(in: 0...2, using: &random) == 0,
            let used = blocks.randomElement(using: &random)
          {
            try txn.touch(namespace, pathEnd: used)
          }
        }
        return try txn.reserveSlots(
          tier: .archive,
          slotByteCount: 4096,
          count: blockCount,
          owner: owner
        )
      }
      self.blocks = blocks
    }

    /// Moves the coldest blocks to the archive; returns them in order.
    mutating func demote(
      _ count: Int,
      isProtected: (NamespaceID, RunID, UInt32) -> Bool = { _, _, _ in false }
    ) throws -> [BlockPosition] {
      var resume = resume
      var slots = archiveSlots
      let namespace = namespace
      let moved: [BlockPosition] = try fixture.write { (txn) throws(CatalogError) in
        let coldest = try txn.coldest(
          pool: 2,
          in: .disk,
          blockCount: count,
          resume: &resume,
          isProtected: isProtected
        )
        for block in coldest {
          guard let slot = slots.popLast() else { throw .invalidArgument }
          let isMoved = try txn.move(
            namespace,
            block.position,
            from: block.place,
            to: slotPlace(slot),
            owner: owner
          )
          #expect(isMoved)
        }
        return coldest.map(\.position)
      }
      self.resume = resume
      archiveSlots = slots
      let problems = try fixture.catalog.read { (txn) throws(CatalogError) in
        try txn.checkInvariants()
      }
      #expect(problems == [])
      return moved
    }
  }

  /// A block leaves the disk tier for the archive exactly when eviction would have removed it.
  @Test(arguments: UInt64(1)...12)
  func blocksAreDemotedInTheOrderOfEviction(_ seed: UInt64) throws {
    let blockCount = 80
    let evicted = try Forest(seed: seed, blockCount: blockCount)
    var order: [BlockPosition] = []
    for _ in 0..<blockCount {
      let removed = try evicted.fixture.write { (txn) throws(CatalogError) in
        try txn.evict(pool: 2, blockCount: 1)
      }
      order += removed.ranges.map { BlockPosition(run: $0.run, position: $0.firstPosition) }
    }
    #expect(order.count == blockCount)
    for step in [1, 7, blockCount] {
      var forest = try Forest(seed: seed, blockCount: blockCount)
      var moved: [BlockPosition] = []
      while moved.count < blockCount {
        let some = try forest.demote(step)
        if some.isEmpty { break }
        moved += some
      }
      #expect(moved == order, "seed \(seed), \(step) at a time")
    }
  }

  /// Children leave before their parent, and what counts for more leaves later.
  @Test(arguments: UInt64(1)...6)
  func prioritiesCountAsInEviction(_ seed: UInt64) throws {
    var forest = try Forest(seed: seed, blockCount: 60, priorities: [0, 9, 50])
    let namespace = forest.namespace
    var priorities: [BlockPosition: UInt8] = [:]
    var parents: [BlockPosition: BlockPosition] = [:]
    try forest.fixture.catalog.read { (txn) throws(CatalogError) in
      for block in forest.blocks {
        let row = try txn.row(namespace, block)
        let parent = try txn.parent(namespace, block)
        parents[block] = parent
        var above: BlockPosition? = block
        // A block counts for as much as the dearest below it.
        while let at = above, at != .root {
          priorities[at] = max(priorities[at] ?? 0, row?.priority ?? 0)
          above = parents[at]
        }
      }
    }
    var moved: [BlockPosition] = []
    while true {
      var some = try forest.demote(7)
      if some.isEmpty {
        forest.resume = nil
        some = try forest.demote(7)
      }
      if some.isEmpty { break }
      moved += some
    }
    #expect(Set(moved) == Set(forest.blocks))
    for (index, block) in moved.enumerated() {
      let parent = parents[block].flatMap { moved.firstIndex(of: $0) }
      #expect(parent.map { $0 > index } ?? true, "\(block)")
    }
    let order = moved.map { priorities[$0] ?? 0 }
    #expect(order == order.sorted(), "seed \(seed): \(order)")
  }

  @Test func aProtectedPathStaysAndIsFoundLater() throws {
    var forest = try Forest(seed: 5, blockCount: 60)
    let first = try #require(try forest.demote(1).first)
    let kept = try #require(forest.blocks.first { $0.run != first.run })
    let rest = try forest.demote(60) { _, run, position in
      run == kept.run && position <= kept.position
    }
    #expect(!rest.contains(kept))
    #expect(try forest.demote(60).contains(kept))
  }

  @Test func aMoveFreesTheOldSlotAndKeepsTheRow() throws {
    var forest = try Forest(seed: 6, blockCount: 20)
    let namespace = forest.namespace
    func state() throws -> (rows: [BlockRow?], used: [UInt32], accounting: Accounting) {
      try forest.fixture.catalog.read { (txn) throws(CatalogError) in
        var rows: [BlockRow?] = []
        for block in forest.blocks { rows.append(try txn.row(namespace, block)) }
        return (rows, try txn.slotFiles().map(\.usedCount), try txn.accounting(namespace))
      }
    }
    let before = try state()
    let moved = try forest.demote(5)
    let after = try state()
    #expect(before.used == [20, 20] && after.used == [15, 20])
    #expect(after.accounting == before.accounting)
    for (old, new) in zip(before.rows, after.rows) {
      let old = try #require(old)
      var new = try #require(new)
      let isMoved = new.places[0].tier == .archive
      #expect(isMoved == (new.places != old.places))
      new.places = old.places
      #expect(new == old)
    }
    let events = try forest.fixture.catalog.read { (txn) throws(CatalogError) in
      try txn.events(after: 0).filter { $0.kind == .moved }
    }
    #expect(events.map { BlockPosition(run: $0.run, position: $0.firstPosition) } == moved)
    #expect(events.allSatisfy { $0.tier == .archive })
  }

  @Test func aMoveThatComesTooLateChangesNothing() throws {
    let forest = try Forest(seed: 7, blockCount: 10)
    let namespace = forest.namespace
    let block = forest.blocks[0]
    let slots = forest.archiveSlots
    try forest.fixture.write { (txn) throws(CatalogError) in
      guard let place = try txn.row(namespace, block)?.places.first else { throw .invalidArgument }
      var other = place
      other.generation = Generation(rawValue: 99)
      // The block has moved on; the slot is not reserved; then all is well, and once only.
      #expect(
        try !txn.move(namespace, block, from: other, to: slotPlace(slots[0]), owner: Self.owner)
      )
      let free = SlotAddress(tier: .archive, file: 2, slot: 150)
      #expect(try !txn.move(namespace, block, from: place, to: slotPlace(free), owner: Self.owner))
      #expect(try txn.row(namespace, block)?.places == [place])
      #expect(
        try txn.move(namespace, block, from: place, to: slotPlace(slots[0]), owner: Self.owner)
      )
      #expect(
        try !txn.move(namespace, block, from: place, to: slotPlace(slots[1]), owner: Self.owner)
      )
      let problems = try txn.checkInvariants()
      #expect(problems == [])
    }
  }
}
