internal import KVCatalog
internal import KVCore

/// What this process knows of how long a namespace's blocks live.
final class NamespaceExpiry: Sendable {
  private let current = Monitor(TimeToLive.unlimited)
  /// Some block may come to an end by itself: only then do look-ups pay for looking.
  let mayExpire = AtomicFlag(false)

  /// What blocks get that are written without a word about it.
  var timeToLive: TimeToLive { current.withLock { $0 } }

  func update(_ row: NamespaceRow) {
    current.withLock { $0 = row.timeToLive }
    if row.facts.mayExpire || row.timeToLive != .unlimited { mayExpire.exchange(true) }
  }
}
