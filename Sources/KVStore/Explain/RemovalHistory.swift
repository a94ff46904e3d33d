internal import KVCatalog
internal import KVCore

/// When and why blocks left, by their keys: what the catalog's events say, kept in RAM once somebody asks.
///
/// Reads only the events that are new since the last question. As long as the ring of events, and no longer.
struct RemovalHistory {
  struct Removal {
    var timeNanoseconds: UInt64
    var reason: RemovalReason
    var sequence: UInt64
  }

  /// By the key alone: an identity that left and came back has another number, and the same keys.
  private var removals: [BlockKey: Removal] = [:]
  /// Removals without keys: whole namespaces.
  private var purges: [NamespaceID: Removal] = [:]
  private(set) var cursor: UInt64 = 0

  /// Removals that are remembered; the older half goes when there are more.
  private static let countMax = 65_536

  func removal(of blockKey: BlockKey) -> Removal? { removals[blockKey] }

  func purge(of namespace: NamespaceID) -> Removal? { purges[namespace] }

  mutating func add(_ events: [CatalogEvent]) {
    for event in events {
      cursor = event.sequence
      guard event.kind == .removed || event.kind == .quarantined else { continue }
      let removal = Removal(
        timeNanoseconds: event.timeNanoseconds,
        reason: event.kind == .quarantined ? .corrupt : event.reason,
        sequence: event.sequence
      )
      if let topKey = event.topKey {
        removals[topKey] = removal
      } else if event.reason == .forgotten {
        purges[event.namespace] = removal
      }
    }
    guard removals.count > Self.countMax else { return }
    let oldest = cursor - min(cursor, UInt64(Self.countMax / 2))
    removals = removals.filter { $0.value.sequence > oldest }
  }
}

extension StoreCore {
  /// The removal of this block, as far as the events go back.
  func removal(of blockKey: BlockKey) throws(StoreError) -> RemovalHistory.Removal? {
    try readNewRemovals()
    return removalHistory.withLock { $0.removal(of: blockKey) }
  }

  /// The last purge of a namespace, as far as the events go back.
  func purge(of namespace: NamespaceID) throws(StoreError) -> RemovalHistory.Removal? {
    try readNewRemovals()
    return removalHistory.withLock { $0.purge(of: namespace) }
  }

  private func readNewRemovals() throws(StoreError) {
    while true {
      let cursor = removalHistory.withLock { $0.cursor }
      let events = try catalogRead { (transaction) throws(CatalogError) in
        try transaction.events(after: cursor, limit: 1000)
      }
      removalHistory.withLock { history in
        // Another thread may have read them meanwhile.
        if history.cursor == cursor { history.add(events) }
      }
      if events.count < 1000 { return }
    }
  }
}
