import KVCore
import KVStore

/// A prompt of whole blocks, and the memory of their KV.
struct BlockChain {
  let memory: BlockMemory
  let tokens: TokenMemory
  let tokensPerBlock: Int

  var blocks: Range<Int> { 0..<memory.blockCount }

  init(_ memory: BlockMemory, tokensPerBlock: Int, seed: UInt64) {
    self.memory = memory
    self.tokensPerBlock = tokensPerBlock
    tokens = TokenMemory(count: memory.blockCount * tokensPerBlock, seed: seed)
  }

  /// The prompt up to the end of a block.
  func prompt(upTo block: Int) -> Prompt { tokens.prompt(block * tokensPerBlock) }

  /// Offloads all blocks, `batchCount` of them a call; adds the time of each call to `latencies`.
  func offload(
    to namespace: Namespace, batchCount: Int = 16, latencies: inout [UInt64]
  ) throws {
    for first in stride(from: 0, to: blocks.count, by: batchCount) {
      let batch = first..<min(first + batchCount, blocks.count)
      let start = monotonicNanoseconds()
      let result = try namespace.offload(prompt(upTo: batch.upperBound), memory.transfer(batch))
      latencies.append(monotonicNanoseconds() - start)
      guard result.doneBlockCount == batch.count else {
        throw CommandFailure(
          "the store took \(result.doneBlockCount) of \(batch.count) blocks: \(result.firstProblem.text)")
      }
    }
  }

  /// Restores some blocks into `target` in one call; all of them must be there.
  @discardableResult
  func restore(
    _ range: Range<Int>, from namespace: Namespace, into target: BlockMemory
  ) throws -> TransferResult {
    let result = try namespace.restore(prompt(upTo: range.upperBound), target.transfer(range))
    guard result.doneBlockCount == range.count else {
      throw CommandFailure(
        "the store gave back \(result.doneBlockCount) of \(range.count) blocks: \(result.firstProblem.text)")
    }
    return result
  }

  /// Restores everything once and compares every byte.
  func checkRestore(from namespace: Namespace, into target: BlockMemory) throws {
    target.clear()
    try restore(blocks, from: namespace, into: target)
    if let block = memory.firstDifference(from: target, in: blocks) {
      throw CommandFailure("WRONG BYTES: block \(block) came back with other bytes than were offloaded")
    }
  }
}

extension Optional where Wrapped == BlockOutcome {
  /// In words.
  var text: String {
    switch self {
    case nil, .done: "no reason given"
    case .miss: "not stored, or a check failed"
    case .bufferTooSmall: "a buffer is too small"
    case .full: "no room"
    case .parentMissing: "the block before is not stored"
    case .busy: "the deadline passed"
    }
  }
}

extension Store {
  /// Waits until everything is durable; blocks that were dropped are an error here.
  func flushAll() throws {
    let result = try flush()
    let dropped =
      result.droppedFullBlockCount + result.droppedParentBlockCount + result.droppedErrorBlockCount
    guard dropped == 0 else { throw CommandFailure("the store dropped \(dropped) blocks") }
  }
}
