import KVCatalog
import KVCore
import Testing

@testable import KVStore

@Suite struct QuarantineTests {
  /// A block that failed a check has left by the time the writer gets to it, and a sibling lies at its position: that one stays.
  @Test func quarantineTakesNoSibling() throws {
    let fixture = try StoreFixture()
    let namespace = try fixture.store.openNamespace(StoreFixture.identity())
    let core = fixture.store.core
    let common = tokens(0..<4)
    let (damaged, sibling) = (common + tokens(100..<104), common + tokens(200..<204))
    try namespace.offload(damaged)
    try fixture.store.flush()
    let at = BlockPosition(run: RunID(rawValue: 1), position: 1)
    func place() throws -> BlockPlace? {
      try core.catalogRead { (transaction) throws(CatalogError) in
        try transaction.row(namespace.core.id, at)?.places.first
      }
    }
    let before = try #require(try place())
    #expect(try namespace.forget(damaged) == 1)
    try namespace.offload(sibling)
    try fixture.store.flush()
    let after = try #require(try place())
    #expect(after != before)

    core.quarantine(namespace.core, at, before)
    // The writer's queue is in order.
    try fixture.store.flush()
    #expect(try place() == after)
    #expect(try fixture.store.statistics().blocksQuarantined == 0)
    let (result, isRight) = try namespace.restore(sibling)
    #expect(isRight && result.doneBlockCount == 2)

    core.quarantine(namespace.core, at, after)
    try fixture.store.flush()
    #expect(try place() == nil)
    #expect(try fixture.store.statistics().blocksQuarantined == 1)
  }
}
