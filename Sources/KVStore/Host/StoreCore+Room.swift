internal import KVCodec
internal import KVCore

extension StoreCore {
  /// Bytes moved under one pass of the state lock: a quarter of the arena, at most 16 MiB.
  var windowByteCount: Int { min(effectiveHostBytes / 4, 16 << 20) }

  /// Blocks of as many bytes.
  func windowBlockCount(_ namespace: NamespaceCore) -> Int {
    max(1, min(256, windowByteCount / namespace.layout.slotByteCount))
  }

  /// Blocks of whose regions some are read, with their headers.
  func windowBlockCount(_ namespace: NamespaceCore, regions: Range<Int>) -> Int {
    let layout = namespace.layout
    let byteCount =
      layout.headerByteCount + layout.regionEnd(regions.upperBound - 1)
      - layout.regionOffset(regions.lowerBound)
    return max(1, min(256, windowByteCount / roundUp(byteCount, to: 4096)))
  }

  /// Waits for what `attempt` wants of the host tier, and hurries the writer; nil when the limit comes first.
  func waitForRoom<Result>(
    _ limit: TransferLimit,
    _ attempt: (inout StoreState) -> Result?
  ) -> Result? {
    writer?.hurry()
    while true {
      // A reservation that ends by itself wakes nobody.
      let nextEnd = state.withLock { state in
        state.reservations.endLapsed(now: monotonicNanoseconds())
        return state.reservations.nextEnd
      }
      let until = [nextEnd.map { $0 &+ 1 }, limit.deadline].compactMap { $0 }.min()
      let outcome: Result?? = state.wait(until: until) { state in
        if limit.isCancelled { return .some(nil) }
        return attempt(&state).map { .some($0) }
      }
      if let outcome { return outcome }
      if let deadline = limit.deadline, monotonicNanoseconds() >= deadline { return nil }
    }
  }
}
