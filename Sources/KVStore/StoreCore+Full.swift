internal import KVCore

/// A store full of what must stay says so at once.
extension StoreCore {
  /// For how long offloads are refused after the writer has found nothing to evict; then one may try again.
  static let fullNanoseconds: UInt64 = 1_000_000_000

  /// Whether blocks of the namespace would be dropped anyhow; counts them if so.
  func isFull(_ namespace: NamespaceCore, blockCount: Int) -> Bool {
    state.withLock { state in
      guard let until = state.fullUntil[namespace.pool] else { return false }
      guard monotonicNanoseconds() < until else {
        state.fullUntil[namespace.pool] = nil
        return false
      }
      state.statistics.blocksRefusedFull += UInt64(blockCount)
      return true
    }
  }
}
