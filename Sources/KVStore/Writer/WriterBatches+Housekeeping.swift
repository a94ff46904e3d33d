internal import KVCatalog
internal import KVCore

/// What the writer does when it has nothing else to do.
struct Housekeeping {
  /// In nanoseconds of `monotonicNanoseconds()`.
  var lastTime: UInt64 = 0
}

extension WriterBatches {
  /// Between two looks at what has come to its end.
  static let housekeepingInterval: UInt64 = 1_000_000_000
  /// Blocks that one commit removes, but for the rest of a subtree.
  private static let blockCountMax = 1000

  /// Whether there is something to look after while nothing is queued.
  var needsHousekeeping: Bool {
    isOverCapacity
      || core.state.withLock { $0.namespaces.mayExpire }
  }

  /// Whether `keepHouse` would do something.
  var isHouseDue: Bool {
    slots.isLow || monotonicNanoseconds() &- housekeeping.lastTime >= Self.housekeepingInterval
  }

  /// Removes what has come to its end and keeps slots free ahead; at most once in an interval.
  func keepHouse() {
    let now = monotonicNanoseconds()
    slots.keepAhead()
    guard now &- housekeeping.lastTime >= Self.housekeepingInterval else { return }
    housekeeping.lastTime = now
    core.tidyNamespaces()
    guard needsHousekeeping else { return }
    // What was held may have been let go.
    if isOverCapacity { core.writer?.enqueueShrinking() }
    do throws(StoreError) {
      _ = try removeExpired()
    } catch {
      // A look-up hides it all the same, and there is another look soon.
      core.health.poisonIfInternal(error)
    }
  }

  /// Removes all expired blocks, a thousand or a subtree in a commit; returns how many.
  func removeExpired() throws(StoreError) -> Int {
    var count = 0
    while true {
      let isDue = try core.catalogRead { (transaction) throws(CatalogError) in
        try transaction.hasExpired(now: core.time.now())
      }
      guard isDue else { return count }
      let removedCount = try core.catalogWriter.evict { (eviction) throws(CatalogError) in
        try eviction.transaction.removeEndedPins()
        try eviction.removeExpired(blockCount: Self.blockCountMax)
        return eviction.removedBlockCount
      }
      count += removedCount
      // What is leased stays for now.
      if removedCount == 0 { return count }
    }
  }

  /// Evicts some rows where the catalog has no room; returns how many blocks.
  func makeCatalogRoom() throws(StoreError) -> Int { try slots.makeCatalogRoom() }

  /// Evicts what a namespace holds beyond its quota, with a commit of its own.
  func enforceQuota(_ namespace: NamespaceID) throws(StoreError) {
    try core.catalogWriter.evict { (eviction) throws(CatalogError) in
      try eviction.enforceQuota(namespace)
    }
  }
}
