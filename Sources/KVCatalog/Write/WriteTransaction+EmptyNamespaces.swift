package import KVCore

extension ReadTransaction {
  /// Namespaces that hold nothing and that nothing keeps.
  ///
  /// A quota or a pin that has not ended keeps one: somebody gave it.
  ///
  /// - Parameters:
  ///   - ids: those that are looked at; nil = all.
  ///   - now: Unix time in nanoseconds.
  /// - Returns: their numbers.
  /// - Throws: `CatalogError`.
  package func emptyNamespaces(
    among ids: [NamespaceID]? = nil,
    now: UInt64
  ) throws(CatalogError) -> [NamespaceID] {
    let looked: [NamespaceID]
    if let ids { looked = ids } else { looked = try namespaceIDs() }
    var empty: [NamespaceID] = []
    for id in looked {
      guard try accounting(id).blockCount == 0, try children(id, .root, limit: 1).isEmpty,
        let row = try namespace(id), row.quotaBytes == 0
      else { continue }
      empty.append(id)
    }
    guard !empty.isEmpty else { return [] }
    let pinned = Set(try pins(now: now).map(\.namespace))
    return empty.filter { !pinned.contains($0) }
  }

  /// The same of the next namespaces from a number on.
  ///
  /// - Parameters:
  ///   - first: the number to begin with.
  ///   - limit: how many are looked at.
  ///   - now: Unix time in nanoseconds.
  /// - Returns: their numbers, and the number to go on with; nil behind the last one.
  /// - Throws: `CatalogError`.
  package func emptyNamespaces(
    from first: NamespaceID,
    limit: Int,
    now: UInt64
  ) throws(CatalogError) -> (ids: [NamespaceID], next: NamespaceID?) {
    let (ids, next) = try namespaceIDs(from: first, limit: limit)
    return (try emptyNamespaces(among: ids, now: now), next)
  }
}

/// Namespaces that hold nothing leave, with all that is known of them.
extension WriteTransaction {
  /// Removes a namespace that holds nothing; its number is not given again.
  package func removeNamespace(_ id: NamespaceID) throws(CatalogError) {
    guard let row = try cachedNamespace(id) else { return }
    try settle()
    try delete(.namespaces, .namespace(id, kind: .namespace))
    try delete(.namespaces, .namespace(id, kind: .accounting))
    try delete(.keys, .blockKey(.ofRootKeys, row.rootKey))
    for pin in try pins() where pin.namespace == id { try delete(.pins, .pin(pin.id)) }
    namespaceRows[id] = nil
    sectionsByOwner = [:]
    removedNamespaces.insert(id)
  }

  /// Since when nobody has used a namespace: the newest stamp of its path ends, or 0.
  package func newestStamp(of id: NamespaceID) throws(CatalogError) -> UInt64 {
    try settle()
    return try allStamps(id).reduce(0) { max($0, $1.order.stamp) }
  }

  /// Removes what a namespace holds, path by path; false when some of it has to stay.
  package func evictAll(
    of id: NamespaceID,
    isProtected: (NamespaceID, RunID, UInt32) -> Bool,
    _ summary: inout RemovedSummary
  ) throws(CatalogError) -> Bool {
    while true {
      try settle()
      let ends = try allStamps(id)
      if ends.isEmpty { return true }
      let before = summary.ranges.count
      for (at, order) in ends {
        let fate = try removePath(
          endingAt: StampedEnd(namespace: id, at: at, stamp: order.stamp),
          blockCount: Int(UInt32.max),
          reason: .evicted,
          isProtected: isProtected
        )
        switch fate {
        case .protected: return false
        case .removed(let removed, _): summary.add(removed)
        // It goes with what is below it.
        case .outdated: continue
        }
      }
      guard summary.ranges.count > before else { return false }
    }
  }
}
