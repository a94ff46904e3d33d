public import KVCore
public import KVStore

/// What an import took.
public struct ImportResult: Sendable, Equatable {
  /// Number of the namespace that the blocks went to; nil when the file did not say.
  public var namespace: NamespaceID?
  /// Blocks of the file that were whole.
  public var blockCount = 0
  /// Of those, stored now.
  public var storedBlockCount = 0
  /// Of those, stored before.
  public var knownBlockCount = 0
  /// Of those, not kept: no room, or not the block before them.
  public var droppedBlockCount = 0
  /// Payload of the whole ones.
  public var payloadByteCount = 0
  /// What ended the import early; what came before it is stored.
  public var problem: ImportProblem?
  /// Where the record begins that has the problem, in bytes from the beginning of the file.
  public var problemOffset = 0

  /// Nothing.
  public init() {}
}

/// Why a file of blocks is not taken, or not to its end.
public enum ImportProblem: Sendable, Equatable {
  /// It is something else.
  case notABlockFile
  /// Of a newer version.
  case version(UInt32)
  /// The identity record cannot be read, or is that of a namespace with a salt.
  case identity
  /// It ends in the middle.
  case truncated
  /// A checksum, a length or a key is wrong.
  case damaged
}

extension Store {
  /// Takes the blocks of a portable file into the namespace of the identity record that it carries, and flushes.
  ///
  /// The namespace is made when it is not there; its quota and time to live are the store's business. Each block is checked by its checksum,
  /// and its key must follow from its tokens and the block before. At the first that fails the import ends; what came before stays. The
  /// checksums are no signature: who can write the file decides what the blocks hold. Memory: the longest path's tokens, some 16 MiB, and a
  /// block.
  ///
  /// - Parameters:
  ///   - progress: called for each block.
  ///   - read: gives so many bytes of the file, fewer at its end.
  /// - Returns: what was taken.
  /// - Throws: `StoreError`.
  public func importBlocks(
    progress: (ImportResult) -> Void = { _ in },
    read: (Int) -> [UInt8]
  ) throws(StoreError) -> ImportResult {
    var file = BlockFileReader()
    var result = ImportResult()
    guard let identity = file.readIdentity(read) else {
      result.problem = file.problem
      result.problemOffset = file.recordOffset
      return result
    }
    let namespace = try openNamespace(identity)
    result.namespace = namespace.id
    _ = try flush()
    var blocks = BlockImport(namespace)
    while let (entry, bytes, payloadOffset) = file.next(read) {
      guard try blocks.add(entry, bytes, payloadOffset, &result) else {
        file.problem = .damaged
        break
      }
      progress(result)
    }
    try blocks.offload(&result)
    if file.problem == nil {
      file.checkTotals(
        blockCount: result.blockCount,
        payloadByteCount: result.payloadByteCount,
        read
      )
    }
    result.problem = file.problem
    result.problemOffset = file.problem == nil ? 0 : file.recordOffset
    let flushed = try flush()
    let lost =
      flushed.droppedFullBlockCount + flushed.droppedParentBlockCount
      + flushed.droppedErrorBlockCount
    result.droppedBlockCount += min(lost, result.storedBlockCount)
    result.storedBlockCount -= min(lost, result.storedBlockCount)
    return result
  }
}

/// Puts the blocks of a file into the store, a few in each call.
private struct BlockImport {
  private let namespace: Namespace
  private var path: BlockPath
  private let batch: BlockBatch
  /// Blocks at the end of the path that are in the batch.
  private var waitingCount = 0

  init(_ namespace: Namespace) {
    self.namespace = namespace
    path = BlockPath(wordsPerBlock: namespace.core.wordsPerBlock)
    batch = BlockBatch(namespace.identity)
  }

  /// Takes the next block; false when it does not stand behind its parent or its key is not that of its tokens.
  mutating func add(
    _ entry: BlockFileEntry,
    _ bytes: [UInt8],
    _ payloadOffset: Int,
    _ result: inout ImportResult
  ) throws(StoreError) -> Bool {
    guard path.canTake(entry) else { return false }
    if entry.depth < path.blockCount || waitingCount == batch.capacity {
      try offload(&result)
    }
    guard path.add(entry, namespace.core.chain) else { return false }
    batch.setPayload(
      ofBlock: waitingCount,
      bytes,
      from: payloadOffset,
      entry.regionByteCounts
    )
    waitingCount += 1
    result.blockCount += 1
    result.payloadByteCount += entry.payloadByteCount
    return true
  }

  /// Offloads what is in the batch.
  mutating func offload(_ result: inout ImportResult) throws(StoreError) {
    guard waitingCount > 0 else { return }
    let transfer = batch.transfer(
      firstBlock: path.blockCount - waitingCount,
      blockCount: waitingCount
    )
    let outcome = try path.withPrompt { (prompt) throws(StoreError) in
      try namespace.offload(prompt, transfer)
    }
    let doneCount = outcome.outcomes.count { $0 == .done }
    result.storedBlockCount += outcome.hostBlockCount
    result.knownBlockCount += doneCount - outcome.hostBlockCount
    result.droppedBlockCount += waitingCount - doneCount
    waitingCount = 0
  }
}
