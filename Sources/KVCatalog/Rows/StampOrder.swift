/// The order of victims: lowest priority first, then the oldest stamp.
package struct StampOrder: Sendable, Hashable, Comparable {
  package var priority: UInt8
  package var stamp: UInt64

  package init(priority: UInt8, stamp: UInt64) {
    self.priority = priority
    self.stamp = stamp
  }

  /// Before every stamp: the counter begins at 1.
  static let first = StampOrder(priority: 0, stamp: 0)

  package static func < (a: StampOrder, b: StampOrder) -> Bool {
    (a.priority, a.stamp) < (b.priority, b.stamp)
  }
}
