package import KVCore

/// Lives of blocks: extended by use, ended by time.
///
/// A block's idle deadline is the latest in its subtree. For each run on a used path there is a record where the path
/// leaves the run; records that others make void are dropped, so that along a run later positions have earlier deadlines.
extension WriteTransaction {
  /// Lets a block with an idle life, and all before it, live until `deadline` at least; false when it is not there.
  @discardableResult
  package func extend(
    _ namespace: NamespaceID,
    pathEnd: BlockPosition,
    until deadline: UInt64
  ) throws(CatalogError) -> Bool {
    guard try containsRow(namespace, pathEnd) else { return false }
    noteDeadline(PathEnd(namespace: namespace, at: pathEnd), deadline)
    return true
  }

  /// Joins a stored block's life and priority with those of a block that was offered again.
  package func renew(
    _ namespace: NamespaceID,
    _ at: BlockPosition,
    blockExpiry: BlockExpiry,
    priority: UInt8
  ) throws(CatalogError) {
    try settle()
    guard let space = try cachedNamespace(namespace), let old = try row(namespace, at) else {
      return
    }
    let end = PathEnd(namespace: namespace, at: at)
    let joined = old.blockExpiry(deadline: try firstDeadline(end)?.deadline ?? 0).joined(
      blockExpiry
    )
    if joined.storedExpiry != old.expiry || joined.isIdle != old.hasIdleExpiry
      || priority > old.priority
    {
      try rewrite(end, space, old, joined, priority: max(priority, old.priority))
    }
    if try cachedNamespace(namespace)?.facts.contains(.hasIdleExpiry) ?? false {
      noteDeadline(end, joined.deadline)
    }
  }

  private func rewrite(
    _ end: PathEnd,
    _ row: NamespaceRow,
    _ old: BlockRow,
    _ blockExpiry: BlockExpiry,
    priority: UInt8
  ) throws(CatalogError) {
    guard let view = try rowView(end.namespace, end.at) else { return }
    var edit = BlockRowEdit(view)
    edit.setExpiry(blockExpiry)
    edit.setPriority(priority)
    let stamp = try storedStamp(end.namespace, end.at)
    try put(.runs, .block(end.namespace, end.at), edit.body)
    if !old.hasIdleExpiry, old.expiry != 0 {
      try delete(.expiries, .expiry(Expiry(.absolute, old.expiry, end.namespace, end.at)))
    }
    try noteExpiry(blockExpiry, of: end, row)
    guard priority != old.priority else { return }
    if priority != NewBlock.priorityDefault { try noteFact(.hasPriorities, of: end.namespace) }
    // Its place in the order of victims is another one.
    if let stamp { try putStamp(end, stamp.stamp) }
  }

  /// What a block that is stored with this life needs besides its row.
  func noteExpiry(
    _ blockExpiry: BlockExpiry,
    of end: PathEnd,
    _ row: NamespaceRow
  ) throws(CatalogError) {
    switch blockExpiry {
    case .unlimited: break
    case .idle: try noteFact(.hasIdleExpiry, of: end.namespace)
    case .absolute(let deadline):
      try noteFact(.hasAbsoluteExpiry, of: end.namespace)
      try put(.expiries, .expiry(Expiry(.absolute, deadline, end.namespace, end.at)), [])
    }
    // Also of blocks that do not expire: what comes before them is kept as long.
    if try cachedNamespace(end.namespace)?.facts.contains(.hasIdleExpiry) ?? false {
      noteDeadline(end, blockExpiry.deadline)
    }
  }

  // MARK: Records

  func noteDeadline(_ end: PathEnd, _ deadline: UInt64) {
    pendingDeadlines[end] = max(pendingDeadlines[end] ?? 0, deadline)
  }

  func settleDeadlines() throws(CatalogError) {
    guard !pendingDeadlines.isEmpty else { return }
    let pending = pendingDeadlines
    pendingDeadlines = [:]
    // Deepest first: then the records above are mostly there already.
    for (end, deadline) in pending.sorted(by: {
      ($0.key.at.run.rawValue, $0.key.at.position) > ($1.key.at.run.rawValue, $1.key.at.position)
    }) {
      try raise(end, to: deadline)
    }
  }

  private func raise(_ end: PathEnd, to deadline: UInt64) throws(CatalogError) {
    guard deadline > 0, try containsRow(end.namespace, end.at) else { return }
    var end = end
    while true {
      // What is above is kept as long already.
      if let known = try firstDeadline(end), known.deadline >= deadline { return }
      for record in try dominated(by: end, deadline) {
        try deleteDeadline(end.namespace, end.at.run, record)
      }
      let record = DeadlineRecord(position: end.at.position, deadline: deadline)
      try put(.deadlines, .block(end.namespace, end.at), record.encoded)
      if deadline < .max {
        try put(.expiries, .expiry(Expiry(.idle, deadline, end.namespace, end.at)), [])
      }
      guard let parent = try parentOfRun(end.namespace, end.at.run), parent != .root else { return }
      end.at = parent
    }
  }

  func firstDeadline(_ end: PathEnd) throws(CatalogError) -> DeadlineRecord? {
    try deadlines(end.namespace, end.at.run, from: end.at.position, limit: 1).first
  }

  /// The records of the run up to this block that a deadline at it makes void.
  private func dominated(
    by end: PathEnd,
    _ deadline: UInt64
  ) throws(CatalogError) -> [DeadlineRecord] {
    var records: [DeadlineRecord] = []
    var cursor = try cursor(.deadlines)
    var isThere = try cursor.seekBefore(
      .block(end.namespace, BlockPosition(run: end.at.run, position: end.at.position &+ 1))
    )
    while isThere, let found = unsafe keyIntegers(cursor.key),
      found.namespace == end.namespace, found.at.run == end.at.run
    {
      let record = try cursor.deadline(at: found.at.position)
      guard record.deadline <= deadline else { break }
      records.append(record)
      isThere = try cursor.previous()
    }
    return records
  }

  private func deleteDeadline(
    _ namespace: NamespaceID,
    _ run: RunID,
    _ record: DeadlineRecord
  ) throws(CatalogError) {
    let at = BlockPosition(run: run, position: record.position)
    try delete(.deadlines, .block(namespace, at))
    try delete(.expiries, .expiry(Expiry(.idle, record.deadline, namespace, at)))
  }

  /// Removes the records of blocks that leave; what they lent to those before them stays with these.
  func removeDeadlines(
    _ namespace: NamespaceID,
    _ run: RunID,
    _ positions: ClosedRange<UInt32>
  ) throws(CatalogError) {
    let records = try deadlines(namespace, run, from: positions.lowerBound)
      .filter { positions.contains($0.position) }
    for record in records { try deleteDeadline(namespace, run, record) }
    // Also what has expired by now: a pinned block that stays would else have no deadline, and no end.
    guard let latest = records.first, positions.lowerBound > 0 else { return }
    let above = BlockPosition(run: run, position: positions.lowerBound - 1)
    try raise(PathEnd(namespace: namespace, at: above), to: latest.deadline)
  }

  // MARK: The end

  /// Removes what has come to its end, with everything below it, until at least `blockCount` blocks are gone.
  ///
  /// `pool` and `namespace` narrow it down. What is leased stays; what is pinned as well, but for an absolute end.
  package func removeExpired(
    blockCount: Int,
    pool: UInt32? = nil,
    namespace: NamespaceID? = nil,
    protected: ProtectedBlocks = ProtectedBlocks()
  ) throws(CatalogError) -> RemovedSummary {
    try settle()
    var summary = RemovedSummary()
    let suspendedBefore = try idleSuspendedBefore()
    var paths = ProtectedPaths(protected)
    for kind in Expiry.Kind.allCases {
      var next = Expiry.first(kind, kind == .idle ? suspendedBefore : 0)
      while summary.blockCount < blockCount {
        let batch = try expiries(kind, from: next, before: timeNanoseconds, limit: 64)
        for expiry in batch where summary.blockCount < blockCount {
          next = .after(expiry)
          if let namespace, expiry.namespace != namespace { continue }
          if let pool, try cachedNamespace(expiry.namespace)?.pool != pool { continue }
          try end(expiry, suspendedBefore, &paths, &summary)
        }
        if batch.count < 64 { break }
      }
    }
    return summary
  }

  private func end(
    _ expiry: Expiry,
    _ suspendedBefore: UInt64,
    _ paths: inout ProtectedPaths,
    _ summary: inout RemovedSummary
  ) throws(CatalogError) {
    let namespace = expiry.namespace
    var top: BlockPosition?
    switch expiry.kind {
    case .absolute:
      let row = try rowIfSound(namespace, expiry.at)
      if let row, row.expiry == expiry.deadline, !row.flags.contains(.idleExpiry) {
        top = expiry.at
      } else {
        try delete(.expiries, .expiry(expiry))
      }
    case .idle:
      top = try highestExpired(expiry, suspendedBefore)
      if top == nil {
        let record = DeadlineRecord(position: expiry.at.position, deadline: expiry.deadline)
        if try firstDeadline(PathEnd(namespace: namespace, at: expiry.at)) == record {
          try deleteDeadline(namespace, expiry.at.run, record)
        } else {
          try delete(.expiries, .expiry(expiry))
        }
      }
    }
    guard let top, try !paths.cover(namespace, top, isIdle: expiry.kind == .idle, self) else {
      return
    }
    let removed = try removeSubtree(namespace, at: top, reason: .expired)
    summary.add(removed)
    if !removed.ranges.isEmpty {
      summary.expiredTops.append(ExpiredTop(namespace: namespace, at: top))
    }
  }

  /// The first block of the run that has come to its idle end together with the one of the record; nil when that one has not.
  private func highestExpired(
    _ expiry: Expiry,
    _ suspendedBefore: UInt64
  ) throws(CatalogError) -> BlockPosition? {
    var top: BlockPosition?
    var at = expiry.at
    while let row = try rowIfSound(expiry.namespace, at), row.expiry != 0,
      row.flags.contains(.idleExpiry),
      let record = try firstDeadline(PathEnd(namespace: expiry.namespace, at: at)),
      record.deadline < timeNanoseconds, record.deadline >= suspendedBefore
    {
      top = at
      guard at.position > 0 else { break }
      at.position -= 1
    }
    return top
  }

  /// From now on idle deadlines before this time do not count, until a use sets new ones.
  package func suspendIdleExpiry(before time: UInt64) throws(CatalogError) {
    idleSuspension = max(time, try idleSuspendedBefore())
    try putClock(timeNanoseconds)
  }

  // MARK: Pins

  /// Keeps the path down to a block until a time; nil when it is not there.
  package func pin(
    _ namespace: NamespaceID,
    pathEnd: BlockPosition,
    until end: UInt64
  ) throws(CatalogError) -> UInt64? {
    guard try containsRow(namespace, pathEnd) else { return nil }
    var path: [BlockPosition] = []
    var at: BlockPosition? = pathEnd
    while let next = at, next != .root {
      path.append(next)
      at = try parentOfRun(namespace, next.run)
    }
    let id = UInt64(counters.pin)
    counters.pin += 1
    let row = PinRow(
      id: id,
      namespace: namespace,
      owner: owner,
      endNanoseconds: end,
      path: path
    )
    try put(.pins, .pin(id), row.encoded)
    pinsByRun = nil
    return id
  }

  /// Whether a namespace may have one more pin: ended ones leave first, and no namespace takes those of all others.
  package func hasRoomForPin(in namespace: NamespaceID) throws(CatalogError) -> Bool {
    let totalMax = max(64, mapByteCount / 16 / 128)
    var count = 0
    var ownCount = 0
    for pin in try pins() {
      if pin.hasEnded(at: timeNanoseconds) {
        try delete(.pins, .pin(pin.id))
        continue
      }
      count += 1
      if pin.namespace == namespace { ownCount += 1 }
    }
    return count < totalMax && ownCount < min(Self.pinCountMax, totalMax / 8)
  }

  /// Pins of one namespace; in a small catalog fewer.
  private static let pinCountMax = 4096

  /// The pin that has ended by this; nil when there is none of that number.
  package func unpin(_ id: UInt64) throws(CatalogError) -> PinRow? {
    guard let value = unsafe try getChecked(.pins, .pin(id)) else { return nil }
    let pin = unsafe PinRow(id: id, value)
    try delete(.pins, .pin(id))
    return pin
  }

  /// Pins hold what is left of their paths; blocks that come to the same positions later are not theirs.
  ///
  /// A pin that holds nothing any more ends.
  func shortenPins(
    _ namespace: NamespaceID,
    _ run: RunID,
    before position: UInt32
  ) throws(CatalogError) {
    for id in try pinIDs(RunKey(namespace: namespace, run: run)) {
      guard let value = unsafe try getChecked(.pins, .pin(id)) else { continue }
      guard var pin = unsafe PinRow(id: id, value) else { throw .corrupt(.pin) }
      guard let index = pin.path.firstIndex(where: { $0.run == run && $0.position >= position })
      else { continue }
      if position > 0 {
        pin.path[index].position = position - 1
      } else {
        pin.path.remove(at: index)
      }
      if pin.path.isEmpty {
        try delete(.pins, .pin(id))
      } else {
        try put(.pins, .pin(id), pin.encoded)
      }
    }
  }

  /// The pins whose path goes through a run; all pins are gone through once in a transaction, not for each run that leaves.
  private func pinIDs(_ run: RunKey) throws(CatalogError) -> [UInt64] {
    if let known = pinsByRun { return known[run] ?? [] }
    var found: [RunKey: [UInt64]] = [:]
    for pin in try pins() {
      for at in pin.path {
        found[RunKey(namespace: pin.namespace, run: at.run), default: []].append(pin.id)
      }
    }
    pinsByRun = found
    return found[run] ?? []
  }

  /// Removes pins that have come to their end, and those that hold nothing: older versions kept them.
  package func removeEndedPins() throws(CatalogError) {
    for pin in try pins() where pin.hasEnded(at: timeNanoseconds) {
      try delete(.pins, .pin(pin.id))
    }
  }

  /// What leases hold, and what pins hold.
  package func protected(_ leased: [RunID: UInt32]) throws(CatalogError) -> ProtectedBlocks {
    try protected(leased, now: timeNanoseconds)
  }
}

/// Blocks that have to stay: of each run the deepest position.
package struct ProtectedBlocks: Sendable {
  package var leased: [RunID: UInt32]
  /// With all runs of their paths.
  package var pinned: [RunID: UInt32] = [:]

  package init(leased: [RunID: UInt32] = [:]) { self.leased = leased }

  /// Whether an eviction must leave this block, which is a leaf.
  package func covers(_ run: RunID, _ position: UInt32) -> Bool {
    leased[run].map { position <= $0 } ?? false || pinned[run].map { position <= $0 } ?? false
  }
}

/// What is protected with its ancestors: a whole subtree leaves only if nothing in it is.
private struct ProtectedPaths {
  private let protected: ProtectedBlocks
  /// Leases with all runs of their paths, by namespace.
  private var leased: [NamespaceID: [RunID: UInt32]] = [:]

  init(_ protected: ProtectedBlocks) { self.protected = protected }

  mutating func cover(
    _ namespace: NamespaceID,
    _ top: BlockPosition,
    isIdle: Bool,
    _ transaction: WriteTransaction
  ) throws(CatalogError) -> Bool {
    if isIdle, let pinned = protected.pinned[top.run], pinned >= top.position { return true }
    if leased[namespace] == nil {
      var paths: [RunID: UInt32] = [:]
      for (run, position) in protected.leased {
        var at: BlockPosition? = BlockPosition(run: run, position: position)
        while let next = at, next != .root {
          paths[next.run] = max(paths[next.run] ?? 0, next.position)
          at = try transaction.parentOfRun(namespace, next.run)
        }
      }
      leased[namespace] = paths
    }
    return leased[namespace]?[top.run].map { $0 >= top.position } ?? false
  }
}
