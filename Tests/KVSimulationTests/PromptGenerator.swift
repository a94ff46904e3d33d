import KVSimulation
import KVTestSupport

/// Requests over a random tree of prompts: some go on, some fork, some begin anew.
struct PromptGenerator {
  private var generator: SeededGenerator
  private var prompts: [[UInt64]] = [[]]
  private var nextID: UInt64 = 1
  private var time: Int64 = 0

  init(seed: UInt64) { generator = SeededGenerator(seed: seed) }

  mutating func next() -> TraceRequest {
    var ids = prompts[Int.random(in: 0..<prompts.count, using: &generator)]
    ids.removeLast(Int.random(in: 0...ids.count, using: &generator) / 2)
    for _ in 0..<Int.random(in: 0...6, using: &generator) {
      ids.append(nextID)
      nextID += 1
    }
    if prompts.count < 40 {
      prompts.append(ids)
    } else {
      prompts[Int.random(in: 0..<prompts.count, using: &generator)] = ids
    }
    time += Int64.random(in: 0...4, using: &generator)
    var request = TraceRequest()
    request.timestampMilliseconds = time
    request.tokensPerBlock = 16
    request.inputTokenCount = ids.count * 16
    request.blockIDs = ids
    return request
  }
}
