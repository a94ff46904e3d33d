internal import KVCore

/// What a replay through one cache found, mostly under the names of the reference results.
package struct ReplaySummary: Encodable, Equatable, Sendable {
  package var policy: String
  package var order: String
  /// Nil: unlimited.
  package var capacityBlocks: Int?
  package var ttlSeconds: Double?
  package var isFullBlocksOnly: Bool
  package var requestCount: Int
  package var blockCount: Int
  package var hitBlockCount: Int
  package var tokenCount: Int
  package var hitTokenCount: Int
  package var meanRequestHitRate: Double
  package var secondHalfBlockHitRate: Double
  package var secondHalfTokenHitRate: Double
  package var counts: ReplayCounts
  package var firstHits: [Int]
  /// SHA-256 over each request's hit blocks as text, a line each.
  package var perRequestSHA256: String
  package var badLineCount = 0

  package var blockHitRate: Double { ratio(hitBlockCount, blockCount) }
  package var tokenHitRate: Double { ratio(hitTokenCount, tokenCount) }

  private enum CodingKeys: String, CodingKey {
    case policy, order, requests
    case capacityBlocks = "capacity_blocks"
    case ttlSeconds = "ttl_seconds"
    case isFullBlocksOnly = "full_blocks_only"
    case blockCount = "total_blocks"
    case hitBlockCount = "hit_blocks"
    case tokenCount = "total_tokens"
    case hitTokenCount = "hit_tokens"
    case blockHitRate = "block_hit_rate"
    case tokenHitRate = "token_hit_rate"
    case meanRequestHitRate = "mean_request_hit_rate"
    case secondHalfBlockHitRate = "second_half_block_hit_rate"
    case secondHalfTokenHitRate = "second_half_token_hit_rate"
    case insertedBlocks = "inserted_blocks"
    case writtenBlocks = "written_blocks"
    case declinedBlocks = "declined_blocks"
    case evictedBlocks = "evicted_blocks"
    case expiredBlocks = "expired_blocks"
    case finalBlocks = "final_blocks"
    case peakBlocks = "peak_blocks"
    case unreachableBlocks = "unreachable_resident_blocks"
    case firstHits = "first_64_hits"
    case perRequestSHA256 = "per_request_sha256"
    case badLineCount = "bad_lines"
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(policy, forKey: .policy)
    try container.encode(order, forKey: .order)
    try container.encode(capacityBlocks, forKey: .capacityBlocks)
    try container.encode(ttlSeconds, forKey: .ttlSeconds)
    try container.encode(isFullBlocksOnly, forKey: .isFullBlocksOnly)
    try container.encode(requestCount, forKey: .requests)
    try container.encode(blockCount, forKey: .blockCount)
    try container.encode(hitBlockCount, forKey: .hitBlockCount)
    try container.encode(tokenCount, forKey: .tokenCount)
    try container.encode(hitTokenCount, forKey: .hitTokenCount)
    try container.encode(rounded(blockHitRate), forKey: .blockHitRate)
    try container.encode(rounded(tokenHitRate), forKey: .tokenHitRate)
    try container.encode(rounded(meanRequestHitRate), forKey: .meanRequestHitRate)
    try container.encode(rounded(secondHalfBlockHitRate), forKey: .secondHalfBlockHitRate)
    try container.encode(rounded(secondHalfTokenHitRate), forKey: .secondHalfTokenHitRate)
    try container.encode(counts.insertedBlockCount, forKey: .insertedBlocks)
    try container.encode(counts.writtenBlockCount, forKey: .writtenBlocks)
    try container.encode(counts.declinedBlockCount, forKey: .declinedBlocks)
    try container.encode(counts.evictedBlockCount, forKey: .evictedBlocks)
    try container.encode(counts.expiredBlockCount, forKey: .expiredBlocks)
    try container.encode(counts.residentBlockCount, forKey: .finalBlocks)
    try container.encode(counts.peakBlockCount, forKey: .peakBlocks)
    try container.encode(counts.unreachableBlockCount, forKey: .unreachableBlocks)
    try container.encode(firstHits, forKey: .firstHits)
    try container.encode(perRequestSHA256, forKey: .perRequestSHA256)
    try container.encode(badLineCount, forKey: .badLineCount)
  }
}

/// Adds up requests and their hits; 16 bytes a request.
package struct ReplayTally {
  private struct Row {
    var hitBlockCount: UInt32
    var blockCount: UInt32
    var hitTokenCount: UInt32
    var tokenCount: UInt32
  }

  private var rows: [Row] = []
  private var rateSum = 0.0

  package init() {}

  package mutating func add(_ request: TraceRequest, hitBlockCount: Int) {
    let hitTokenCount = request.tokenCount(ofBlocks: hitBlockCount)
    rows.append(
      Row(
        hitBlockCount: UInt32(clamping: hitBlockCount),
        blockCount: UInt32(clamping: request.blockIDs.count),
        hitTokenCount: UInt32(clamping: hitTokenCount),
        tokenCount: UInt32(clamping: request.inputTokenCount)
      )
    )
    rateSum += ratio(hitTokenCount, request.inputTokenCount)
  }

  package func summary(
    policy: String,
    order: String,
    capacityBlocks: Int?,
    ttlSeconds: Double?,
    isFullBlocksOnly: Bool,
    counts: ReplayCounts
  ) -> ReplaySummary {
    let secondHalf = rows[(rows.count / 2)...]
    var hitText: [UInt8] = []
    for row in rows { hitText += "\(row.hitBlockCount)\n".utf8 }
    return ReplaySummary(
      policy: policy,
      order: order,
      capacityBlocks: capacityBlocks,
      ttlSeconds: ttlSeconds,
      isFullBlocksOnly: isFullBlocksOnly,
      requestCount: rows.count,
      blockCount: sum(rows[...], \.blockCount),
      hitBlockCount: sum(rows[...], \.hitBlockCount),
      tokenCount: sum(rows[...], \.tokenCount),
      hitTokenCount: sum(rows[...], \.hitTokenCount),
      meanRequestHitRate: rows.isEmpty ? 0 : rateSum / Double(rows.count),
      secondHalfBlockHitRate: ratio(
        sum(secondHalf, \.hitBlockCount),
        sum(secondHalf, \.blockCount)
      ),
      secondHalfTokenHitRate: ratio(
        sum(secondHalf, \.hitTokenCount),
        sum(secondHalf, \.tokenCount)
      ),
      counts: counts,
      firstHits: rows.prefix(64).map { Int($0.hitBlockCount) },
      perRequestSHA256: SHA256.hash(hitText)
        .map { hexadecimalText(UInt64($0), digitCount: 2) }.joined()
    )
  }

  private func sum(_ rows: ArraySlice<Row>, _ field: KeyPath<Row, UInt32>) -> Int {
    rows.reduce(0) { $0 + Int($1[keyPath: field]) }
  }
}

/// 0 of nothing is 0.
func ratio(_ part: Int, _ whole: Int) -> Double {
  whole == 0 ? 0 : Double(part) / Double(whole)
}

/// To six digits behind the point.
package func rounded(_ value: Double) -> Double { (value * 1e6).rounded() / 1e6 }
