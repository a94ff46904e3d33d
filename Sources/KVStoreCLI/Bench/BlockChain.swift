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

  /// Looks the first blocks up; leaves no trace.
  func peek(_ blockCount: Int, in namespace: Namespace) throws -> MatchResult {
    try tokens.withPrompt(blockCount * tokensPerBlock) { prompt in
      try namespace.match(prompt, options: .peek)
    }
  }

  /// Offloads all blocks, `batchCount` of them a call; adds the time of each call to `latencies`.
  func offload(
    to namespace: Namespace,
    batchCount: Int = 16,
    latencies: inout [UInt64]
  ) throws {
    for first in stride(from: 0, to: blocks.count, by: batchCount) {
      let batch = first..<min(first + batchCount, blocks.count)
      let start = monotonicNanoseconds()
      let result = try tokens.withPrompt(batch.upperBound * tokensPerBlock) { prompt in
        try memory.withTransfer(batch) { try namespace.offload(prompt, $0) }
      }
      latencies.append(monotonicNanoseconds() - start)
      guard result.doneBlockCount == batch.count else {
        throw CommandFailure(
          "the store took \(result.doneBlockCount) of \(batch.count) blocks: \(result.firstProblem.text)"
        )
      }
    }
  }

  /// Restores some blocks into `target` in one call; all of them must be there.
  @discardableResult
  func restore(
    _ range: Range<Int>,
    from namespace: Namespace,
    into target: BlockMemory
  ) throws -> TransferResult {
    let result = try tokens.withPrompt(range.upperBound * tokensPerBlock) { prompt in
      try target.withTransfer(range) { try namespace.restore(prompt, $0) }
    }
    guard result.doneBlockCount == range.count else {
      throw CommandFailure(
        "the store gave back \(result.doneBlockCount) of \(range.count) blocks: \(result.firstProblem.text)"
      )
    }
    return result
  }

  /// Restores everything once and compares every byte.
  func checkRestore(from namespace: Namespace, into target: BlockMemory) throws {
    target.clear()
    try restore(blocks, from: namespace, into: target)
    if let block = memory.firstDifference(from: target, in: blocks) {
      throw CommandFailure(
        "WRONG BYTES: block \(block) came back with other bytes than were offloaded"
      )
    }
  }
}

extension Optional where Wrapped == BlockOutcome {
  /// In words.
  var text: String {
    switch self {
    case nil, .done: "no reason given"
    case .declined: "not admitted"
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
    let dropped = [
      (result.droppedFullBlockCount, "there was no room"),
      (result.droppedParentBlockCount, "the block before was gone"),
      (result.droppedErrorBlockCount, "of an error"),
    ].filter { $0.0 > 0 }
    guard dropped.isEmpty else {
      throw CommandFailure(
        dropped.map { "the store dropped \($0.0) blocks because \($0.1)" }.joined(separator: "; ")
      )
    }
  }
}
