/// What changes cost, counted in tokens that a tokenizer made.
public enum TokenCounts {
  /// Tokens of `next` that `previous` has as well, in order, behind the first that differs: what counts as new because of a change.
  ///
  /// With `isWhole` those before it, too: another model, or a cache that has forgotten all. With `isReordered` also those that both
  /// have in another order.
  public static func lost(
    previous: [UInt32],
    next: [UInt32],
    isWhole: Bool = false,
    isReordered: Bool = false
  ) -> Int {
    let front = zip(previous, next).prefix { $0 == $1 }.count
    let runs = SequenceDiff.runs(
      previous.dropFirst(front).map { UInt64($0) },
      next.dropFirst(front).map { UInt64($0) }
    )
    // Single tokens agree by chance.
    let inOrder = runs.filter { $0.count >= 4 }
    var behind = inOrder.reduce(0) { $0 + $1.count }
    if isReordered {
      behind += moved(Array(previous.dropFirst(front)), Array(next.dropFirst(front)), inOrder)
    }
    return isWhole ? front + behind : behind
  }

  /// Tokens of `next` between the runs that stand between them in `previous`, too, wherever.
  private static func moved(
    _ previous: [UInt32],
    _ next: [UInt32],
    _ runs: [SequenceDiff.Run]
  ) -> Int {
    let width = 4
    var isUsedA = [Bool](repeating: false, count: previous.count)
    var isUsedB = [Bool](repeating: false, count: next.count)
    for run in runs {
      for offset in 0..<run.count {
        isUsedA[run.a + offset] = true
        isUsedB[run.b + offset] = true
      }
    }
    func key(_ tokens: [UInt32], _ at: Int) -> UInt64 {
      (at..<at + width).reduce(17) { ByteHasher.combined($0, UInt64(tokens[$1])) }
    }
    var places: [UInt64: Int] = [:]
    for at in 0..<max(0, previous.count - width + 1) where !isUsedA[at] {
      places[key(previous, at)] = at
    }
    var count = 0
    var at = 0
    while at + width <= next.count {
      guard !isUsedB[at], let place = places[key(next, at)] else {
        at += 1
        continue
      }
      var length = 0
      while at + length < next.count, place + length < previous.count, !isUsedB[at + length],
        !isUsedA[place + length], next[at + length] == previous[place + length]
      {
        length += 1
      }
      if length >= width {
        for offset in 0..<length { isUsedA[place + offset] = true }
        count += length
      }
      at += max(1, length)
    }
    return count
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
