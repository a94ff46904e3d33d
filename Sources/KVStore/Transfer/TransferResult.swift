/// What a restore or an offload did.
public struct TransferResult: Sendable, Equatable {
  /// Of each block of the range.
  public var outcomes: [BlockOutcome] = []
  /// Leading blocks that are done.
  public var doneBlockCount = 0
  /// Restore: from RAM.
  ///
  /// Offload: taken now.
  public var hostBlockCount = 0
  /// Restore: from disk.
  ///
  /// Offload: stored already.
  public var diskBlockCount = 0
  /// Bytes copied to or from the caller.
  public var byteCount = 0

  /// Nothing done.
  public init() {}

  /// Nothing done yet of so many blocks.
  package init(_ outcome: BlockOutcome, blockCount: Int) {
    // Array(repeating:count:) looks its storage's type up each time, which is much of a short call.
    outcomes.reserveCapacity(blockCount)
    for _ in 0..<blockCount { outcomes.append(outcome) }
  }

  /// The first outcome that is not `done`, if any.
  public var firstProblem: BlockOutcome? { outcomes.first { $0 != .done } }

  package mutating func countLeading() {
    doneBlockCount = outcomes.firstIndex { $0 != .done } ?? outcomes.count
  }
}
