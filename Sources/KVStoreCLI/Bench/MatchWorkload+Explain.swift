import KVCore
import KVStore

extension MatchWorkload {
  private static let explainedTokenCountMax = 32_768
  private static let callCount = 50

  /// Explaining a miss, against matching the same prompt: one token in the middle of it is another one.
  func measureExplain(_ small: SmallBlocks, _ namespace: Namespace) throws {
    let tokenCount = min(Self.explainedTokenCountMax, small.trunk.count)
    let edited = TokenMemory(edited: small.trunk, at: tokenCount / 2, count: tokenCount)
    var series = Series()
    var matches = Series()
    try small.bench.forEachRun("explain, \(tokenCount) tokens") { _ in
      var calls = Series()
      var matchCalls = Series()
      for _ in 0..<Self.callCount {
        try edited.withPrompt(tokenCount) { prompt in
          var time = monotonicNanoseconds()
          _ = try namespace.match(prompt, options: .peek)
          matchCalls.values.append(Double(monotonicNanoseconds() - time))
          time = monotonicNanoseconds()
          let found = try namespace.explain(prompt)
          let taken = monotonicNanoseconds() - time
          calls.latencies.append(taken)
          calls.values.append(Double(taken))
          guard found.cause == .edited else {
            throw CommandFailure("the store explains an edit as \(found.cause)")
          }
        }
      }
      series.values.append(calls.median)
      series.latencies += calls.latencies
      matches.values.append(matchCalls.median)
    }
    small.add(
      "explain a miss at the middle of \(tokenCount) tokens",
      series,
      unit: "ns",
      limit: Limit(name: "match of the same prompt, warm", value: matches.median),
      with: ["tokens": .integer(tokenCount)]
    )
  }
}
