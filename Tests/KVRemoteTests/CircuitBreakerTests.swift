import KVRemote
import Testing

/// When a remote is asked, and when it is left alone.
@Suite struct CircuitBreakerTests {
  private static let second: UInt64 = 1_000_000_000

  @Test func threeFailuresInARowOpenIt() {
    var breaker = CircuitBreaker()
    breaker.noteFailure(now: 0)
    breaker.noteFailure(now: 0)
    breaker.noteSuccess()
    breaker.noteFailure(now: 0)
    breaker.noteFailure(now: 0)
    #expect(breaker.isClosed)
    breaker.noteFailure(now: 0)
    #expect(breaker.state(now: 0) == .open)
    #expect(breaker.openCount == 1)
  }

  @Test func probesComeAfterASecondAndLessOftenUpToHalfAMinute() {
    var breaker = CircuitBreaker()
    var now: UInt64 = 0
    for _ in 0..<3 { breaker.noteFailure(now: now) }
    for pause in [1, 2, 4, 8, 16, 30, 30] as [UInt64] {
      let isEarly = breaker.beginProbe(now: now + pause * Self.second - 1)
      #expect(!isEarly)
      now += pause * Self.second
      #expect(breaker.state(now: now) == .probing)
      let isFirst = breaker.beginProbe(now: now)
      #expect(isFirst)
      // One at a time.
      let isSecond = breaker.beginProbe(now: now)
      #expect(!isSecond)
      breaker.noteFailure(now: now)
      #expect(breaker.state(now: now) == .open)
    }
    #expect(breaker.openCount == 1)
    let isLast = breaker.beginProbe(now: now + 30 * Self.second)
    #expect(isLast)
    breaker.noteSuccess()
    #expect(breaker.state(now: now) == .closed)
    #expect(breaker.openCount == 1)
  }

  /// Calls that were under way when it opened end later.
  @Test func lateFailuresDoNotPutTheProbeOff() {
    var breaker = CircuitBreaker()
    for _ in 0..<9 { breaker.noteFailure(now: 0) }
    let mayProbe = breaker.beginProbe(now: Self.second)
    #expect(mayProbe)
  }
}
