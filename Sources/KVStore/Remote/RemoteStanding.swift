internal import KVCore
internal import KVRemote

/// How it stands with the other side, for people; what is done about it is the breaker's.
struct RemoteStanding {
  private(set) var state = RemoteStatistics.State.idle
  /// Of `monotonicNanoseconds()`; 0 = it was not asked.
  private(set) var since: UInt64 = 0
  /// When it answered last; 0 = never.
  private(set) var answeredAt: UInt64 = 0
  private(set) var lastFailure: RemoteStatistics.Cause?

  fileprivate mutating func note(
    _ state: RemoteStatistics.State?,
    _ error: RemoteError?,
    now: UInt64
  ) {
    if let error { lastFailure = RemoteStatistics.Cause(error) }
    if error.map({ !$0.isOfTransport && $0 != .closed }) ?? true { answeredAt = now }
    guard let state, state != self.state else { return }
    self.state = state
    since = now
  }
}

extension RemoteState {
  /// A call went well.
  mutating func noteAnswer(now: UInt64) {
    breaker.noteSuccess()
    standing.note(.up, nil, now: now)
  }

  /// A call failed.
  mutating func note(_ error: RemoteError, now: UInt64) {
    if error.isOfTransport || error == .closed {
      breaker.noteFailure(now: now)
      // Two failures are none yet.
      standing.note(breaker.isClosed ? nil : .leftAlone, error, now: now)
    } else {
      // It answers, whatever it says.
      breaker.noteSuccess()
      standing.note(error == .unauthorized ? .unauthorized : .up, error, now: now)
    }
  }
}
