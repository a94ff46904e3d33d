/// Replays a trace through one tier.
package struct TraceReplay: Sendable {
  /// What decides which block leaves.
  package enum Policy: Equatable, Sendable {
    /// The store's own: index, pool and eviction order as in the store.
    case lru
    /// A textbook model beside it.
    case reference(ReferenceCache.Policy, ReferenceCache.TouchOrder)

    package var name: String {
      switch self {
      case .lru: "lru"
      case .reference(let policy, _): policy.rawValue
      }
    }

    package var order: String {
      if case .reference(_, let order) = self { return order.rawValue }
      return ReferenceCache.TouchOrder.tail.rawValue
    }
  }

  package var file: String
  package var policy = Policy.lru
  /// nil = unlimited.
  package var capacityBlocks: Int?
  /// A block expires this long after its last use; the store's own policies only.
  package var ttlMilliseconds: Int64?
  /// Where the trace does not say.
  package var tokensPerBlock = 512
  /// Leaves partial blocks out, as an engine does that never stores them.
  package var isFullBlocksOnly = false
  package var skipsBadLines = false

  package init(file: String) { self.file = file }

  /// Reads the trace to its end.
  ///
  /// `progress` is called after each request with the number so far.
  package func run(progress: (Int) -> Void = { _ in }) throws(TraceError) -> ReplaySummary {
    let cache: any ReplayCache
    switch policy {
    case .lru: cache = PathCache(capacity: capacityBlocks, ttlMilliseconds: ttlMilliseconds)
    case .reference(let policy, let order):
      cache = ReferenceCache(
        policy: policy,
        touchOrder: order,
        capacity: capacityBlocks,
        future: policy == .opt
          ? try FutureUses { (body: (TraceRequest) -> Void) throws(TraceError) in
            _ = try forEachRequest(body)
          } : nil
      )
    }
    var tally = ReplayTally()
    var requestCount = 0
    let reader = try forEachRequest { request in
      tally.add(request, hitBlockCount: cache.handle(request))
      requestCount += 1
      progress(requestCount)
    }
    var summary = tally.summary(
      policy: policy.name,
      order: policy.order,
      capacityBlocks: capacityBlocks,
      ttlSeconds: ttlMilliseconds.map { Double($0) / 1000 },
      isFullBlocksOnly: isFullBlocksOnly,
      counts: cache.counts
    )
    summary.badLineCount = reader.badLineCount
    return summary
  }

  private func forEachRequest(_ body: (TraceRequest) -> Void) throws(TraceError) -> TraceReader {
    let reader = try TraceReader(
      file: file,
      tokensPerBlock: tokensPerBlock,
      skipsBadLines: skipsBadLines
    )
    var request = TraceRequest()
    while try reader.next(into: &request) {
      if isFullBlocksOnly {
        request.blockIDs.removeLast(request.blockIDs.count - request.fullBlockCount)
      }
      body(request)
    }
    return reader
  }
}
