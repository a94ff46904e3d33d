/// What one tier did.
package struct TierResult: Encodable, Equatable, Sendable {
  package var name: String
  package var hitBlockCount: Int
  package var writtenByteCount: Int
  package var readByteCount: Int
  package var evictedBlockCount: Int
  package var expiredBlockCount: Int
  package var residentByteCount: Int
  package var peakByteCount: Int

  private enum CodingKeys: String, CodingKey {
    case name
    case hitBlockCount = "hit_blocks"
    case writtenByteCount = "written_bytes"
    case readByteCount = "read_bytes"
    case evictedBlockCount = "evicted_blocks"
    case expiredBlockCount = "expired_blocks"
    case residentByteCount = "resident_bytes"
    case peakByteCount = "peak_bytes"
  }
}

/// Hits of the requests with one number in their sessions.
package struct TurnResult: Encodable, Equatable, Sendable {
  package var turn: Int
  package var requestCount = 0
  package var tokenCount = 0
  package var hitTokenCount = 0

  private enum CodingKeys: String, CodingKey {
    case turn
    case requestCount = "requests"
    case tokenCount = "input_tokens"
    case hitTokenCount = "hit_tokens"
  }
}

/// What a simulated engine did with a trace.
package struct EngineResult: Equatable, Sendable {
  package var requestCount = 0
  /// Requests that device memory cannot hold at all: left out.
  package var tooLargeCount = 0
  package var inputTokenCount = 0
  package var prefillTokenCount = 0
  package var deviceHitTokenCount = 0
  /// Tokens of blocks that were restored from a tier below the device.
  package var restoredTokenCount = 0
  package var restoredByteCount = 0
  /// Of the restored tokens, those that came from the remote tier.
  package var remoteTokenCount = 0
  /// Blocks that were computed although a tier had them, because that is faster.
  package var declinedBlockCount = 0
  package var deviceEvictedBlockCount = 0
  package var stepCount = 0
  /// Device time of prefill alone.
  package var prefillNanoseconds: Int64 = 0
  package var busyNanoseconds: Int64 = 0
  package var stalledNanoseconds: Int64 = 0
  package var endNanoseconds: Int64 = 0
  /// One for each request, in the order in which they got their first token.
  package var firstTokenNanoseconds: [Int64] = []
  package var tiers: [TierResult] = []
  /// By number in the session, the last one for all above; empty if the trace has no turns.
  package var turns: [TurnResult] = []

  /// Turns from this one on count together.
  package static let turnMax = 32

  /// The time that `part` of the requests do not exceed; nearest rank.
  package func firstTokenNanoseconds(percentile part: Double) -> Int64 {
    let sorted = firstTokenNanoseconds.sorted()
    guard !sorted.isEmpty else { return 0 }
    let rank = Int((part * Double(sorted.count)).rounded(.up))
    return sorted[min(max(rank, 1), sorted.count) - 1]
  }

  mutating func count(_ request: TraceRequest, _ found: StoreTiers.Found, restoredEnd: Int) {
    let below = found.blockCount
    guard below > 0, restoredEnd == found.endBlock else { return }
    let end = request.tokenCount(ofBlocks: restoredEnd)
    restoredTokenCount += end - request.tokenCount(ofBlocks: found.endBlock - below)
    // The remote tier's are the last ones.
    remoteTokenCount +=
      end - request.tokenCount(ofBlocks: found.endBlock - found.remoteBlockCount)
  }

  mutating func countTurn(_ request: TraceRequest, hitTokenCount: Int) {
    guard let turn = request.turn, turn > 0 else { return }
    let index = min(turn, Self.turnMax) - 1
    while turns.count <= index { turns.append(TurnResult(turn: turns.count + 1)) }
    turns[index].requestCount += 1
    turns[index].tokenCount += request.inputTokenCount
    turns[index].hitTokenCount += hitTokenCount
  }
}
