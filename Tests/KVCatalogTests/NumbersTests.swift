import KVCatalog
import KVCore
import Testing

/// Numbers that no two get, whoever removes and whatever is lost.
@Suite struct NumbersTests {
  @Test func numbersAreNotedFarAheadAndCanWaitUntilTheyAreUsedUp() throws {
    let fixture = try CatalogFixture()
    // Nothing that a repair could find: nothing to note.
    #expect(try fixture.write { (txn) throws(CatalogError) in try txn.numbersToNote() } == nil)
    _ = try fixture.namespace(1, slotByteCount: 4096)
    let first = try fixture.write { (txn) throws(CatalogError) in
      let found = try txn.numbersToNote()
      if let found { try txn.noteNumbers(found.numbers) }
      return found
    }
    let noted = try #require(first?.numbers)
    #expect(first?.canWait == true)
    try fixture.reopen()
    #expect(try fixture.write { (txn) throws(CatalogError) in try txn.numbersToNote() } == nil)
    // Near the end of what was noted the next commit notes more, if it can; beyond it, it must.
    for (beyond, canWait) in [(UInt64(0), true), (1, false)] {
      let again = try fixture.write { (txn) throws(CatalogError) in
        txn.raiseCounters(to: GivenNumbers(generation: noted.generation + beyond))
        return try txn.numbersToNote()
      }
      #expect(again?.canWait == canWait)
      #expect(try #require(again).numbers.generation > noted.generation)
    }
  }

  @Test func aRemovalRaisesTheFloorOfItsNamespace() throws {
    let fixture = try CatalogFixture()
    let a = try fixture.namespace(1, slotByteCount: 4096)
    let b = try fixture.namespace(2, slotByteCount: 4096)
    let c = try fixture.namespace(3, slotByteCount: 4096)
    func floors() throws -> [UInt64] {
      try fixture.write { (txn) throws(CatalogError) in
        var floors: [UInt64] = []
        for id in [a, b, c] { floors.append(try txn.generationFloor(of: id).rawValue) }
        return floors
      }
    }
    func remove(in id: NamespaceID) throws -> UInt64 {
      try fixture.write { (txn) throws(CatalogError) in
        _ = txn.reserveGenerations(100)
        return try txn.markRemoval(in: id).rawValue
      }
    }
    #expect(try floors() == [0, 0, 0])
    let first = try remove(in: a)
    #expect(first > 100)
    #expect(try floors() == [first, 0, 0])
    let second = try remove(in: a)
    #expect(try floors() == [second, 0, 0])
    // Of all but the last namespace the highest floor is kept: never too low for any.
    let third = try remove(in: b)
    #expect(try floors() == [second, third, second])
    let fourth = try remove(in: a)
    try fixture.reopen()
    #expect(try floors() == [fourth, third, third])
  }
}
