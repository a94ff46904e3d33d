internal import KVCore

/// Which regions of which blocks a restore brings: those asked for, without those of windowed groups before their last window.
struct RegionSelection: Sendable {
  /// From a block on, these.
  private struct Step: Sendable {
    let firstBlock: Int
    /// Ascending, apart from each other.
    let ranges: [Range<Int>]
  }

  /// Descending, the last from block 0 on.
  private let steps: [Step]

  /// The same regions of every block.
  init(_ regions: Range<Int>) {
    steps = [Step(firstBlock: 0, ranges: [regions])]
  }

  /// Those of `regions` that a prefix of `blockCount` blocks needs.
  init(_ regions: Range<Int>, of identity: NamespaceIdentity, prefixBlockCount blockCount: Int) {
    let windowed = identity.groups.filter { $0.windowTokenCount > 0 }
    guard !windowed.isEmpty else {
      steps = [Step(firstBlock: 0, ranges: [regions])]
      return
    }
    func firstBlock(_ group: KVCacheGroup) -> Int {
      group.firstBlock(ofPrefix: blockCount, tokensPerBlock: identity.tokensPerBlock)
    }
    let borders = Set(windowed.map(firstBlock)).union([0]).sorted(by: >)
    steps = borders.map { border in
      var ranges: [Range<Int>] = []
      var start = regions.lowerBound
      for group in windowed where firstBlock(group) > border {
        let end = min(max(group.regions.lowerBound, start), regions.upperBound)
        if end > start { ranges.append(start..<end) }
        start = max(start, min(group.regions.upperBound, regions.upperBound))
      }
      if start < regions.upperBound { ranges.append(start..<regions.upperBound) }
      return Step(firstBlock: border, ranges: ranges)
    }
  }

  /// Of one block: ascending, apart from each other, perhaps none.
  func ranges(ofBlock block: Int) -> [Range<Int>] {
    for step in steps where step.firstBlock <= block { return step.ranges }
    return []
  }

  /// Bytes of a block's regions, where each has its largest size.
  func byteCount(ofBlock block: Int, _ regionByteCounts: [Int]) -> Int {
    ranges(ofBlock: block).reduce(0) { $0 + regionByteCounts[$1].reduce(0, +) }
  }
}
