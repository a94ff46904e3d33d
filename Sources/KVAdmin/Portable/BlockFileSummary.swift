internal import KVCore
internal import KVStore

/// What bytes hold that may be a portable file of blocks; read as an import reads them, without a store.
package struct BlockFileSummary {
  /// Blocks that were whole, with the key that follows from their place.
  package private(set) var blockCount = 0
  package private(set) var payloadByteCount = 0
  /// What ends it early.
  package private(set) var problem: ImportProblem?

  /// Blocks of a namespace whose blocks are larger are not looked at: memory for one of them is needed.
  private static let blockByteCountMax = 1 << 20

  package init(_ bytes: [UInt8]) {
    var offset = 0
    func read(_ count: Int) -> [UInt8] {
      let piece = Array(bytes[offset..<min(bytes.count, offset + count)])
      offset += piece.count
      return piece
    }
    var file = BlockFileReader()
    guard let identity = file.readIdentity(read) else {
      problem = file.problem
      return
    }
    guard identity.payloadByteCountMax <= Self.blockByteCountMax else { return }
    let rootKey = unsafe identity.encoded(saltKey: []).withUnsafeBytes { xxh3Key($0) }
    let chain = KeyChain(
      rootKey: rootKey,
      identityMode: identity.identityMode,
      wordsPerBlock: identity.wordsPerBlock
    )
    var path = BlockPath(wordsPerBlock: identity.wordsPerBlock)
    let batch = BlockBatch(identity)
    while let (entry, block, payloadOffset) = file.next(read) {
      guard path.add(entry, chain) else {
        problem = .damaged
        return
      }
      batch.setPayload(
        ofBlock: blockCount % batch.capacity,
        block,
        from: payloadOffset,
        entry.regionByteCounts
      )
      blockCount += 1
      payloadByteCount += entry.payloadByteCount
    }
    if file.problem == nil {
      file.checkTotals(blockCount: blockCount, payloadByteCount: payloadByteCount, read)
    }
    problem = file.problem
  }
}
