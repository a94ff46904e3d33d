import Foundation
import KVCatalog
import KVCore
import Testing

@Suite struct CatalogTests {
  @Test func publishTellsDuplicateFromCollision() throws {
    let fixture = try CatalogFixture()
    let namespace = try fixture.namespace(1, slotByteCount: 4096)
    let owner = OwnerID(rawValue: 1)
    let key = BlockKey(high: 1, low: 2)
    try fixture.write { (txn) throws(CatalogError) in
      _ = try txn.createSlotFile(tier: .disk, slotByteCount: 4096, slotCount: 8)
      let slots = try txn.reserveSlots(
        tier: .disk,
        slotByteCount: 4096,
        count: 5,
        owner: owner
      )
      let first = try txn.publish(
        namespace,
        key,
        parent: .root,
        word: 1,
        extra: [1],
        place: slotPlace(slots[0])
      )
      guard case .stored(let position) = first else { throw .invalidArgument }
      func again(
        parent: BlockPosition = .root,
        word: UInt32 = 1,
        extra: [UInt8] = [1]
      ) throws(CatalogError) -> PublishOutcome {
        try txn.publish(
          namespace,
          key,
          parent: parent,
          word: word,
          extra: extra,
          place: slotPlace(slots[1])
        )
      }
      #expect(try again() == .duplicate(position))
      #expect(try again(word: 2) == .collision)
      #expect(try again(extra: [2]) == .collision)
      #expect(try again(extra: []) == .collision)
      #expect(try again(parent: position) == .collision)

      let missing = BlockPosition(run: RunID(rawValue: 99), position: 0)
      let other = BlockKey(high: 3, low: 4)
      #expect(
        try txn.publish(namespace, other, parent: missing, word: 1, place: slotPlace(slots[1]))
          == .parentMissing
      )
      // The slot of a published block, one that nobody reserved, another owner's.
      for (slot, by) in [
        (slots[0], owner), (SlotAddress(tier: .disk, file: 1, slot: 7), owner),
        (slots[1], OwnerID(rawValue: 2)),
      ] {
        #expect(
          try txn.publish(
            namespace,
            other,
            parent: position,
            word: 1,
            place: slotPlace(slot),
            owner: by
          )
            == .slotNotReserved
        )
      }
      #expect(
        try txn.publish(namespace, other, parent: position, word: 1, place: slotPlace(slots[1]))
          == .stored(BlockPosition(run: position.run, position: 1))
      )
      #expect(try txn.reservations().map(\.slots) == [Array(slots[2...])])
      let problems = try txn.checkInvariants()
      #expect(problems == [])
    }
  }

  @Test func aRunGoesOnWhereItsTailIsAndForksElsewhere() throws {
    let fixture = try CatalogFixture()
    let namespace = try fixture.namespace(1, slotByteCount: 0)
    try fixture.write { (txn) throws(CatalogError) in
      func add(_ key: UInt64, _ parent: BlockPosition) throws(CatalogError) -> BlockPosition {
        let outcome = try txn.publish(
          namespace,
          BlockKey(high: 0, low: key),
          parent: parent,
          word: UInt32(key),
          place: inlinePlace(),
          payload: [1, 2, 3]
        )
        guard case .stored(let position) = outcome else { throw .invalidArgument }
        return position
      }
      let a = try add(1, .root)
      let b = try add(2, a)
      let c = try add(3, b)
      let fork = try add(4, a)
      #expect([a, b, c].map(\.position) == [0, 1, 2] && a.run == c.run)
      #expect(fork.position == 0 && fork.run != a.run)
      #expect(try txn.children(namespace, a) == [fork.run])
      #expect(try txn.children(namespace, .root) == [a.run])
      #expect(try txn.parent(namespace, fork) == a)
      #expect(try txn.lastPosition(namespace, a.run) == 2)
      let payload = unsafe try txn.inlinePayload(namespace, c) { unsafe Array($0) }
      #expect(payload == [1, 2, 3])
      // One event for the range, one for the fork.
      #expect(try txn.events(after: 0).map(\.blockCount) == [3, 1])
      #expect(try txn.removeSubtree(namespace, at: b, reason: .forgotten).blockCount == 2)
      #expect(try txn.events(after: 2).map(\.firstPosition) == [1])
      let problems = try txn.checkInvariants()
      #expect(problems == [])
      #expect(try txn.removeNamespaceBlocks(namespace, reason: .forgotten).blockCount == 2)
      let problemsAfter = try txn.checkInvariants()
      #expect(problemsAfter == [])
    }
    #expect(try fixture.catalog.read { (txn) throws(CatalogError) in try txn.isClean() })
  }

  @Test func deepChainsOfRunsAreRemovedWithoutRecursion() throws {
    let fixture = try CatalogFixture()
    let namespace = try fixture.namespace(1, slotByteCount: 0)
    try fixture.write { (txn) throws(CatalogError) in
      var parent = BlockPosition.root
      var key: UInt64 = 0
      for _ in 0..<5_000 {
        // A second block makes the next one fork.
        for isSide in [false, true] {
          key += 1
          let outcome = try txn.publish(
            namespace,
            BlockKey(high: 0, low: key),
            parent: parent,
            word: UInt32(key),
            place: inlinePlace(),
            payload: [1]
          )
          guard case .stored(let position) = outcome else { throw .invalidArgument }
          if !isSide { parent = position }
        }
      }
    }
    try fixture.write { (txn) throws(CatalogError) in
      let first = try txn.children(namespace, .root, limit: 1)
      let summary = try txn.removeSubtree(
        namespace,
        at: BlockPosition(run: first[0], position: 0),
        reason: .forgotten
      )
      #expect(summary.blockCount >= 5_000)
      let problems = try txn.checkInvariants()
      #expect(problems == [])
    }
  }

  @Test func namespacesAreFoundAgainAndCollisionsRefused() throws {
    let fixture = try CatalogFixture()
    let id = try fixture.namespace(1, slotByteCount: 8192)
    #expect(try fixture.namespace(1, slotByteCount: 8192) == id)
    #expect(throws: CatalogError.identityCollision) {
      try fixture.write { (txn) throws(CatalogError) in
        try txn.createNamespace(
          NamespaceRow(
            rootKey: BlockKey(high: 0, low: 1),
            identityRecord: [9],
            slotByteCount: 8192,
            headerByteCount: 4096,
            wordsPerBlock: 1
          )
        )
      }
    }
    try fixture.reopen()
    try fixture.catalog.read { (txn) throws(CatalogError) in
      #expect(try txn.namespaces().map(\.id) == [id])
      #expect(try txn.namespace(id)?.identityRecord == [1])
      #expect(try txn.namespace(id)?.pool == 2)
      #expect(try txn.namespaceID(rootKey: BlockKey(high: 0, low: 1)) == id)
      #expect(try txn.namespaceID(rootKey: BlockKey(high: 0, low: 2)) == nil)
    }
    #expect(fixture.catalog.meta == CatalogFixture.meta)
  }

  @Test func countersSurviveAndNeverGoBack() throws {
    let fixture = try CatalogFixture()
    let first = try fixture.write { (txn) throws(CatalogError) in
      (txn.nextOwner(), txn.reserveGenerations(10))
    }
    let before = try fixture.catalog.transactionID()
    try fixture.reopen()
    #expect(try fixture.catalog.transactionID() == before)
    let second = try fixture.catalog.write(timeNanoseconds: 5) { (txn) throws(CatalogError) in
      (txn.nextOwner(), txn.reserveGenerations(1))
    }
    #expect(second.0.rawValue == first.0.rawValue + 1)
    #expect(second.1.rawValue == first.1.rawValue + 10)
    // The clock stays at the later of the two times.
    let time = try fixture.catalog.read { (txn) throws(CatalogError) in
      try txn.lastCommittedNanoseconds()
    }
    #expect(time == 1_000)
    let unchanged = try fixture.catalog.transactionID()
    try fixture.catalog.write(timeNanoseconds: 9_999) { (txn) throws(CatalogError) in
      _ = try txn.touch(NamespaceID(rawValue: 1), pathEnd: .root)
    }
    #expect(try fixture.catalog.transactionID() == unchanged)
  }

  @Test func theEventRingKeepsTheNewest() throws {
    let fixture = try CatalogFixture { $0.eventCountMax = 10 }
    let namespace = try fixture.namespace(1, slotByteCount: 0)
    for key in 1...25 as ClosedRange<UInt64> {
      try fixture.write { (txn) throws(CatalogError) in
        _ = try txn.publish(
          namespace,
          BlockKey(high: 0, low: key),
          parent: .root,
          word: UInt32(key),
          place: inlinePlace(),
          payload: [1]
        )
      }
    }
    try fixture.catalog.read { (txn) throws(CatalogError) in
      #expect(try txn.eventSequences() == 16...25)
      #expect(try txn.events(after: 0).map(\.sequence) == Array(16...25))
      #expect(try txn.events(after: 20, limit: 2).map(\.sequence) == [21, 22])
      #expect(try txn.events(after: 25).isEmpty)
    }
  }

  @Test func neighbouringSlotsAreReservedFirst() throws {
    let fixture = try CatalogFixture()
    let owner = OwnerID(rawValue: 1)
    try fixture.write { (txn) throws(CatalogError) in
      let file = try txn.createSlotFile(tier: .disk, slotByteCount: 4096, slotCount: 20)
      func reserve(_ count: Int) throws(CatalogError) -> [UInt32] {
        try txn.reserveSlots(tier: .disk, slotByteCount: 4096, count: count, owner: owner)
          .map(\.slot)
      }
      #expect(try reserve(8) == Array(0..<8))
      try txn.releaseReservation(
        [SlotAddress(tier: .disk, file: file, slot: 3)],
        owner: owner
      )
      #expect(try reserve(8) == Array(8..<16))
      #expect(try reserve(8) == [16, 17, 18, 19, 3])
      #expect(try reserve(1) == [])
      #expect(try !txn.removeSlotFile(tier: .disk, file: file))
      #expect(try txn.freeReservations(ofOwner: OwnerID(rawValue: 2)) == 0)
      #expect(try txn.freeReservations(ofOwner: owner) == 20)
      #expect(try txn.ownersWithReservations().isEmpty)
      #expect(try txn.removeSlotFile(tier: .disk, file: file))
      #expect(try txn.slotFiles().isEmpty)
    }
  }

  @Test func aFullMapLosesNothing() throws {
    let fixture = try CatalogFixture { $0.mapByteCount = 1 << 20 }
    let namespace = try fixture.namespace(1, slotByteCount: 0)
    let payload = [UInt8](repeating: 7, count: 10_000)
    var storedCount: UInt64 = 0
    #expect(throws: CatalogError.mapFull) {
      while storedCount < 1_000 {
        try fixture.write { (txn) throws(CatalogError) in
          _ = try txn.publish(
            namespace,
            BlockKey(high: 0, low: storedCount),
            parent: .root,
            word: UInt32(storedCount),
            place: inlinePlace(),
            payload: payload
          )
        }
        storedCount += 1
      }
    }
    #expect(storedCount > 20)
    let usage = try fixture.catalog.usage()
    #expect(usage.usedByteCount > usage.mapByteCount / 2)
    #expect(usage.fileByteCount <= usage.mapByteCount)
    try fixture.catalog.read { (txn) throws(CatalogError) in
      #expect(try txn.accounting(namespace).blockCount == storedCount)
      let problems = try txn.checkInvariants()
      #expect(problems == [])
    }
  }

  @Test func readsGoOnBesideAWriteAndAfterClose() throws {
    let fixture = try CatalogFixture()
    let id = try fixture.namespace(1, slotByteCount: 0)
    var kept: ReadTransaction?
    try fixture.catalog.read { (outer) throws(CatalogError) in
      _ = try fixture.namespace(2, slotByteCount: 0)
      #expect(try outer.namespaces().map(\.id) == [id])
      try fixture.catalog.read { (inner) throws(CatalogError) in
        #expect(try inner.namespaces().count == 2)
      }
      fixture.catalog.close()
      #expect(try outer.namespaces().count == 1)
      kept = outer
    }
    #expect(throws: CatalogError.closed) { try kept?.namespaces() }
    #expect(throws: CatalogError.closed) {
      try fixture.catalog.read { (txn) throws(CatalogError) in try txn.namespaces() }
    }
    #expect(throws: CatalogError.closed) { try fixture.namespace(3, slotByteCount: 0) }
  }

  @Test func manyReadersShareTheIdleTransactions() async throws {
    let fixture = try CatalogFixture()
    let id = try fixture.namespace(1, slotByteCount: 0)
    let catalog = fixture.catalog
    try await withThrowingTaskGroup(of: Int.self) { group in
      for _ in 0..<20 {
        group.addTask {
          try (0..<50).reduce(0) { sum, _ in
            sum
              + (try catalog.read { (txn) throws(CatalogError) in
                try txn.namespace(id) == nil ? 1 : 0
              })
          }
        }
      }
      for try await missingCount in group { #expect(missingCount == 0) }
    }
    withExtendedLifetime(fixture) {}
  }

  @Test func aReadOnlyCatalogReads() throws {
    let fixture = try CatalogFixture()
    let id = try fixture.namespace(1, slotByteCount: 0)
    fixture.catalog.close()
    var options = CatalogOptions(path: fixture.path)
    options.isReadOnly = true
    let catalog = try Catalog(options)
    defer { catalog.close() }
    #expect(
      try catalog.read { (txn) throws(CatalogError) in try txn.namespaces().map(\.id) } == [id]
    )
    #expect(throws: CatalogError.readOnly) {
      try catalog.write(timeNanoseconds: 1) { (txn) throws(CatalogError) in txn.nextOwner() }
    }
    #expect(try catalog.usage().mapByteCount == 64 << 20)
  }
}
