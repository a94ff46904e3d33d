/// What a store's remote tier did since the open in this process.
public struct RemoteStatistics: Sendable, Equatable {
  /// Why blocks did not come from there, or did not go there.
  public enum Cause: String, Sendable, CaseIterable {
    /// There is no such object.
    case absent
    /// No answer in time.
    case timedOut = "timed_out"
    /// No connection.
    case unreachable
    /// It cannot serve for now: loading, failing over, read-only.
    case unavailable
    /// It does not let us in, or not do that.
    case unauthorized
    /// It refused for a reason of its own.
    case refused
    /// What came is not its protocol.
    case protocolViolation = "protocol"
    /// The connection is not as safe as the settings ask.
    case insecure
    /// It takes no more.
    case full
    /// The object is no chunk, or of another version.
    case format
    /// The object was cut, or is longer than it says.
    case length
    /// A checksum or a number in the object is not right.
    case damaged
    /// The object's authentication code is not right.
    case code
    /// The object is of another namespace, or another place in it.
    case identity
    /// The object is of other tokens.
    case tokens
    /// The object's life is over.
    case expired
    /// There was no room for it here, or the write budget is used up.
    case noRoom = "no_room"
    /// It was left alone since it had failed.
    case breaker
    /// More was queued than is taken.
    case queue
    /// Its blocks had left before it was sent.
    case gone
    /// What may be written in a day was.
    case budget
  }

  /// How it stands with the other side.
  public enum State: String, Sendable, CaseIterable {
    /// Nothing was asked yet.
    case idle
    /// It answers.
    case up
    /// It is left alone after failures.
    case leftAlone = "left_alone"
    /// It refuses this process: credentials that are wrong or were revoked.
    case unauthorized
  }

  /// Look-ups that asked it.
  public var lookUps: UInt64 = 0
  /// Of those, the ones that found something.
  public var lookUpsFound: UInt64 = 0
  /// Rounds of questions that those took.
  public var lookUpRounds: UInt64 = 0
  /// Chunks that those found.
  public var chunksFound: UInt64 = 0
  /// Chunks that came and were sound.
  public var chunksFetched: UInt64 = 0
  /// Their bytes, as they came.
  public var bytesFetched: UInt64 = 0
  /// Blocks of them that were new here.
  public var blocksFetched: UInt64 = 0
  /// Chunks that were stored there.
  public var chunksSent: UInt64 = 0
  /// Their bytes.
  public var bytesSent: UInt64 = 0
  /// Chunks that were there already.
  public var chunksExisted: UInt64 = 0
  /// Blocks that were there when they left disk and archive by eviction; 0 unless such are sent.
  public var blocksDemoted: UInt64 = 0
  /// Blocks that left by eviction before they could be sent.
  public var blocksLost: UInt64 = 0
  /// Objects that were removed there since they were not sound.
  public var objectsRemoved: UInt64 = 0
  /// Reads that did not bring a chunk, by cause.
  public var misses: [Cause: UInt64] = [:]
  /// Writes that did not store a chunk, by cause.
  public var drops: [Cause: UInt64] = [:]
  /// How often it was left alone after failures.
  public var breakerOpened: UInt64 = 0
  /// It is left alone now.
  public var isBreakerOpen = false
  /// Writing waits since it is full or does not let us.
  public var isPaused = false
  /// Measured bandwidth of fetches, in bytes of payload a second; 0 before the first.
  public var bytesPerSecond: UInt64 = 0
  /// What a round of questions takes, in nanoseconds; 0 before the first.
  public var roundNanoseconds: UInt64 = 0
  /// Purges that have not reached it yet.
  public var purgesPending: UInt64 = 0
  /// How it stands with the other side.
  public var state = State.idle
  /// Since when, as are all moments here in nanoseconds of CLOCK_MONOTONIC; 0 = it was not asked.
  public var stateSince: UInt64 = 0
  /// When it answered last; 0 = never.
  public var answeredAt: UInt64 = 0
  /// Why a call failed last; nil when none did.
  public var lastFailure: Cause?
  /// Why writing waits, while it does.
  public var pauseCause: Cause?
  /// Until when it does.
  public var pausedUntil: UInt64 = 0
  /// What may be written in a day; 0 = no bound.
  public var writeBytesPerDay: UInt64 = 0
  /// Of that, what may be written at this moment.
  public var writeBytesLeft: UInt64 = 0
  /// Paths that are to be sent, the one under way included.
  public var sendsQueued: UInt64 = 0
  /// Look-ups that are to be made, those under way included.
  public var lookUpsQueued: UInt64 = 0

  /// Zero everywhere.
  public init() {}

  mutating func noteMiss(_ cause: Cause, count: Int = 1) {
    misses[cause, default: 0] += UInt64(count)
  }
  mutating func noteDrop(_ cause: Cause, count: Int = 1) {
    drops[cause, default: 0] += UInt64(count)
  }
}
