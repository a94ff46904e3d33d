package import KVCore

extension NamespaceRow {
  /// The row with these limits.
  package func applying(_ limits: NamespaceLimits) -> NamespaceRow {
    var row = self
    row.quotaBytes = limits.quotaBytes ?? quotaBytes
    guard let timeToLive = limits.timeToLive else { return row }
    row.facts.remove(.defaultIsAbsolute)
    switch timeToLive {
    case .unlimited: row.defaultTTLNanoseconds = 0
    case .idle(let nanoseconds): row.defaultTTLNanoseconds = nanoseconds
    case .absolute(let nanoseconds):
      row.defaultTTLNanoseconds = nanoseconds
      row.facts.insert(.defaultIsAbsolute)
    }
    return row
  }

  /// What blocks get that are written without a word about it.
  package var timeToLive: TimeToLive {
    if defaultTTLNanoseconds == 0 { return .unlimited }
    return facts.contains(.defaultIsAbsolute)
      ? .absolute(nanoseconds: defaultTTLNanoseconds) : .idle(nanoseconds: defaultTTLNanoseconds)
  }
}

/// A namespace that holds more than its quota evicts its own blocks.
extension WriteTransaction {
  /// Changes what a namespace may hold; false when nothing changes.
  package func setLimits(
    _ id: NamespaceID,
    _ limits: NamespaceLimits
  ) throws(CatalogError) -> Bool {
    try settle()
    guard let old = try cachedNamespace(id) else { throw .namespaceMissing }
    let new = old.applying(limits)
    guard new != old else { return false }
    try putNamespace(new)
    // Only a namespace with a quota pays for an order of its own.
    guard old.quotaPool != new.quotaPool else { return true }
    for (at, order) in try allStamps(id) {
      if let pool = old.quotaPool { try delete(.stamps, .stamp(pool, order)) }
      if new.quotaPool != nil { try putStamp(PathEnd(namespace: id, at: at), order.stamp) }
    }
    return true
  }

  /// Whether the namespace holds more than it may.
  package func isOverQuota(_ id: NamespaceID) throws(CatalogError) -> Bool {
    guard let row = try cachedNamespace(id), row.quotaPool != nil else { return false }
    return row.quotaUsage(try accounting(id)) > row.quotaBytes
  }

  /// Evicts the namespace's own blocks until it is within its quota, or none may go.
  package func enforceQuota(
    _ id: NamespaceID,
    isProtected: (NamespaceID, RunID, UInt32) -> Bool = { _, _, _ in false }
  ) throws(CatalogError) -> RemovedSummary {
    var removed = RemovedSummary()
    try settle()
    guard let row = try cachedNamespace(id), let pool = row.quotaPool else { return removed }
    while true {
      let accounting = try accounting(id)
      let usage = row.quotaUsage(accounting)
      guard usage > row.quotaBytes, accounting.blockCount > 0 else { return removed }
      // Exact where blocks are of one size; else the mean, and once more.
      let mean = max(usage / accounting.blockCount, 1)
      let round = try evict(
        pools: [pool],
        blockCount: Int(clamping: max((usage - row.quotaBytes) / mean, 1)),
        reason: .quota,
        isProtected
      )
      if round.ranges.isEmpty { return removed }
      removed.add(round)
    }
  }

  /// As `enforceQuota`, but what has come to its end goes first.
  package func enforceQuota(
    _ id: NamespaceID,
    protected: ProtectedBlocks,
    expiredFirst: Bool = true
  ) throws(CatalogError) -> RemovedSummary {
    var removed = RemovedSummary()
    if expiredFirst, let row = try cachedNamespace(id), row.facts.mayExpire {
      let accounting = try accounting(id)
      let usage = row.quotaUsage(accounting)
      if row.quotaBytes > 0, usage > row.quotaBytes, accounting.blockCount > 0 {
        let mean = max(usage / accounting.blockCount, 1)
        let count = (usage - row.quotaBytes - 1) / mean + 1
        removed = try removeExpired(
          blockCount: Int(clamping: count),
          namespace: id,
          protected: protected
        )
      }
    }
    removed.add(
      try enforceQuota(id) { _, run, position in protected.covers(run, position) }
    )
    return removed
  }

  private func allStamps(
    _ namespace: NamespaceID
  ) throws(CatalogError) -> [(at: BlockPosition, order: StampOrder)] {
    var stamps: [(at: BlockPosition, order: StampOrder)] = []
    var cursor = try cursor(.ends)
    var isThere = try cursor.seek(.block(namespace, BlockPosition(run: .root, position: 0)))
    while isThere, let found = unsafe keyIntegers(cursor.key), found.namespace == namespace {
      guard let order = unsafe StampOrder(try cursor.checkedBody(.ends)) else {
        throw .corrupt(.stamp)
      }
      stamps.append((found.at, order))
      isThere = try cursor.next()
    }
    return stamps
  }
}
