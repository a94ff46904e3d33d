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

  /// What the namespace holds beyond its quota; nil = nothing.
  package func quotaExcess(_ id: NamespaceID) throws(CatalogError) -> QuotaExcess? {
    guard let row = try cachedNamespace(id), let pool = row.quotaPool else { return nil }
    let accounting = try accounting(id)
    let usage = row.quotaUsage(accounting)
    guard usage > row.quotaBytes, accounting.blockCount > 0 else { return nil }
    return QuotaExcess(
      pool: pool,
      mayExpire: row.facts.mayExpire,
      byteCount: usage - row.quotaBytes,
      meanBlockByteCount: max(usage / accounting.blockCount, 1)
    )
  }

  func allStamps(
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

/// What a namespace holds beyond its quota.
package struct QuotaExcess: Sendable {
  /// The order of its own path ends.
  package var pool: UInt32
  /// Whether some of its blocks may have expired.
  package var mayExpire: Bool
  var byteCount: UInt64
  var meanBlockByteCount: UInt64

  /// Blocks that make up for it at least: exact where they are of one size, else a mean, by which some excess may remain.
  package var blockCount: Int { Int(clamping: max(byteCount / meanBlockByteCount, 1)) }
  /// As `blockCount`, rounded up.
  package var blockCountMax: Int { Int(clamping: (byteCount - 1) / meanBlockByteCount + 1) }
}
