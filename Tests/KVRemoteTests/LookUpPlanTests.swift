import KVRemote
import KVTestSupport
import Testing

/// How many rounds it takes to find out how much of a path a remote has.
@Suite struct LookUpPlanTests {
  /// Answers from which chunks are there; returns what was found, and in how many rounds.
  private func search(
    _ chunkCount: Int,
    _ questionCountMax: Int,
    isThere: (Int) -> Bool
  ) -> (foundCount: Int, roundCount: Int) {
    var plan = LookUpPlan(chunkCount: chunkCount, questionCountMax: questionCountMax)
    while !plan.questions.isEmpty {
      #expect(plan.questions.count <= questionCountMax)
      #expect(zip(plan.questions, plan.questions.dropFirst()).allSatisfy { $0 < $1 })
      plan.take(plan.questions.map(isThere))
    }
    return (plan.foundCount, plan.roundCount)
  }

  @Test(arguments: [2, 3, 4, 7, 32])
  func everyEndIsFound(questionCountMax: Int) {
    for chunkCount in 0..<200 {
      for end in 0...chunkCount {
        let found = search(chunkCount, questionCountMax) { $0 < end }
        #expect(found.foundCount == end, "\(end) of \(chunkCount), \(questionCountMax) a round")
      }
    }
  }

  /// 131,072 tokens in blocks of 16.
  @Test(arguments: [(288 << 10, 1), (2 << 20, 2)])
  func aLongPromptTakesSoManyRounds(blockByteCount: Int, roundCountMax: Int) {
    let chunkCount = 8192 / RemoteNamespace.blocksPerChunk(blockByteCount: blockByteCount)
    for end in 0...chunkCount {
      let found = search(chunkCount, 512) { $0 < end }
      #expect(found.foundCount == end)
      #expect(found.roundCount <= roundCountMax, "\(end) of \(chunkCount)")
    }
  }

  @Test func whatIsNotThereOrThereWholeTakesOneRound() {
    #expect(search(4096, 512) { _ in false } == (0, 1))
    #expect(search(4096, 512) { _ in true } == (4096, 1))
    #expect(search(0, 512) { _ in true } == (0, 0))
  }

  /// The answer is a hint then, yet it ends, within the path, and with a chunk that was said to be there.
  @Test(arguments: 1...200 as ClosedRange<UInt64>)
  func holesDoNotLeadAstray(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let chunkCount = Int.random(in: 1...3000, using: &random)
    let there = (0..<chunkCount).map { _ in Double.random(in: 0...1, using: &random) < 0.9 }
    let found = search(chunkCount, Int.random(in: 2...600, using: &random)) { there[$0] }
    #expect((0...chunkCount).contains(found.foundCount))
    #expect(found.foundCount == 0 || there[found.foundCount - 1])
    #expect(found.foundCount == chunkCount || !there[found.foundCount])
  }

  /// A remote that answers anything.
  @Test(arguments: 1...200 as ClosedRange<UInt64>)
  func liesEnd(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let chunkCount = Int.random(in: 1...100_000, using: &random)
    let found = search(chunkCount, 512) { _ in Bool.random(using: &random) }
    #expect(found.roundCount <= 2)
  }
}
