internal import KVCatalog
public import KVCore

/// What happened to blocks of one run, as the catalog recorded it with the change itself.
public struct StoreEvent: Sendable, Equatable {
  /// What happened.
  public enum Kind: UInt32, Sendable {
    /// Blocks were published.
    case stored = 1
    /// Blocks left; `reason` says why.
    case removed = 2
    /// Blocks left because they were damaged.
    case quarantined = 3
    /// Blocks have their bytes in another tier now.
    case moved = 4
  }

  /// Why blocks left.
  public enum Reason: UInt32, Sendable {
    case none = 0
    case evicted, forgotten, corrupt, expired, quota
  }

  /// Number of the event; the cursor to go on from.
  public var sequence: UInt64
  /// Unix time in nanoseconds.
  public var timeNanoseconds: UInt64
  /// What happened.
  public var kind: Kind
  /// Why.
  public var reason: Reason
  /// Where the bytes are now, or were.
  public var tier: Tier
  /// Number of the namespace.
  public var namespace: NamespaceID
  /// The run.
  public var run: RunID
  /// The first block of the run that this is about.
  public var firstPosition: UInt32
  /// Blocks from there on.
  public var blockCount: UInt32
  /// Number of the process that did it.
  public var owner: UInt32
}

/// Some events, and where to go on.
public struct StoreEvents: Sendable {
  /// Oldest first.
  public var events: [StoreEvent] = []
  /// What to ask for next.
  public var cursor: UInt64
  /// Events after the asked cursor are gone, or never were: a reader's picture is void, and it starts over from `cursor`.
  public var isLapped: Bool
}

extension Store {
  /// The events after `cursor` (0: from the oldest that is kept), at most `limit`.
  ///
  /// One short read transaction; waits for no writer. The newest 65,536 events are kept.
  public func events(after cursor: UInt64, limit: Int = 1000) throws(StoreError) -> StoreEvents {
    try enter()
    defer { leave() }
    let from = try cursor == 0 ? core.oldestCursor() : cursor
    let page = try core.events(after: from, limit: max(0, min(limit, 1000)))
    return StoreEvents(
      events: page.events.map(StoreEvent.init),
      cursor: page.cursor,
      isLapped: page.isLapped
    )
  }
}

extension StoreCore {
  /// The cursor before the oldest event that is kept.
  fileprivate func oldestCursor() throws(StoreError) -> UInt64 {
    try catalogRead { (transaction) throws(CatalogError) in
      try transaction.eventSequences().map { $0.lowerBound - 1 } ?? 0
    }
  }
}

extension StoreEvent {
  fileprivate init(_ event: CatalogEvent) {
    sequence = event.sequence
    timeNanoseconds = event.timeNanoseconds
    kind =
      switch event.kind {
      case .stored: .stored
      case .removed: .removed
      case .quarantined: .quarantined
      case .moved: .moved
      }
    reason =
      switch event.reason {
      case .none: .none
      case .evicted: .evicted
      case .forgotten: .forgotten
      case .corrupt: .corrupt
      case .expired: .expired
      case .quota: .quota
      }
    tier = event.tier
    namespace = event.namespace
    run = event.run
    firstPosition = event.firstPosition
    blockCount = event.blockCount
    owner = event.owner.rawValue
  }
}
