internal import KVCore
internal import Synchronization

/// The store's own time: Unix time at open, advanced by a clock that never steps, and never behind what was committed.
///
/// Whoever sets the clock of the wall changes no life while the store is open. Across an open a step cannot be told from
/// time that went by, so after a jump of more than a day idle lives from before it do not end until they are used again.
final class StoreTime: Sendable {
  private let clock: any StoreClock
  private let start: UInt64
  private let bootTimeAtStart: UInt64
  /// The latest time that any process committed.
  private let floor: Atomic<UInt64>
  /// Idle deadlines before this time do not count.
  let idleSuspendedBefore: UInt64
  /// The clock has jumped since the last commit: `idleSuspendedBefore` has to be written down.
  let hasJumped: Bool

  private static let jumpNanoseconds: UInt64 = 86_400_000_000_000

  init(_ clock: any StoreClock, lastCommitted: UInt64, idleSuspendedBefore: UInt64) {
    self.clock = clock
    let realTime = clock.realTimeNanoseconds()
    start = max(realTime, lastCommitted)
    bootTimeAtStart = clock.bootTimeNanoseconds()
    floor = Atomic(start)
    let distance = max(realTime, lastCommitted) - min(realTime, lastCommitted)
    hasJumped = lastCommitted > 0 && distance > Self.jumpNanoseconds
    self.idleSuspendedBefore = hasJumped ? start : idleSuspendedBefore
  }

  func now() -> UInt64 {
    let bootTime = clock.bootTimeNanoseconds()
    let now = start.advanced(by: bootTime - min(bootTime, bootTimeAtStart))
    return max(now, floor.load(ordering: .relaxed))
  }

  /// Another process has committed at this time.
  func advance(to time: UInt64) { floor.max(time, ordering: .relaxed) }

  /// Whether a life is over.
  func isOver(deadline: UInt64, isIdle: Bool, at now: UInt64) -> Bool {
    deadline < now && (!isIdle || deadline >= idleSuspendedBefore)
  }
}
