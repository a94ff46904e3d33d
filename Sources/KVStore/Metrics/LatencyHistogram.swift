/// How often something took how long: counts for the buckets of a Prometheus histogram.
struct LatencyHistogram: Sendable {
  /// Upper bounds in nanoseconds: 1, 2.5, 5 of each power of ten from 10 µs to 10 s.
  static let bounds: [UInt64] = [
    10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
    25_000_000, 50_000_000, 100_000_000, 250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000,
    5_000_000_000, 10_000_000_000,
  ]

  /// Of each bucket alone; the last one has no bound.
  private(set) var counts = [UInt64](repeating: 0, count: bounds.count + 1)
  private(set) var sumNanoseconds: UInt64 = 0
  var count: UInt64 { counts.reduce(0, +) }

  mutating func add(_ nanoseconds: UInt64) {
    let bucket = Self.bounds.firstIndex { nanoseconds <= $0 } ?? Self.bounds.count
    counts[bucket] += 1
    sumNanoseconds &+= nanoseconds
  }
}
