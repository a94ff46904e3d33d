import KVCore

/// Path ends get stamps, and lose them.
extension WriteTransaction {
  func settleStamps() throws(CatalogError) {
    guard !pendingStamps.isEmpty else { return }
    // In order, so that `stamps` grows at its end.
    let pending = pendingStamps.sorted { $0.value < $1.value }
    pendingStamps = [:]
    for (end, stamp) in pending { try putStamp(end, stamp) }
  }

  /// Gives a path end a stamp in place of its old one.
  func putStamp(_ end: PathEnd, _ stamp: UInt64) throws(CatalogError) {
    guard let row = try cachedNamespace(end.namespace) else { throw .namespaceMissing }
    let old = try storedStamp(end.namespace, end.at)
    let order = StampOrder(priority: try priority(end, in: row), stamp: stamp)
    for pool in row.pools {
      if let old { try delete(.stamps, .stamp(pool, old)) }
      unsafe try put(.stamps, .stamp(pool, order), bodyByteCount: PathEnd.byteCount) { body in
        unsafe end.encode(into: body)
      }
    }
    unsafe try put(
      .ends,
      .block(end.namespace, end.at),
      bodyByteCount: StampOrder.byteCount
    ) { body in
      unsafe order.encode(into: body)
    }
    stampChanges?.append(
      .stamped(StampedEnd(namespace: end.namespace, at: end.at, stamp: stamp))
    )
  }

  func deleteStamp(_ end: PathEnd, _ order: StampOrder) throws(CatalogError) {
    guard let row = try cachedNamespace(end.namespace) else { throw .namespaceMissing }
    for pool in row.pools { try delete(.stamps, .stamp(pool, order)) }
    try delete(.ends, .block(end.namespace, end.at))
    stampChanges?.append(.unstamped(end.namespace, end.at))
  }

  /// The stamp of a block that lost what was below it: the larger of its own and `stamp`.
  func handOver(_ stamp: UInt64, to end: PathEnd) throws(CatalogError) {
    if let own = try storedStamp(end.namespace, end.at), own.stamp >= stamp { return }
    try putStamp(end, stamp)
  }

  /// The priority of a block; the row is looked at only where some block has another than the default.
  func priority(_ end: PathEnd, in row: NamespaceRow) throws(CatalogError) -> UInt8 {
    guard row.facts.contains(.hasPriorities) else { return NewBlock.priorityDefault }
    do throws(CatalogError) {
      return try rowView(end.namespace, end.at)?.priority ?? NewBlock.priorityDefault
    } catch .corrupt(.blockRow) {
      return NewBlock.priorityDefault
    }
  }
}
