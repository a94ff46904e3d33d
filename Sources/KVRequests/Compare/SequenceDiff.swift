/// What two sequences have in common, in order.
enum SequenceDiff {
  /// `count` elements that are the same from `a` and `b` on.
  struct Run: Equatable {
    var a: Int
    var b: Int
    var count: Int
  }

  /// Comparing everything with everything costs this many steps at most; longer stretches are cut at what occurs once in both.
  private static let tableSizeMax = 250_000

  /// The common runs, in order and side by side merged.
  ///
  /// The longest common subsequence where that is affordable; elsewhere a common one that is cut at elements which occur once in
  /// both (the idea of Bram Cohen's patience diff).
  ///
  /// Without `matchesEnd` elements at the end are not matched before those in front: of equal ones, the first counts.
  static func runs(_ a: [UInt64], _ b: [UInt64], matchesEnd: Bool = true) -> [Run] {
    var runs: [Run] = []
    var matchesEnd = matchesEnd
    var work: [(a: Range<Int>, b: Range<Int>)] = [(0..<a.count, 0..<b.count)]
    while let (rangeA, rangeB) = work.popLast() {
      var (lowA, highA) = (rangeA.lowerBound, rangeA.upperBound)
      var (lowB, highB) = (rangeB.lowerBound, rangeB.upperBound)
      while lowA < highA, lowB < highB, a[lowA] == b[lowB] {
        lowA += 1
        lowB += 1
      }
      if lowA > rangeA.lowerBound {
        runs.append(
          Run(a: rangeA.lowerBound, b: rangeB.lowerBound, count: lowA - rangeA.lowerBound)
        )
      }
      while matchesEnd, lowA < highA, lowB < highB, a[highA - 1] == b[highB - 1] {
        highA -= 1
        highB -= 1
      }
      if highA < rangeA.upperBound {
        runs.append(Run(a: highA, b: highB, count: rangeA.upperBound - highA))
      }
      matchesEnd = true
      guard lowA < highA, lowB < highB else { continue }
      if (highA - lowA) * (highB - lowB) <= tableSizeMax {
        runs += table(a, lowA..<highA, b, lowB..<highB)
      } else {
        // Several side by side first: a single one may be the only one of its kind by chance.
        var anchors: [(a: Int, b: Int)] = []
        var width = 1
        for candidate in [8, 3, 1] where anchors.isEmpty {
          width = candidate
          anchors = uniqueAnchors(a, lowA..<highA, b, lowB..<highB, width: width)
        }
        var (fromA, fromB) = (lowA, lowB)
        for anchor in anchors where anchor.a >= fromA && anchor.b >= fromB {
          work.append((fromA..<anchor.a, fromB..<anchor.b))
          runs.append(Run(a: anchor.a, b: anchor.b, count: width))
          (fromA, fromB) = (anchor.a + width, anchor.b + width)
        }
        if !anchors.isEmpty {
          work.append((fromA..<highA, fromB..<highB))
        } else {
          work += pieces(lowA..<highA, lowB..<highB)
        }
      }
    }
    return merged(runs)
  }

  /// Two long stretches without anything that occurs once in both, cut at the same proportions.
  private static func pieces(
    _ a: Range<Int>,
    _ b: Range<Int>
  ) -> [(a: Range<Int>, b: Range<Int>)] {
    let count = (max(a.count, b.count) + 399) / 400
    func cut(_ range: Range<Int>, _ index: Int) -> Int {
      range.lowerBound + range.count * index / count
    }
    return (0..<count).map { index in
      (cut(a, index)..<cut(a, index + 1), cut(b, index)..<cut(b, index + 1))
    }
  }

  private static func merged(_ runs: [Run]) -> [Run] {
    var result: [Run] = []
    for run in runs.sorted(by: { $0.a < $1.a }) {
      if let last = result.last, last.a + last.count == run.a, last.b + last.count == run.b {
        result[result.count - 1].count += run.count
      } else {
        result.append(run)
      }
    }
    return result
  }

  /// The longest common subsequence by the textbook's table.
  private static func table(
    _ a: [UInt64],
    _ rangeA: Range<Int>,
    _ b: [UInt64],
    _ rangeB: Range<Int>
  ) -> [Run] {
    let width = rangeB.count + 1
    var lengths = [UInt16](repeating: 0, count: (rangeA.count + 1) * width)
    for row in stride(from: rangeA.count - 1, through: 0, by: -1) {
      for column in stride(from: rangeB.count - 1, through: 0, by: -1) {
        let here = row * width + column
        if a[rangeA.lowerBound + row] == b[rangeB.lowerBound + column] {
          lengths[here] = lengths[here + width + 1] + 1
        } else {
          lengths[here] = max(lengths[here + width], lengths[here + 1])
        }
      }
    }
    var runs: [Run] = []
    var (row, column) = (0, 0)
    while row < rangeA.count, column < rangeB.count {
      let here = row * width + column
      if a[rangeA.lowerBound + row] == b[rangeB.lowerBound + column] {
        runs.append(Run(a: rangeA.lowerBound + row, b: rangeB.lowerBound + column, count: 1))
        row += 1
        column += 1
      } else if lengths[here + width] >= lengths[here + 1] {
        row += 1
      } else {
        column += 1
      }
    }
    return runs
  }

  /// `width` elements side by side that occur once in both, as many as come in the same order.
  private static func uniqueAnchors(
    _ a: [UInt64],
    _ rangeA: Range<Int>,
    _ b: [UInt64],
    _ rangeB: Range<Int>,
    width: Int
  ) -> [(a: Int, b: Int)] {
    func key(_ elements: [UInt64], _ index: Int) -> UInt64 {
      var key = elements[index]
      for offset in 0..<width where offset > 0 {
        key = ByteHasher.combined(key, elements[index + offset])
      }
      return key
    }
    var places: [UInt64: (countA: Int, a: Int, countB: Int, b: Int)] = [:]
    for index in rangeA.dropLast(width - 1) {
      let key = key(a, index)
      places[key] = ((places[key]?.countA ?? 0) + 1, index, 0, 0)
    }
    for index in rangeB.dropLast(width - 1) {
      let key = key(b, index)
      guard let old = places[key] else { continue }
      places[key] = (old.countA, old.a, old.countB + 1, index)
    }
    var pairs: [(a: Int, b: Int)] = []
    for place in places.values where place.countA == 1 && place.countB == 1 {
      let isSame = (0..<width).allSatisfy { a[place.a + $0] == b[place.b + $0] }
      if isSame { pairs.append((place.a, place.b)) }
    }
    pairs.sort { $0.a < $1.a }
    // The longest increasing subsequence of the places in b.
    var tails: [Int] = []
    var before = [Int](repeating: -1, count: pairs.count)
    for (index, pair) in pairs.enumerated() {
      var (low, high) = (0, tails.count)
      while low < high {
        let middle = (low + high) / 2
        if pairs[tails[middle]].b < pair.b { low = middle + 1 } else { high = middle }
      }
      if low > 0 { before[index] = tails[low - 1] }
      if low == tails.count { tails.append(index) } else { tails[low] = index }
    }
    var chain: [(a: Int, b: Int)] = []
    var at = tails.last ?? -1
    while at >= 0 {
      chain.append(pairs[at])
      at = before[at]
    }
    return chain.reversed()
  }
}
