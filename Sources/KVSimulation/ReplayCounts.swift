/// What a cache counted.
package struct ReplayCounts: Equatable, Sendable {
  package var insertedBlockCount = 0
  package var evictedBlockCount = 0
  package var expiredBlockCount = 0
  package var peakBlockCount = 0
  /// Blocks that came to stay, if only for a while; nil where a model does not tell.
  package var writtenBlockCount: Int?
  /// Blocks that were not admitted.
  package var declinedBlockCount = 0
  package var residentBlockCount = 0
  /// Blocks that were resident and could not be used, behind a missing one; added up over all requests.
  package var unreachableBlockCount = 0
}

/// A cache of one tier that a trace is replayed through.
package protocol ReplayCache: AnyObject {
  /// Handles one request: expire, look up, touch, evict, in this order.
  ///
  /// - Returns: the leading blocks that were resident.
  func handle(_ request: TraceRequest) -> Int
  var counts: ReplayCounts { get }
}
