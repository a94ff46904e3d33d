internal import KVCatalog
public import KVCore
internal import KVStore

extension StoreInspector {
  /// How old and how deep the stored blocks are, and how small.
  public struct Survey: Sendable, Equatable {
    /// Blocks that were looked at.
    public var blockCount = 0
    /// false: there are more.
    public var isWhole = true
    /// Blocks by age: up to each of `ageSecondsBounds`, and older.
    public var blockCountsByAge = [Int](repeating: 0, count: ageSecondsBounds.count + 1)
    /// Blocks by the tokens of their prefix, up to each of `tokenCountBounds`, and more.
    public var blockCountsByTokens = [Int](repeating: 0, count: tokenCountBounds.count + 1)
    /// By tier, slowest last.
    public var tiers: [TierUse] = []

    /// A minute, an hour, a day, a week, 30 days.
    public static let ageSecondsBounds = [60, 3_600, 86_400, 604_800, 2_592_000]
    /// 1 Ki, 4 Ki, 16 Ki, 64 Ki, 256 Ki.
    public static let tokenCountBounds = [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18]

    /// Nothing.
    public init() {}
  }

  /// The blocks whose first place is in a tier.
  public struct TierUse: Sendable, Equatable {
    /// The tier.
    public var tier: Tier
    /// Blocks.
    public var blockCount = 0
    /// Their payload.
    public var payloadByteCount = 0
    /// What that takes as stored.
    public var storedByteCount = 0
  }

  /// Looks at the rows of up to `limit` blocks, in short transactions.
  public func survey(limit: Int) throws(StoreError) -> Survey {
    var survey = Survey()
    let now = core.time.now() / 1_000_000_000
    for namespace in try namespaces() {
      let tokensPerBlock = namespace.identity?.tokensPerBlock ?? 0
      var waiting = try childRuns(of: namespace.id, after: .root, limit: .max).map {
        (run: $0, depth: 0)
      }
      while let next = waiting.popLast() {
        var depth = next.depth
        var position: UInt32 = 0
        while true {
          guard survey.blockCount < limit else {
            survey.isWhole = false
            return survey
          }
          let piece = try rows(of: namespace.id, next.run, from: position)
          for row in piece.rows {
            depth += 1
            survey.add(row, tokenCount: depth * tokensPerBlock, now)
          }
          for (fork, runs) in piece.forks {
            waiting += runs.map { ($0, next.depth + Int(fork) + 1) }
          }
          guard piece.rows.count == Self.rowCountMax else { break }
          position += UInt32(piece.rows.count)
        }
      }
    }
    survey.tiers.sort { $0.tier.rawValue < $1.tier.rawValue }
    return survey
  }

  private static let rowCountMax = 1000

  /// What a survey takes from a row.
  fileprivate struct SurveyRow {
    var createdSeconds: UInt32
    var tier: Tier
    var payloadByteCount: Int
    var storedByteCount: Int
  }

  private func rows(
    of namespace: NamespaceID,
    _ run: RunID,
    from position: UInt32
  ) throws(StoreError) -> (rows: [SurveyRow], forks: [(position: UInt32, runs: [RunID])]) {
    try core.catalogRead { (transaction) throws(CatalogError) in
      var rows: [SurveyRow] = []
      var forks: [(position: UInt32, runs: [RunID])] = []
      try transaction.forEachRow(namespace, run, from: position) { _, row in
        guard let row else { return false }
        rows.append(
          SurveyRow(
            createdSeconds: row.createdSeconds,
            tier: row.place.tier,
            payloadByteCount: Int(row.payloadByteCount),
            storedByteCount: Int(row.place.storedByteCount)
          )
        )
        return rows.count < Self.rowCountMax
      }
      for index in rows.indices {
        let at = BlockPosition(run: run, position: position + UInt32(index))
        let runs = try transaction.children(namespace, at)
        if !runs.isEmpty { forks.append((at.position, runs)) }
      }
      return (rows, forks)
    }
  }
}

extension StoreInspector.Survey {
  /// A block whose prefix has so many tokens, its own included.
  fileprivate mutating func add(_ row: StoreInspector.SurveyRow, tokenCount: Int, _ now: UInt64) {
    blockCount += 1
    let age = Int(clamping: now - min(now, UInt64(row.createdSeconds)))
    let ageIndex = Self.ageSecondsBounds.firstIndex { age <= $0 } ?? Self.ageSecondsBounds.count
    blockCountsByAge[ageIndex] += 1
    let depthIndex =
      Self.tokenCountBounds.firstIndex { tokenCount <= $0 } ?? Self.tokenCountBounds.count
    blockCountsByTokens[depthIndex] += 1
    let index: Int
    if let found = tiers.firstIndex(where: { $0.tier == row.tier }) {
      index = found
    } else {
      tiers.append(StoreInspector.TierUse(tier: row.tier))
      index = tiers.count - 1
    }
    tiers[index].blockCount += 1
    tiers[index].payloadByteCount += row.payloadByteCount
    tiers[index].storedByteCount += row.storedByteCount
  }
}
