internal import CLMDB
internal import KVCore

/// What must hold between the tables, checked in one go; for tests. A live store is checked in steps (`CatalogAudit`).
extension ReadTransaction {
  /// Every rule that is broken, in words; empty = the catalog is sound.
  package func checkInvariants() throws(CatalogError) -> [String] {
    try settle()
    var audit = CatalogAudit(findingCountMax: .max, checksContents: false)
    while try auditStep(&audit, rowCountMax: .max) {}
    try auditTotals(&audit)
    var problems = audit.findings.findings.map { "\($0.place): \($0.text)" }
    problems += audit.slotsClaimedAgain.map { "slots: \($0.described) is in two blocks" }
    problems += try slotsWithoutBlock(&audit, limit: .max).map {
      "slots: \($0.described) is used by nobody"
    }
    return problems
  }

  func entryCount(_ table: Table) throws(CatalogError) -> Int {
    guard has(table) else { return 0 }
    var statistics = MDB_stat()
    let handle = unsafe try liveHandle()
    unsafe try check(mdb_stat(handle, identifier(of: table), &statistics))
    return Int(statistics.ms_entries)
  }
}
