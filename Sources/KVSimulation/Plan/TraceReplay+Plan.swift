/// Hits of a trace over capacity and TTL.
package struct PlanResult {
  package var curves: HitCurves
  /// Bytes of each of the curves' capacities.
  package var sizes: [Int]
  package var blockByteCount: Int
  package var badLineCount: Int
}

extension TraceReplay {
  /// Reads the trace once for the hits of an LRU at each size and TTL.
  ///
  /// `sizes` are bytes; `blockByteCount` answers the bytes of a block from its tokens, as the first line has them.
  package func plan(
    sizes: [Int],
    blockByteCount: (Int) -> Int,
    ttlMilliseconds: [Int64],
    progress: (Int) -> Void = { _ in }
  ) throws(TraceError) -> PlanResult {
    var result: PlanResult?
    func started(_ tokens: Int) -> PlanResult {
      let bytes = max(1, blockByteCount(tokens))
      // A size below one block is none; two sizes of as many blocks are one.
      var byCount: [Int: Int] = [:]
      for size in sizes where size >= bytes && byCount[size / bytes] == nil {
        byCount[size / bytes] = size
      }
      let counts = byCount.keys.sorted()
      return PlanResult(
        curves: HitCurves(capacities: counts, ttlMilliseconds: ttlMilliseconds),
        sizes: counts.compactMap { byCount[$0] },
        blockByteCount: bytes,
        badLineCount: 0
      )
    }
    let reader = try forEachRequest { request in
      let running = result ?? started(request.tokensPerBlock)
      result = running
      running.curves.add(request)
      progress(running.curves.requestCount)
    }
    var done = result ?? started(tokensPerBlock)
    done.badLineCount = reader.badLineCount
    return done
  }
}
