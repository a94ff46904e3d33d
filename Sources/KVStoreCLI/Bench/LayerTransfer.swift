import KVStore

/// Where some regions of some blocks go; the memory is a `BlockMemory`'s, which this keeps alive.
///
/// Unsafe: operations borrow the spans until their end is reported.
@safe final class LayerTransfer {
  let transfer: Transfer
  private let spans: UnsafeMutableBufferPointer<TransferSpan>
  private let memory: BlockMemory

  fileprivate init(_ memory: BlockMemory, _ blocks: Range<Int>, _ regions: Range<Int>) {
    self.memory = memory
    unsafe spans = .allocate(capacity: blocks.count * regions.count)
    var index = 0
    for block in blocks {
      for region in regions {
        unsafe spans.initializeElement(at: index, to: memory.span(block: block, region: region))
        index += 1
      }
    }
    unsafe transfer = Transfer(
      firstBlock: blocks.lowerBound,
      blockCount: blocks.count,
      firstRegion: regions.lowerBound,
      regionCount: regions.count,
      spans: spans
    )
  }

  deinit { unsafe spans.deallocate() }
}

extension BlockMemory {
  /// Some regions of some blocks, between here and the same blocks of a prompt.
  func layer(_ blocks: Range<Int>, regions: Range<Int>) -> LayerTransfer {
    LayerTransfer(self, blocks, regions)
  }
}
