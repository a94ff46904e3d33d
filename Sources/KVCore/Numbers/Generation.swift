/// A number that the store never gives twice: tells a rewritten slot from what it held before.
public struct Generation: Hashable, Sendable, RawRepresentable {
  /// The number.
  public let rawValue: UInt64
  /// Wraps a number.
  public init(rawValue: UInt64) { self.rawValue = rawValue }
}
