/// Neighbouring regions of each block: those of layers that share one kind of attention.
public struct KVCacheGroup: Sendable, Hashable {
  /// Its regions, in payload order.
  public var regions: Range<Int>
  /// The layers look back so many tokens at most; 0 = over the whole prefix.
  public var windowTokenCount: Int

  /// A group of regions.
  public init(regions: Range<Int>, windowTokenCount: Int = 0) {
    self.regions = regions
    self.windowTokenCount = windowTokenCount
  }

  /// The first block whose KV the layers look at, when a prefix of so many blocks goes on.
  package func firstBlock(ofPrefix blockCount: Int, tokensPerBlock: Int) -> Int {
    guard windowTokenCount > 0 else { return 0 }
    return max(0, blockCount * tokensPerBlock - windowTokenCount) / tokensPerBlock
  }
}

extension [KVCacheGroup] {
  /// In the order of their regions, none of which is in two.
  package func areValid(regionCount: Int) -> Bool {
    var end = 0
    for group in self {
      guard group.regions.lowerBound >= end, !group.regions.isEmpty,
        group.regions.upperBound <= regionCount,
        (0...Int(UInt32.max)).contains(group.windowTokenCount)
      else { return false }
      end = group.regions.upperBound
    }
    return true
  }
}
