/// One request of a trace.
package struct TraceRequest: Sendable, Equatable {
  /// Arrival, milliseconds from the start of the trace.
  package var timestampMilliseconds: Int64 = 0
  package var inputTokenCount = 0
  package var outputTokenCount = 0
  /// Tokens of a block: the line's own, else the reader's.
  package var tokensPerBlock = 0
  /// One id for each block of the input, head first: equal id means equal prefix.
  package var blockIDs: [UInt64] = []
  /// The conversation or agent run, where the trace says so.
  package var session: Int64?
  /// Number of the request in its session, from 1 on, where the trace says so.
  package var turn: Int?

  package init() {}

  /// Blocks that are full; a last, partial one has an id in some traces.
  package var fullBlockCount: Int {
    tokensPerBlock > 0 ? min(blockIDs.count, inputTokenCount / tokensPerBlock) : 0
  }

  /// Tokens of the first `blockCount` blocks.
  package func tokenCount(ofBlocks blockCount: Int) -> Int {
    min(blockCount * tokensPerBlock, inputTokenCount)
  }
}
