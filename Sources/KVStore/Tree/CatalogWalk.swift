internal import KVCatalog
internal import KVCore
internal import KVIndex
internal import KVTiers

/// Reads the rows that continue a prompt behind a block, as far as their words compare equal.
///
/// Only the first block of each run is looked up by its key; the others lie behind it.
struct CatalogWalk {
  /// On its way into the index; its words are the prompt's.
  struct Row {
    var entry: IndexEntry
    var position: BlockPosition
  }

  private(set) var rows: [Row] = []
  private(set) var hashCount: UInt64 = 0
  private(set) var collisionCount: UInt64 = 0
  /// A row that cannot be read.
  private(set) var corrupt: BlockPosition?
  private let time: StoreTime
  private let namespace: NamespaceCore
  private var cursor: ChainCursor
  private var last: BlockPosition
  private let now: UInt64
  private let hasArchive: Bool
  /// Read when the first block with an idle life is met: most namespaces have none.
  private var deadlines: (run: RunID, deadlines: RunDeadlines)?

  /// Why a run was left.
  private enum Step {
    case taken
    /// The row is another prompt's.
    case other
    case over
    case corrupt
    /// It has an idle life, and when it ends was not read yet.
    case needsDeadlines
  }

  /// Stands where `cursor` does, behind the block at `last`.
  init(
    _ time: StoreTime,
    hasArchive: Bool,
    _ namespace: NamespaceCore,
    _ cursor: ChainCursor,
    after last: BlockPosition
  ) {
    self.time = time
    self.hasArchive = hasArchive
    self.namespace = namespace
    self.cursor = cursor
    self.last = last
    now = time.now()
  }

  mutating func read(
    _ transaction: ReadTransaction,
    upTo blockCount: Int
  ) throws(CatalogError) {
    while cursor.block < blockCount, let key = cursor.key {
      hashCount += 1
      guard let found = try transaction.find(namespace.id, key) else { return }
      let first = cursor.block
      var step = Step.other
      try transaction.forEachRow(
        namespace.id,
        found.run,
        from: found.position,
        through: .max
      ) { position, row in
        let here = BlockPosition(run: found.run, position: position)
        step = cursor.block < blockCount ? take(row, at: here) : .other
        return step == .taken
      }
      switch step {
      case .over, .corrupt: return
      case .needsDeadlines:
        deadlines = (
          found.run,
          try transaction.runDeadlines(namespace.id, found.run, from: found.position, now: now)
        )
      case .taken, .other:
        guard cursor.block == first else { continue }
        collisionCount += 1
        return
      }
    }
  }

  private mutating func take(_ row: RowView?, at here: BlockPosition) -> Step {
    guard let row else {
      corrupt = here
      return .corrupt
    }
    let parent =
      here.position == 0
      ? row.parent : BlockPosition(run: here.run, position: here.position - 1)
    // An archive that is away promises nothing; it is not empty either.
    guard row.place.tier != .archive || hasArchive, parent == last, let block = cursor.here,
      block.matches(row)
    else { return .other }
    var entry = IndexEntry(
      blockKey: row.blockKey,
      place: row.place,
      payloadByteCount: row.payloadByteCount
    )
    if row.expiry != 0 {
      namespace.expiry.mayExpire.exchange(true)
      if row.flags.contains(.idleExpiry) {
        guard let deadlines, deadlines.run == here.run else { return .needsDeadlines }
        let deadline = deadlines.deadlines.deadline(at: here.position)
        entry.blockExpiry = .idle(nanoseconds: row.expiry, deadline: deadline)
      } else {
        entry.blockExpiry = .absolute(row.expiry)
      }
      if time.isOver(entry, at: now) { return .over }
    }
    rows.append(Row(entry: entry, position: here))
    last = here
    cursor.pass(row.blockKey)
    return .taken
  }
}
