import KVCore

/// What happened is noted in a ring, for those who follow.
extension WriteTransaction {
  /// Notes what happened; neighbours become one event.
  func note(_ event: CatalogEvent) {
    if let last = pendingEvents.last, last.kind == event.kind, last.reason == event.reason,
      last.tier == event.tier, last.namespace == event.namespace, last.run == event.run,
      last.owner == event.owner
    {
      let index = pendingEvents.count - 1
      if last.kind == .stored, last.isContinued(by: event) {
        pendingEvents[index].addBlocks(of: event)
        return
      }
      // What leaves goes from the end of its run upwards.
      if last.kind == .removed, event.isContinued(by: last) {
        pendingEvents[index].firstPosition = event.firstPosition
        pendingEvents[index].addBlocks(of: event)
        pendingEvents[index].topKey = event.topKey
        return
      }
    }
    pendingEvents.append(event)
  }

  func settleEvents() throws(CatalogError) {
    guard !pendingEvents.isEmpty else { return }
    for event in pendingEvents.suffix(Int(clamping: eventCountMax)) {
      try put(.events, .event(counters.event), event.encoded)
      counters.event += 1
    }
    pendingEvents = []
    // The ring: only the oldest are looked at, as many as are too many.
    guard counters.event > eventCountMax else { return }
    var obsolete: [UInt64] = []
    do {
      var cursor = try cursor(.events)
      var isThere = try cursor.first()
      while isThere, let sequence = unsafe keyNumber(cursor.key),
        sequence < counters.event - eventCountMax
      {
        obsolete.append(sequence)
        isThere = try cursor.next()
      }
    }
    for sequence in obsolete { try delete(.events, .event(sequence)) }
  }
}

extension CatalogEvent {
  fileprivate mutating func addBlocks(of other: CatalogEvent) {
    blockCount = UInt32(clamping: Int(blockCount) + Int(other.blockCount))
  }

  fileprivate func isContinued(by next: CatalogEvent) -> Bool {
    UInt64(firstPosition) + UInt64(blockCount) == UInt64(next.firstPosition)
  }
}
