/// Reads of the ring of events.
extension ReadTransaction {
  /// The events after a sequence number, oldest first.
  package func events(
    after sequence: UInt64,
    limit: Int = .max
  ) throws(CatalogError) -> [CatalogEvent] {
    try settle()
    var events: [CatalogEvent] = []
    var cursor = try cursor(.events)
    guard sequence < .max else { return [] }
    var isThere = try cursor.seek(.event(sequence + 1))
    while isThere, events.count < limit {
      let body = unsafe try cursor.checkedBody(.events)
      guard let found = unsafe keyNumber(cursor.key), let event = unsafe CatalogEvent(found, body)
      else {
        throw .corrupt(.event)
      }
      events.append(event)
      isThere = try cursor.next()
    }
    return events
  }

  /// The oldest and the newest event that are kept; nil when there is none.
  ///
  /// A reader whose next sequence number is below the oldest was lapped.
  package func eventSequences() throws(CatalogError) -> ClosedRange<UInt64>? {
    try settle()
    var cursor = try cursor(.events)
    guard try cursor.first(), let oldest = unsafe keyNumber(cursor.key), try cursor.last(),
      let newest = unsafe keyNumber(cursor.key), oldest <= newest
    else { return nil }
    return oldest...newest
  }
}
