import Foundation
import KVCore
import KVStore

/// Caller memory of a prompt's leading blocks, one piece for each block and region.
///
/// Unchecked: a test hands it to one call or operation at a time.
final class TransferBuffers: @unchecked Sendable {
  let identity: NamespaceIdentity
  let firstBlock: Int
  let blockCount: Int
  let regions: Range<Int>
  private let pieces: [UnsafeMutableRawBufferPointer]
  private let spans: UnsafeMutableBufferPointer<TransferSpan>

  init(
    _ identity: NamespaceIdentity,
    firstBlock: Int = 0,
    blockCount: Int,
    regions: Range<Int>? = nil
  ) {
    let regions = regions ?? 0..<identity.regionByteCounts.count
    self.identity = identity
    self.firstBlock = firstBlock
    self.blockCount = blockCount
    self.regions = regions
    pieces = (0..<blockCount * regions.count).map { index in
      let region = regions.lowerBound + index % regions.count
      let piece = UnsafeMutableRawBufferPointer.allocate(
        byteCount: identity.regionByteCounts[region],
        alignment: 16
      )
      piece.initializeMemory(as: UInt8.self, repeating: 0xEE)
      return piece
    }
    spans = .allocate(capacity: pieces.count)
    for (index, piece) in pieces.enumerated() {
      spans.initializeElement(
        at: index,
        to: TransferSpan(data: piece.baseAddress, capacity: piece.count, length: piece.count)
      )
    }
  }

  deinit {
    pieces.forEach { $0.deallocate() }
    spans.deallocate()
  }

  /// What restores ask for besides: see `Transfer`.
  var prefixBlockCount = 0
  var ignoresWindows = false

  func transfer(timeoutNanoseconds: UInt64 = 0) -> Transfer {
    var transfer = Transfer(
      firstBlock: firstBlock,
      blockCount: blockCount,
      firstRegion: regions.lowerBound,
      regionCount: regions.count,
      timeoutNanoseconds: timeoutNanoseconds,
      spans: spans
    )
    transfer.prefixBlockCount = prefixBlockCount
    transfer.ignoresWindows = ignoresWindows
    return transfer
  }

  func restore(
    _ tokens: [UInt32],
    from namespace: Namespace,
    timeoutNanoseconds: UInt64 = 0
  ) throws -> TransferResult {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in
      try namespace.restore(prompt, transfer(timeoutNanoseconds: timeoutNanoseconds))
    }
  }

  func offload(
    _ tokens: [UInt32],
    to namespace: Namespace,
    timeoutNanoseconds: UInt64 = 0
  ) throws -> TransferResult {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in
      try namespace.offload(prompt, transfer(timeoutNanoseconds: timeoutNanoseconds))
    }
  }

  func startRestore(
    _ tokens: [UInt32],
    from namespace: Namespace,
    timeoutNanoseconds: UInt64 = 0
  ) throws -> TransferOperation {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in
      try namespace.startRestore(prompt, transfer(timeoutNanoseconds: timeoutNanoseconds))
    }
  }

  func startOffload(_ tokens: [UInt32], to namespace: Namespace) throws -> TransferOperation {
    try Prompt.with(tokens) { (prompt) throws(StoreError) in
      try namespace.startOffload(prompt, transfer())
    }
  }

  /// What the spans say that fits, whatever their memory has.
  func setCapacity(_ byteCount: Int) {
    for index in spans.indices { spans[index].capacity = byteCount }
  }

  func fill(_ byte: UInt8) {
    for piece in pieces { piece.initializeMemory(as: UInt8.self, repeating: byte) }
  }

  /// The bytes that the prompt's blocks have (`regionBytes`).
  func fill(from tokens: [UInt32]) {
    for (index, piece) in pieces.enumerated() {
      piece.copyBytes(from: wanted(tokens, index))
    }
  }

  func isFilled(with byte: UInt8) -> Bool {
    pieces.allSatisfy { $0.isEqual(to: Array(repeating: byte, count: $0.count)) }
  }

  /// Whether the first blocks hold the prompt's bytes.
  func isRight(_ tokens: [UInt32], blockCount: Int? = nil) -> Bool {
    (0..<(blockCount ?? self.blockCount) * regions.count).allSatisfy { index in
      pieces[index].isEqual(to: wanted(tokens, index))
    }
  }

  /// Whether one region of a block (both counted from the first of these) has the prompt's bytes, and says how many.
  func isRight(_ tokens: [UInt32], block: Int, region: Int) -> Bool {
    let index = block * regions.count + region
    let wanted = wanted(tokens, index)
    return spans[index].length == wanted.count && pieces[index].isEqual(to: wanted)
  }

  /// Whether one region of a block was left alone.
  func isUntouched(block: Int, region: Int, filledWith byte: UInt8) -> Bool {
    let index = block * regions.count + region
    return spans[index].length == 0
      && pieces[index].isEqual(to: Array(repeating: byte, count: pieces[index].count))
  }

  private func wanted(_ tokens: [UInt32], _ index: Int) -> [UInt8] {
    let block = firstBlock + index / regions.count
    let region = regions.lowerBound + index % regions.count
    let prefix = [0] + tokens[..<((block + 1) * identity.tokensPerBlock)]
    return regionBytes(prefix, region: region, count: identity.regionByteCounts[region])
  }
}
