package import KVCore
internal import KVPolicy

/// An engine with a store and without it on the same trace.
package struct EngineComparison: Sendable {
  package var withStore: EngineResult
  package var withoutStore: EngineResult
  package var tokensPerBlock: Int
  package var badLineCount: Int
}

/// Replays a trace through one tier, or through a simulated engine.
package struct TraceReplay: Sendable {
  /// What decides which block leaves.
  package enum Policy: Equatable, Sendable {
    /// Least recently used first: index, pool and eviction order as in the store.
    case lru
    /// Least hit density first, learned while running, as the store does unless it is told otherwise; index and pool as in the store.
    case density
    /// A textbook model beside it.
    case reference(ReferenceCache.Policy, ReferenceCache.TouchOrder)

    package var name: String {
      switch self {
      case .lru: "lru"
      case .density: "density"
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
  /// Which new blocks come in; the store's own policies only.
  package var admission = AdmissionPolicy.always
  /// The most that is admitted in a day, and what a block counts for; 0 = no bound.
  package var writeBytesPerDay = 0
  package var blockByteCount = 0
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
    case .lru:
      cache = PathCache(
        capacity: capacityBlocks,
        ttlMilliseconds: ttlMilliseconds,
        admission: Admission(
          admission,
          writeBytesPerDay: writeBytesPerDay,
          keyCountMax: max(1 << 18, 4 * (capacityBlocks ?? 0))
        ),
        blockByteCount: blockByteCount
      )
    case .density: cache = DensityCache(capacity: capacityBlocks)
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

  /// Simulates an engine on the trace, with the store and without it.
  ///
  /// `policy` and `capacityBlocks` do not matter here.
  package func compare(
    _ engine: EngineProfile,
    _ store: StoreProfile,
    progress: (Int) -> Void = { _ in }
  ) throws(TraceError) -> EngineComparison {
    let with = try simulate(engine, store, progress)
    let without = try simulate(engine, nil, progress)
    return EngineComparison(
      withStore: with.result,
      withoutStore: without.result,
      tokensPerBlock: with.tokensPerBlock,
      badLineCount: with.badLineCount
    )
  }

  private func simulate(
    _ engine: EngineProfile,
    _ store: StoreProfile?,
    _ progress: (Int) -> Void
  ) throws(TraceError) -> (result: EngineResult, tokensPerBlock: Int, badLineCount: Int) {
    var simulation: EngineSimulation?
    // The first line says how many tokens a block has; a device's slots have one size.
    var tokens = tokensPerBlock
    let reader = try forEachRequest { request in
      if simulation == nil { tokens = request.tokensPerBlock }
      let running =
        simulation ?? EngineSimulation(engine: engine, store: store, tokensPerBlock: tokens)
      simulation = running
      running.add(request)
      progress(running.result.requestCount)
    }
    simulation?.finish()
    return (simulation?.result ?? EngineResult(), tokens, reader.badLineCount)
  }

  func forEachRequest(_ body: (TraceRequest) -> Void) throws(TraceError) -> TraceReader {
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
