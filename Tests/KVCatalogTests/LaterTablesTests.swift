import KVCatalog
import KVCore
import Testing

/// Tables that came after format version 2: stores without them are read as they are, and get them when they are opened for writing.
@Suite struct LaterTablesTests {
  @Test func aStoreFromBeforeThemIsReadAndWritten() throws {
    let fixture = try CatalogFixture()
    let namespace = try fixture.namespace(1, slotByteCount: 0)
    try fixture.write { (txn) throws(CatalogError) in try txn.dropLaterTables() }

    fixture.catalog.close()
    var options = fixture.options
    options.isReadOnly = true
    let reader = try Catalog(options)
    try reader.read { (txn) throws(CatalogError) in
      #expect(try txn.namespaces().map(\.id) == [namespace])
      #expect(try txn.runHits(namespace, RunID(rawValue: 1)) == RunHits())
      #expect(try txn.history(spanSeconds: 300).isEmpty)
      #expect(try txn.rowCountOfAllTables() > 0)
      #expect(try txn.rawRows(ofTable: 11, limit: 9).isEmpty)
      #expect(try txn.checkInvariants().isEmpty)
    }
    reader.close()

    try fixture.reopen()
    var now = StoreTotals()
    now.matchCalls = 3
    try fixture.catalog.write(timeNanoseconds: 600_000_000_000) {
      (txn) throws(CatalogError) in
      _ = txn.nextOwner()
      _ = try txn.record(now, since: StoreTotals(), [])
    }
    now.matchCalls = 7
    try fixture.catalog.write(timeNanoseconds: 900_000_000_000) {
      (txn) throws(CatalogError) in
      _ = txn.nextOwner()
      var before = StoreTotals()
      before.matchCalls = 3
      _ = try txn.record(now, since: before, [])
    }
    let history = try fixture.catalog.read { (txn) throws(CatalogError) in
      try txn.history(spanSeconds: 300)
    }
    #expect(history.map(\.startSeconds) == [600, 900])
    #expect(history.map(\.totals.matchCalls) == [3, 4])
  }
}
