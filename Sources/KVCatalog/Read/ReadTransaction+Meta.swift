/// Reads of what holds for the whole store.
extension ReadTransaction {
  /// Whether all processes that had the store open have closed it.
  package func isClean() throws(CatalogError) -> Bool {
    guard let value = unsafe try getChecked(.meta, .meta(.clean)) else { return false }
    return unsafe value.first == 1
  }

  func clock() throws(CatalogError) -> ClockRow {
    guard let value = unsafe try getChecked(.meta, .meta(.clock)) else { return ClockRow() }
    guard let clock = unsafe ClockRow(value) else { throw .corrupt(.meta) }
    return clock
  }

  /// The latest time that a commit carried, in Unix nanoseconds.
  package func lastCommittedNanoseconds() throws(CatalogError) -> UInt64 { try clock().committed }

  /// Idle deadlines before this time do not count: they are from before a jump of the clock.
  package func idleSuspendedBefore() throws(CatalogError) -> UInt64 { try clock().idleSuspension }
}
