internal import KVCatalog
internal import KVCore
internal import Synchronization

/// The store's own time: Unix time when a store is first opened after a start of the machine, advanced from then on by the
/// machine's boot clock, which nobody sets; never behind what was committed.
///
/// All processes of one boot compute it from one anchor in the catalog, so a clock of the wall that is wrong, or set, when one
/// of them opens changes nothing for the others, nor for itself. Across a start of the machine (or where no boot is known) a
/// step of the clock cannot be told from time that went by: time goes on from the last commit if the clock is behind that, and
/// after a jump of more than a day idle TTLs from before it do not end until the blocks are used again.
package final class StoreTime: Sendable {
  private let clock: any StoreClock
  private let bootTimeAtStart: UInt64
  /// Time at `bootTimeAtStart`.
  ///
  /// Moved forward when others have committed a later time than ours (they know of no anchor):
  /// what they wrote is not to end early, and our time goes on from theirs instead of waiting for it.
  private let start: Atomic<UInt64>
  /// Idle deadlines before this time do not count.
  let idleSuspendedBefore: UInt64
  /// The clock has jumped since the last commit: `idleSuspendedBefore` has to be written down.
  let hasJumped: Bool
  /// The first of this boot writes it down.
  let newAnchor: ClockAnchor?

  private static let jumpNanoseconds: UInt64 = 86_400_000_000_000

  init(
    _ clock: any StoreClock,
    lastCommitted: UInt64,
    idleSuspendedBefore: UInt64,
    anchor: ClockAnchor?
  ) {
    self.clock = clock
    let boot = clock.bootID()
    let bootTime = clock.bootTimeNanoseconds()
    let time: UInt64
    if let anchored = anchor?.time(boot: boot, bootNanoseconds: bootTime) {
      time = max(anchored, lastCommitted)
      hasJumped = false
      newAnchor = nil
    } else {
      let realTime = clock.realTimeNanoseconds()
      time = max(realTime, lastCommitted)
      let distance = max(realTime, lastCommitted) - min(realTime, lastCommitted)
      hasJumped = lastCommitted > 0 && distance > Self.jumpNanoseconds
      newAnchor = boot.map {
        ClockAnchor(boot: $0, bootNanoseconds: bootTime, timeNanoseconds: time)
      }
    }
    bootTimeAtStart = bootTime
    start = Atomic(time)
    self.idleSuspendedBefore = hasJumped ? time : idleSuspendedBefore
  }

  package func now() -> UInt64 {
    start.load(ordering: .relaxed).advanced(by: sinceStart())
  }

  /// Another process has committed at this time.
  func advance(to time: UInt64) {
    let passed = sinceStart()
    guard time > passed else { return }
    start.max(time - passed, ordering: .relaxed)
  }

  private func sinceStart() -> UInt64 {
    let bootTime = clock.bootTimeNanoseconds()
    return bootTime - min(bootTime, bootTimeAtStart)
  }

  /// Whether a deadline has passed.
  package func isOver(deadline: UInt64, isIdle: Bool, at now: UInt64) -> Bool {
    deadline < now && (!isIdle || deadline >= idleSuspendedBefore)
  }
}
