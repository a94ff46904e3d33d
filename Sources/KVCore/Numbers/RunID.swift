/// Number of a run: blocks of one chain without a fork, stored side by side.
///
/// 0 is the root; never reused.
public struct RunID: Hashable, Comparable, Sendable, RawRepresentable {
  /// The number.
  public let rawValue: UInt64
  /// Wraps a number.
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  /// By number.
  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
  /// The parent of first blocks.
  public static let root = RunID(rawValue: 0)
}
