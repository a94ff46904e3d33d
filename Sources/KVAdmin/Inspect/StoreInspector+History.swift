internal import KVCatalog
public import KVCore
internal import KVStore

extension StoreInspector {
  /// What all processes did in a stretch of time, as far as they have committed it.
  public struct HistoryInterval: Sendable {
    /// Unix seconds at which it begins.
    public var startSeconds: UInt64
    /// How long it is.
    public var spanSeconds: UInt32
    /// What was done in it.
    public var counts: Lifetime
  }

  /// The lengths of the stretches for which there are counts, in seconds: five minutes, an hour, a day.
  public static let historySpans: [UInt32] = History.spans.map(\.seconds)

  /// What was done, stretch by stretch of one of `historySpans`, oldest first.
  ///
  /// Stretches in which nothing was committed are left out; the last one may be under way.
  public func history(spanSeconds: UInt32) throws(StoreError) -> [HistoryInterval] {
    let intervals = try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.history(spanSeconds: spanSeconds)
    }
    return intervals.map {
      HistoryInterval(
        startSeconds: $0.startSeconds,
        spanSeconds: $0.spanSeconds,
        counts: Lifetime($0.totals)
      )
    }
  }
}
