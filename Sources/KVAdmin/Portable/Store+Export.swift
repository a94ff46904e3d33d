internal import KVCatalog
public import KVCore
public import KVStore

/// What an export wrote.
public struct ExportResult: Sendable, Equatable {
  /// Blocks in the file.
  public var blockCount = 0
  /// Their payload.
  public var payloadByteCount = 0
  /// Blocks that left the store meanwhile, or failed a check, and those below them.
  public var missedBlockCount = 0
  /// False: `write` has refused.
  public var isComplete = false

  /// Nothing.
  public init() {}
}

extension Store {
  /// Writes the blocks of a namespace as one portable file, every byte verified.
  ///
  /// A namespace with a salt is refused (`.invalidArgument(.salt)`): of a salt only a keyed digest is stored, which no other
  /// store can compare. Safe beside other processes, which may remove blocks meanwhile. Memory: the longest path's tokens, and
  /// some 16 MiB.
  ///
  /// - Parameters:
  ///   - namespace: number of the namespace.
  ///   - words: only the stored front of this prompt (token ids, or digests as words); nil = all blocks.
  ///   - progress: called for each block.
  ///   - write: takes the file piece by piece; false ends the export.
  /// - Returns: what was written.
  /// - Throws: `StoreError`.
  public func exportBlocks(
    of namespace: NamespaceID,
    prompt words: [UInt32]? = nil,
    progress: (ExportResult) -> Void = { _ in },
    write: ([UInt8]) -> Bool
  ) throws(StoreError) -> ExportResult {
    let row = try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.namespace(namespace)
    }
    guard let row else { throw .invalidArgument(.namespace) }
    guard !NamespaceIdentity.recordHasSalt(row.identityRecord) else {
      throw .invalidArgument(.salt)
    }
    guard let identity = NamespaceIdentity(record: row.identityRecord),
      let opened = try openExistingNamespace(identity), opened.core.record == row.identityRecord
    else { throw .corrupt(.identityRecord) }
    var export = BlockExport(opened)
    try export.begin(row.identityRecord, write)
    if let words {
      try export.add(prefixOf: words, progress, write)
    } else {
      try export.addTree(progress, write)
    }
    export.end(write)
    return export.result
  }
}

/// An export under way.
///
/// Depth first, and of the runs that begin after one run the deepest first: so the path down to the last block that was written always has
/// the parent of the next one.
private struct BlockExport {
  private let namespace: Namespace
  private(set) var result = ExportResult()
  private var path: BlockPath
  private let batch: BlockBatch
  private var checksum = BlockFileChecksum()
  private var isStopped = false

  private struct Waiting {
    var run: RunID
    /// Blocks before its first one.
    var depth: Int
    /// A block before it is not in the file.
    var isMissed: Bool
  }

  init(_ namespace: Namespace) {
    self.namespace = namespace
    path = BlockPath(wordsPerBlock: namespace.core.wordsPerBlock)
    batch = BlockBatch(namespace.identity)
  }

  mutating func begin(_ record: [UInt8], _ write: ([UInt8]) -> Bool) throws(StoreError) {
    put(BlockFile.header(record), [], write)
  }

  mutating func end(_ write: ([UInt8]) -> Bool) {
    put(
      BlockFile.end(blockCount: result.blockCount, payloadByteCount: result.payloadByteCount),
      [],
      write
    )
    result.isComplete = !isStopped
  }

  /// The stored front of a prompt.
  mutating func add(
    prefixOf words: [UInt32],
    _ progress: (ExportResult) -> Void,
    _ write: ([UInt8]) -> Bool
  ) throws(StoreError) {
    let core = namespace.store.core
    let keyBitCount = core.configuration.keyBitCount
    var blocks: [StoredBlock] = []
    try Prompt.with(words) { (prompt) throws(StoreError) in
      try core.catalogRead { (transaction) throws(CatalogError) in
        guard let row = try transaction.namespace(namespace.id),
          let target = ExplainTarget(row, keyBitCount: keyBitCount)
        else { return }
        _ = try transaction.walk(target, prompt, core.time) { blocks.append(StoredBlock($1)) }
      }
    }
    _ = try add(blocks, progress, write)
  }

  /// All blocks of the namespace.
  mutating func addTree(
    _ progress: (ExportResult) -> Void,
    _ write: ([UInt8]) -> Bool
  ) throws(StoreError) {
    var waiting = try children(.root).reversed().map {
      Waiting(run: $0, depth: 0, isMissed: false)
    }
    while let next = waiting.popLast(), !isStopped {
      path.truncate(to: next.depth)
      var isMissed = next.isMissed
      var depth = next.depth
      var position: UInt32 = 0
      while !isStopped {
        let piece = try piece(of: next.run, from: position)
        let writtenCount = isMissed ? 0 : try add(piece.blocks, progress, write)
        if writtenCount < piece.blocks.count { isMissed = true }
        if isMissed { result.missedBlockCount += piece.blocks.count - writtenCount }
        // Pushed in this order, the deepest comes off first.
        for fork in piece.forks {
          let index = Int(fork.position - position)
          for child in fork.runs.reversed() {
            waiting.append(
              Waiting(
                run: child,
                depth: depth + index + 1,
                isMissed: next.isMissed || isMissed && index >= writtenCount
              )
            )
          }
        }
        depth += piece.blocks.count
        guard piece.isFull else { break }
        position += UInt32(piece.blocks.count)
      }
    }
  }

  /// What a block's row says.
  private struct StoredBlock {
    var words: [UInt32]
    var extra: [UInt8]
    var blockKey: BlockKey

    init(_ row: RowView) {
      words = row.wordArray
      extra = unsafe Array(row.extra)
      blockKey = row.blockKey
    }
  }

  private struct Piece {
    var blocks: [StoredBlock] = []
    /// Where other runs begin.
    var forks: [(position: UInt32, runs: [RunID])] = []
    /// There may be more of the run.
    var isFull: Bool { blocks.count == Self.blockCountMax }

    static let blockCountMax = 1000
  }

  /// The next rows of a run, in a transaction of their own; they end before a damaged one.
  private func piece(of run: RunID, from position: UInt32) throws(StoreError) -> Piece {
    try namespace.store.core.catalogRead { (transaction) throws(CatalogError) in
      var piece = Piece()
      try transaction.forEachRow(namespace.id, run, from: position) { _, row in
        guard let row else { return false }
        piece.blocks.append(StoredBlock(row))
        return !piece.isFull
      }
      for index in piece.blocks.indices {
        let at = BlockPosition(run: run, position: position + UInt32(index))
        let runs = try transaction.children(namespace.id, at)
        if !runs.isEmpty { piece.forks.append((at.position, runs)) }
      }
      return piece
    }
  }

  private func children(_ parent: BlockPosition) throws(StoreError) -> [RunID] {
    try namespace.store.core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.children(namespace.id, parent)
    }
  }

  /// Writes blocks behind the path, as far as they can be restored; returns how many.
  private mutating func add(
    _ blocks: [StoredBlock],
    _ progress: (ExportResult) -> Void,
    _ write: ([UInt8]) -> Bool
  ) throws(StoreError) -> Int {
    var doneCount = 0
    while doneCount < blocks.count, !isStopped {
      let next = blocks[doneCount..<min(blocks.count, doneCount + batch.capacity)]
      let first = path.blockCount
      for block in next { path.append(block.words, block.extra, block.blockKey) }
      let transfer = batch.transfer(firstBlock: first, blockCount: next.count)
      let restored = try path.withPrompt { (prompt) throws(StoreError) in
        try namespace.restore(prompt, transfer)
      }
      for index in 0..<restored.doneBlockCount {
        writeBlock(first + index, batch.payload(ofBlock: index), write)
        guard !isStopped else { return doneCount }
        doneCount += 1
        progress(result)
      }
      guard restored.doneBlockCount == next.count else {
        path.truncate(to: first + restored.doneBlockCount)
        break
      }
    }
    return doneCount
  }

  private mutating func writeBlock(
    _ block: Int,
    _ payload: (bytes: [UInt8], regionByteCounts: [Int]),
    _ write: ([UInt8]) -> Bool
  ) {
    let entry = BlockFileEntry(
      depth: block,
      blockKey: path.key(ofBlock: block),
      regionByteCounts: payload.regionByteCounts,
      words: path.words(ofBlock: block),
      extra: path.extra(ofBlock: block)
    )
    put(entry.encoded, payload.bytes, write)
    guard !isStopped else { return }
    result.blockCount += 1
    result.payloadByteCount += payload.bytes.count
  }

  /// Writes a record and its checksum.
  private mutating func put(_ fields: [UInt8], _ payload: [UInt8], _ write: ([UInt8]) -> Bool) {
    guard !isStopped else { return }
    let sum = checksum.add(fields, payload)
    isStopped = !(write(fields) && (payload.isEmpty || write(payload)) && write(sum))
  }
}
