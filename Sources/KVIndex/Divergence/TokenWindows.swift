/// Where each run of `width` neighbouring tokens of a text stands: finds pieces of another text in it, at any offset.
///
/// An open-addressing table in flat arrays: built in one pass, no allocation for each token.
package struct TokenWindows: Sendable {
  package let tokens: [UInt32]
  package let width: Int
  /// First window of each bucket, and the next one with the same hash for each window; -1 = none.
  private var heads: [Int32]
  private var links: [Int32]
  private let mask: Int

  /// Repeated windows that are looked at for one look-up: padding must not make it quadratic.
  private static let candidateCountMax = 16

  package init(_ tokens: [UInt32], width: Int) {
    self.tokens = tokens
    self.width = width
    let windowCount = max(0, tokens.count - width + 1)
    var bucketCount = 16
    while bucketCount < windowCount * 2 { bucketCount *= 2 }
    mask = bucketCount - 1
    heads = [Int32](repeating: -1, count: bucketCount)
    links = [Int32](repeating: -1, count: windowCount)
    // From the back, so that each bucket lists its windows from the front on.
    for offset in stride(from: windowCount - 1, through: 0, by: -1) {
      let bucket = Self.hash(tokens, at: offset, width: width) & mask
      links[offset] = heads[bucket]
      heads[bucket] = Int32(truncatingIfNeeded: offset)
    }
  }

  /// The longest piece of `other` from `start` on that stands in the text; nil when there is none of `width` tokens.
  ///
  /// Of several equally long ones, the first at or behind `preferred`.
  package func longest(
    of other: [UInt32],
    from start: Int,
    preferred: Int
  ) -> (offset: Int, count: Int)? {
    guard start + width <= other.count, !links.isEmpty else { return nil }
    var best: (offset: Int, count: Int)?
    var next = heads[Self.hash(other, at: start, width: width) & mask]
    var candidateCount = 0
    while next >= 0, candidateCount < Self.candidateCountMax {
      let offset = Int(next)
      next = links[offset]
      candidateCount += 1
      let count = commonCount(other, from: start, at: offset)
      guard count >= width else { continue }
      let isBetter =
        best.map { best in
          count > best.count
            || (count == best.count && best.offset < preferred && offset >= preferred)
        } ?? true
      if isBetter { best = (offset, count) }
    }
    return best
  }

  private func commonCount(_ other: [UInt32], from start: Int, at offset: Int) -> Int {
    let limit = min(other.count - start, tokens.count - offset)
    var count = 0
    while count < limit, other[start + count] == tokens[offset + count] { count += 1 }
    return count
  }

  private static func hash(_ tokens: [UInt32], at offset: Int, width: Int) -> Int {
    var hash: UInt64 = 0x9E37_79B9_7F4A_7C15
    for index in offset..<offset + width {
      hash = (hash ^ UInt64(tokens[index])) &* 0xFF51_AFD7_ED55_8CCD
      hash ^= hash >> 32
    }
    return Int(truncatingIfNeeded: hash >> 1)
  }
}
