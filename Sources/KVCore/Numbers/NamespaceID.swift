/// Number of a namespace in its store; from 1 on.
public struct NamespaceID: Hashable, Comparable, Sendable, RawRepresentable {
  /// The number.
  public let rawValue: UInt32
  /// Wraps a number.
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// By number.
  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}
