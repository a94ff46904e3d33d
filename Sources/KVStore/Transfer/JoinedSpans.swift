/// The spans of neighbouring regions of the same blocks as one transfer has them: block by block.
@safe final class JoinedSpans {
  let regions: Range<Int>
  let spans: UnsafeMutableBufferPointer<TransferSpan>

  /// `ranges` follow each other, with the same blocks.
  init(_ ranges: [NamespaceCore.Range]) {
    let blocks = ranges[0].blocks
    regions = ranges[0].regions.lowerBound..<ranges[ranges.count - 1].regions.upperBound
    unsafe spans = .allocate(capacity: blocks.count * regions.count)
    var index = 0
    for block in blocks {
      for range in ranges {
        let first = range.spanIndex(ofBlock: block)
        for part in first..<first + range.regions.count {
          unsafe spans.initializeElement(at: index, to: range.spans[part])
          index += 1
        }
      }
    }
  }

  deinit { unsafe spans.deallocate() }

  /// Tells one of them the lengths of what came; returns their sum.
  func returnLengths(_ range: NamespaceCore.Range) -> Int {
    var byteCount = 0
    for (row, block) in range.blocks.enumerated() {
      let first = range.spanIndex(ofBlock: block)
      let joined = row * regions.count + range.regions.lowerBound - regions.lowerBound
      for part in 0..<range.regions.count {
        let length = unsafe spans[joined + part].length
        unsafe range.spans[first + part].length = length
        byteCount += length
      }
    }
    return byteCount
  }
}
