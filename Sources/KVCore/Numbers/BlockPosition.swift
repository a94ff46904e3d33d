/// Where a block stands in its namespace: a run and the index in it.
public struct BlockPosition: Hashable, Sendable {
  /// The run.
  public var run: RunID
  /// Index in the run, from 0 on.
  public var position: UInt32

  /// A place in a run.
  public init(run: RunID, position: UInt32) {
    self.run = run
    self.position = position
  }

  /// The parent of first blocks: run 0, position 0xFFFFFFFF.
  public static let root = BlockPosition(run: .root, position: .max)
}
