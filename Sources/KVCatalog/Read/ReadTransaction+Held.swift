package import KVCore

extension ReadTransaction {
  /// Whether there are blocks and none of them may be evicted, so that only the end of a lease or a pin makes room.
  ///
  /// Stops at the first leaf that may go. `inSlots` leaves out inline payloads, whose eviction frees no slot.
  package func holdsNothingEvictable(
    inSlots: Bool,
    isProtected: (NamespaceID, RunID, UInt32) -> Bool
  ) throws(CatalogError) -> Bool {
    var isSomethingHeld = false
    for pool in Set(try namespaces().map(\.pool)) where pool > 0 || !inSlots {
      var last: StampOrder?
      while true {
        var rows: [StampRow] = []
        try forEachStamp(pool: pool, after: last) { row in
          rows.append(row)
          return rows.count < 64
        }
        for row in rows where try isStoredLeaf(row.namespace, row.end) {
          guard isProtected(row.namespace, row.end.run, row.end.position) else { return false }
          isSomethingHeld = true
        }
        guard rows.count == 64 else { break }
        last = rows.last?.order
      }
    }
    return isSomethingHeld
  }

  private func isStoredLeaf(
    _ namespace: NamespaceID,
    _ at: BlockPosition
  ) throws(CatalogError) -> Bool {
    guard try containsRow(namespace, at) else { return false }
    return try isLeaf(namespace, at)
  }
}
