/// What changes cost, counted in tokens that a tokenizer made.
public enum TokenCounts {
  /// Tokens of `next` that `previous` has as well, in order, behind the first that differs: what counts as new because of a change.
  public static func lost(previous: [UInt32], next: [UInt32]) -> Int {
    let front = zip(previous, next).prefix { $0 == $1 }.count
    let runs = SequenceDiff.runs(
      previous.dropFirst(front).map { UInt64($0) },
      next.dropFirst(front).map { UInt64($0) }
    )
    // Single tokens agree by chance.
    return runs.reduce(0) { $0 + ($1.count >= 4 ? $1.count : 0) }
  }

  /// A count shared out in the proportion of estimates; the sum is the count.
  public static func shared(_ count: Int, as estimates: [Int]) -> [Int] {
    let all = estimates.reduce(0, +)
    guard all > 0 else { return estimates.map { _ in 0 } }
    var left = count
    return estimates.enumerated().map { index, estimate in
      let part = index == estimates.count - 1 ? left : min(left, count * estimate / all)
      left -= part
      return part
    }
  }
}
