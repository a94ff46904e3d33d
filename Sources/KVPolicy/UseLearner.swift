package import KVCore

/// What a store learns of the uses of its blocks, all of it in RAM.
///
/// Thread-safe; a leaf lock. About 40 bytes for each block that is remembered.
package final class UseLearner: Sendable {
  private struct State {
    var history = UseHistory(blockCountMax: UseLearner.blockCountMin)
    var choice = EvictionChoice()
    /// Blocks that there is room for; nil until something had to leave.
    var capacity: Int?
    var now: Int64 = 0

    mutating func advance(to timeNanoseconds: UInt64) {
      now = max(now, Int64(clamping: timeNanoseconds / 1_000_000))
    }
  }

  private static let blockCountMin = 1 << 18
  private static let blockCountMax = 1 << 21
  /// Blocks that are remembered for each that is stored, at most.
  private static let rememberedPerBlock = 8

  private let state = Monitor(State())

  package init() {}

  // MARK: Uses

  /// Notes that a prompt was asked for.
  ///
  /// - Parameters:
  ///   - keys: Of all its blocks.
  ///   - residentCount: How many of them were found.
  ///   - timeNanoseconds: Of now.
  /// - Returns: the stamp of what it found.
  package func noteRequest(_ keys: [BlockKey], residentCount: Int, timeNanoseconds: UInt64)
    -> UInt64
  {
    let ids = keys.map(\.low)
    return state.withLock { state in
      state.advance(to: timeNanoseconds)
      let parts = state.history.observe(ids, residentCount: residentCount, time: state.now)
      state.choice.note(ids, residentCount: residentCount, capacity: state.capacity)
      return parts.repeatedStamp
    }
  }

  /// Notes that blocks up to the end of `keys` were stored; answers where the parts of their request end, the tail first.
  package func noteStored(
    _ keys: [BlockKey],
    timeNanoseconds: UInt64
  ) -> [(blockCount: Int, stamp: UInt64)] {
    let ids = keys.map(\.low)
    return state.withLock { state in
      state.advance(to: timeNanoseconds)
      state.history.extend(ids, time: state.now)
      return state.history.parts(of: ids)
    }
  }

  // MARK: Victims

  package var usesDensity: Bool { state.withLock { $0.choice.usesDensity } }

  package func noteCapacity(_ blockCount: Int) {
    state.withLock { state in
      state.capacity = blockCount
      state.history.blockCountMax = min(
        Self.blockCountMax,
        max(Self.blockCountMin, Self.rememberedPerBlock * blockCount)
      )
    }
  }

  /// Lends the history, and the time in its measure.
  package func withHistory<Result>(
    timeNanoseconds: UInt64,
    _ body: (inout UseHistory, Int64) -> Result
  ) -> Result {
    state.withLock { state in
      state.advance(to: timeNanoseconds)
      return body(&state.history, state.now)
    }
  }
}
