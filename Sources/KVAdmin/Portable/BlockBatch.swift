internal import KVCore
internal import KVStore

/// Memory of a few neighbouring blocks that are moved in one call; at most some 16 MiB, or one block.
@safe final class BlockBatch {
  private static let byteCountMax = 16 << 20
  private static let blockCountMax = 256

  /// Blocks that it has room for.
  let capacity: Int
  private let bounds: [Int]
  private let blockByteCount: Int
  private let memory: UnsafeMutableRawBufferPointer
  private let spans: UnsafeMutableBufferPointer<TransferSpan>

  init(_ identity: NamespaceIdentity) {
    bounds = identity.regionByteCounts
    blockByteCount = max(1, bounds.reduce(0, +))
    capacity = max(1, min(Self.blockCountMax, Self.byteCountMax / blockByteCount))
    unsafe memory = .allocate(byteCount: capacity * blockByteCount, alignment: 4096)
    unsafe spans = .allocate(capacity: capacity * bounds.count)
    for block in 0..<capacity {
      var offset = block * blockByteCount
      for (region, bound) in bounds.enumerated() {
        unsafe spans.initializeElement(
          at: block * bounds.count + region,
          to: TransferSpan(
            data: memory.baseAddress.map { unsafe $0 + offset },
            capacity: bound,
            length: 0
          )
        )
        offset += bound
      }
    }
  }

  deinit {
    unsafe memory.deallocate()
    unsafe spans.deallocate()
  }

  /// To move its first blocks, which are those from `firstBlock` of a prompt on.
  func transfer(firstBlock: Int, blockCount: Int) -> Transfer {
    var transfer = unsafe Transfer(
      firstBlock: firstBlock,
      blockCount: blockCount,
      spans: UnsafeMutableBufferPointer(rebasing: spans[..<(blockCount * bounds.count)])
    )
    // A file has whole blocks, since any of them may end another prompt.
    transfer.ignoresWindows = true
    return transfer
  }

  /// The regions of a block that was restored, side by side, and how long each is.
  func payload(ofBlock block: Int) -> (bytes: [UInt8], regionByteCounts: [Int]) {
    var bytes: [UInt8] = []
    var counts: [Int] = []
    bytes.reserveCapacity(blockByteCount)
    for region in bounds.indices {
      let span = unsafe spans[block * bounds.count + region]
      unsafe bytes.append(
        contentsOf: UnsafeRawBufferPointer(start: span.data, count: span.length)
      )
      counts.append(span.length)
    }
    return (bytes, counts)
  }

  /// Takes the regions of a block that is to be offloaded, which lie side by side from `offset` on.
  func setPayload(
    ofBlock block: Int,
    _ bytes: [UInt8],
    from offset: Int,
    _ regionByteCounts: [Int]
  ) {
    unsafe bytes.withUnsafeBytes { bytes in
      var offset = offset
      for (region, count) in regionByteCounts.enumerated() {
        let index = block * bounds.count + region
        unsafe spans[index].length = count
        let piece = unsafe bytes[offset..<offset + count]
        unsafe UnsafeMutableRawBufferPointer(start: spans[index].data, count: count)
          .copyMemory(from: UnsafeRawBufferPointer(rebasing: piece))
        offset += count
      }
    }
  }
}
