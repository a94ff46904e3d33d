package import KVCodec
package import KVCore

/// Makes a chunk: its blocks' payloads are put where they lie in the object, then it is sealed.
///
/// For one thread at a time.
@safe package final class ChunkWriter {
  package struct Block: Sendable {
    package var blockKey: BlockKey
    /// Token ids, or the digest as words.
    package var words: [UInt32]
    package var extra: [UInt8]

    package init(blockKey: BlockKey, words: [UInt32], extra: [UInt8] = []) {
      self.blockKey = blockKey
      self.words = words
      self.extra = extra
    }
  }

  private let namespace: RemoteNamespace
  private let firstBlock: Int
  private let parentKey: BlockKey
  private let prefixDigest: [UInt8]
  private let blocks: [Block]
  private let headerByteCount: Int
  private let memory: UnsafeMutableRawBufferPointer
  private var encoded: UnsafeMutableRawBufferPointer?

  /// Takes memory for the chunk; nil for blocks that are none.
  ///
  /// - Parameters:
  ///   - namespace: of the blocks.
  ///   - firstBlock: blocks before the chunk.
  ///   - parentKey: of the block before the first; the root key when there is none.
  ///   - prefixDigest: of the path down to the last block.
  ///   - blocks: as many as the chunk that ends there has (`blocksOfChunk`).
  package init?(
    _ namespace: RemoteNamespace,
    firstBlock: Int,
    parentKey: BlockKey,
    prefixDigest: [UInt8],
    _ blocks: [Block]
  ) {
    let count = blocks.count
    guard firstBlock >= 0, UInt32(exactly: firstBlock) != nil, count > 0,
      count == namespace.blocksOfChunk(endingAfter: firstBlock + count), prefixDigest.count == 32,
      blocks.allSatisfy({
        $0.words.count == namespace.identity.wordsPerBlock
          && $0.extra.count <= namespace.identity.extraByteCountMax
      })
    else { return nil }
    self.namespace = namespace
    self.firstBlock = firstBlock
    self.parentKey = parentKey
    self.prefixDigest = prefixDigest
    self.blocks = blocks
    let entryByteCount = ChunkFormat.blockByteCount(
      regionCount: namespace.identity.regionByteCounts.count,
      wordsPerBlock: namespace.identity.wordsPerBlock
    )
    headerByteCount =
      ChunkFormat.fixedByteCount + count * entryByteCount
      + blocks.reduce(0) { $0 + $1.extra.count } + ChunkFormat.checksumByteCount
    unsafe memory = .allocate(
      byteCount: headerByteCount + count * namespace.identity.payloadByteCountMax
        + ChunkFormat.codeByteCount,
      alignment: 64
    )
  }

  deinit {
    unsafe memory.deallocate()
    unsafe encoded?.deallocate()
  }

  /// Where a region is to be written before `seal`; as long as the largest that the namespace allows.
  package func region(_ region: Int, ofBlock block: Int) -> UnsafeMutableRawBufferPointer {
    let bounds = namespace.identity.regionByteCounts
    let offset =
      headerByteCount + block * namespace.identity.payloadByteCountMax
      + bounds[..<region].reduce(0, +)
    return unsafe UnsafeMutableRawBufferPointer(
      rebasing: memory[offset..<offset + bounds[region]]
    )
  }

  /// A payload that was written, to find out by how such are encoded: the first block's, or of one that is not full its first region.
  ///
  /// - Parameter regionByteCounts: as for `seal`, before which this is called.
  /// - Returns: bytes of the writer's memory.
  package func firstPayload(_ regionByteCounts: [[Int]]) -> UnsafeRawBufferPointer {
    let counts = regionByteCounts.first ?? []
    let isFull = counts == namespace.identity.regionByteCounts
    let byteCount = isFull ? counts.reduce(0, +) : counts.first ?? 0
    return unsafe UnsafeRawBufferPointer(rebasing: memory[headerByteCount...].prefix(byteCount))
  }

  /// Makes the object of what was written.
  ///
  /// - Parameters:
  ///   - regionByteCounts: of each block, how long each region is.
  ///   - endOfLife: Unix time in nanoseconds; 0 = none.
  ///   - idleLife: in nanoseconds from each use; 0 = none.
  ///   - format: how payloads are encoded; nil leaves them as they are.
  /// - Returns: the object, which lies in the writer's memory; nil for regions that are too long.
  package func seal(
    regionByteCounts: [[Int]],
    endOfLife: UInt64,
    idleLife: UInt64,
    encodedAs format: PayloadFormat? = nil
  ) -> UnsafeRawBufferPointer? {
    let bounds = namespace.identity.regionByteCounts
    let areRight =
      regionByteCounts.count == blocks.count
      && regionByteCounts.allSatisfy { counts in
        counts.count == bounds.count && zip(counts, bounds).allSatisfy { (0...$1).contains($0) }
      }
    guard areRight else { return nil }
    pack(regionByteCounts)
    var entries = regionByteCounts.map { StoredBlock(rawByteCounts: $0) }
    let target = unsafe encode(&entries, format) ?? memory
    let payloadByteCount = entries.reduce(0) { $0 + $1.storedByteCount }
    let codeStart = headerByteCount + payloadByteCount
    let byteCount = codeStart + (namespace.key == nil ? 0 : ChunkFormat.codeByteCount)
    let header = unsafe header(entries, byteCount, endOfLife, idleLife, in: target)
    unsafe target.copyBytes(from: header)
    if let key = namespace.key {
      let code = unsafe key.code(of: UnsafeRawBufferPointer(rebasing: target[..<codeStart]))
      unsafe UnsafeMutableRawBufferPointer(rebasing: target[codeStart...]).copyBytes(from: code)
    }
    return unsafe UnsafeRawBufferPointer(rebasing: target[..<byteCount])
  }

  private struct StoredBlock {
    var rawByteCounts: [Int]
    /// Of its frames; nil when it lies raw.
    var frameByteCounts: [Int]?

    var storedByteCounts: [Int] { frameByteCounts ?? rawByteCounts }
    var storedByteCount: Int { storedByteCounts.reduce(0, +) }
  }

  /// Moves regions that are shorter than they may be together; forward only, so nothing is overwritten before it is moved.
  private func pack(_ regionByteCounts: [[Int]]) {
    let bounds = namespace.identity.regionByteCounts
    var to = headerByteCount
    var from = headerByteCount
    for counts in regionByteCounts {
      for (count, bound) in zip(counts, bounds) {
        if to != from, count > 0 {
          unsafe UnsafeMutableRawBufferPointer(rebasing: memory[to..<to + count]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: memory[from..<from + count])
          )
        }
        to += count
        from += bound
      }
    }
  }

  /// The payloads in frames, where that is shorter, in memory of their own; nil where memory is short or nothing is to be encoded.
  private func encode(
    _ entries: inout [StoredBlock],
    _ format: PayloadFormat?
  ) -> UnsafeMutableRawBufferPointer? {
    guard let format, let encoder = PayloadEncoder() else { return nil }
    let room = entries.reduce(0) { $0 + PayloadEncoder.bound($1.rawByteCounts) }
    let target = UnsafeMutableRawBufferPointer.allocate(
      byteCount: headerByteCount + room + ChunkFormat.codeByteCount,
      alignment: 64
    )
    unsafe encoded?.deallocate()
    unsafe encoded = target
    var read = headerByteCount
    var written = headerByteCount
    for index in entries.indices {
      let count = entries[index].rawByteCounts.reduce(0, +)
      let raw = unsafe UnsafeRawBufferPointer(rebasing: memory[read..<read + count])
      entries[index].frameByteCounts = unsafe encoder.encode(
        raw,
        regionByteCounts: entries[index].rawByteCounts,
        format,
        into: UnsafeMutableRawBufferPointer(rebasing: target[written...])
      )
      if entries[index].frameByteCounts == nil {
        unsafe UnsafeMutableRawBufferPointer(rebasing: target[written..<written + count])
          .copyMemory(from: raw)
      }
      read += count
      written += entries[index].storedByteCount
    }
    return unsafe target
  }

  private func header(
    _ entries: [StoredBlock],
    _ byteCount: Int,
    _ endOfLife: UInt64,
    _ idleLife: UInt64,
    in target: UnsafeMutableRawBufferPointer
  ) -> [UInt8] {
    var writer = ByteWriter(capacity: headerByteCount)
    writer.append(contentsOf: ChunkFormat.magic)
    writer.append(ChunkFormat.version)
    writer.append(namespace.key == nil ? 0 : ChunkFormat.hasCode)
    writer.append(UInt64(byteCount))
    writer.append(UInt32(headerByteCount))
    writer.append(UInt32(firstBlock))
    writer.append(UInt32(blocks.count))
    writer.append(UInt32(namespace.identity.regionByteCounts.count))
    writer.append(UInt32(namespace.identity.wordsPerBlock))
    writer.append(UInt32(0))
    writer.append(endOfLife)
    writer.append(idleLife)
    writer.append(contentsOf: namespace.recordDigest)
    writer.append(namespace.chain.rootKey)
    writer.append(parentKey)
    writer.append(contentsOf: prefixDigest)
    var offset = headerByteCount
    for (block, entry) in zip(blocks, entries) {
      writer.append(block.blockKey)
      writer.append(
        entry.frameByteCounts == nil ? ChunkFormat.rawCodec : ChunkFormat.framesCodec
      )
      writer.append(UInt32(block.extra.count))
      writer.append(UInt64(offset))
      writer.append(UInt64(entry.storedByteCount))
      for (raw, stored) in zip(entry.rawByteCounts, entry.storedByteCounts) {
        writer.append(UInt32(raw))
        writer.append(UInt32(stored))
        writer.append(
          unsafe xxh3Checksum(UnsafeRawBufferPointer(rebasing: target[offset..<offset + stored]))
        )
        offset += stored
      }
      for word in block.words { writer.append(word) }
      writer.append(contentsOf: block.extra)
    }
    writer.append(unsafe writer.bytes.withUnsafeBytes { xxh3Checksum($0) })
    return writer.bytes
  }
}
