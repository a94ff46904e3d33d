internal import KVCatalog
public import KVCore
public import KVStore

extension StoreInspector {
  /// A session and its steps.
  public struct SessionSummary: Sendable {
    /// Number of the session.
    public var id: UInt64
    /// Its namespace.
    public var namespace: NamespaceID
    /// The caller's name for it.
    public var name: String
    /// It was ended.
    public var isEnded: Bool
    /// Unix nanoseconds.
    public var createdNanoseconds: UInt64
    /// Unix nanoseconds of the last step.
    public var lastNanoseconds: UInt64
    /// Steps in all.
    public var stepCount: Int
    /// Tokens of all steps.
    public var tokenCount: UInt64
    /// Of those, matched.
    public var matchedTokenCount: UInt64
    /// Of those, computed.
    public var computedTokenCount: UInt64
    /// The steps that are kept, oldest first.
    public var steps: [SessionStep]
    /// The last block that was stored of its last step's prompt; it may have left since.
    public var head: BlockPosition?
  }

  /// One step of a session.
  public struct SessionStep: Sendable {
    /// From 1 on.
    public var number: Int
    /// Unix nanoseconds.
    public var timeNanoseconds: UInt64
    /// Tokens of the prompt.
    public var tokenCount: Int
    /// Leading ones that were stored.
    public var matchedTokenCount: Int
    /// What the engine computed.
    public var computedTokenCount: Int
    /// Tokens of the step before.
    public var previousTokenCount: Int
    /// Leading tokens that both have.
    public var commonTokenCount: Int
    /// What ended the stored prefix.
    public var cause: Explanation.Cause

    /// Matched tokens of all, from 0 to 1.
    public var hitRate: Double {
      tokenCount == 0 ? 1 : Double(matchedTokenCount) / Double(tokenCount)
    }
  }

  /// The newest sessions, oldest first, at most `limit` of them, each with its steps.
  public func sessions(limit: Int = .max) throws(StoreError) -> [SessionSummary] {
    let ids = try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.sessionIDs()
    }
    var summaries: [SessionSummary] = []
    for id in ids.suffix(max(0, limit)) {
      if let summary = try session(id) { summaries.append(summary) }
    }
    return summaries
  }

  /// Sessions that are recorded.
  public func sessionCount() throws(StoreError) -> Int {
    try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.sessionIDs().count
    }
  }

  /// One session; nil when there is none of this number.
  public func session(_ id: UInt64) throws(StoreError) -> SessionSummary? {
    try core.catalogRead { (transaction) throws(CatalogError) in
      guard let row = try transaction.session(id) else { return nil }
      var steps: [SessionStep] = []
      try transaction.forEachSessionStep(id, from: 1) { step in
        steps.append(
          SessionStep(
            number: Int(step.number),
            timeNanoseconds: step.timeNanoseconds,
            tokenCount: Int(step.tokenCount),
            matchedTokenCount: Int(step.matchedTokenCount),
            computedTokenCount: Int(step.computedTokenCount),
            previousTokenCount: Int(step.previousTokenCount),
            commonTokenCount: Int(step.commonTokenCount),
            cause: Explanation.Cause(rawValue: step.cause) ?? .forked
          )
        )
        return true
      }
      return SessionSummary(
        id: id,
        namespace: row.namespace,
        name: String(decoding: row.name, as: UTF8.self),
        isEnded: row.isEnded,
        createdNanoseconds: row.createdNanoseconds,
        lastNanoseconds: row.lastNanoseconds,
        stepCount: Int(row.stepCount),
        tokenCount: row.tokenCount,
        matchedTokenCount: row.matchedTokenCount,
        computedTokenCount: row.computedTokenCount,
        steps: steps,
        head: row.head
      )
    }
  }
}
