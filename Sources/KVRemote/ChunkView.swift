package import KVCodec
package import KVCore

/// A chunk in memory that came from somewhere else: nothing in it is believed.
///
/// The first initialiser checks that its parts lie within it and that its header is whole. `check` compares it with what was asked
/// for, and `checkPayload` every byte of the payload; a block is taken after all three.
@safe package struct ChunkView {
  /// One block, whose parts lie within the object.
  package struct Block: Sendable {
    package let blockKey: BlockKey
    fileprivate let isEncoded: Bool
    fileprivate let words: Range<Int>
    fileprivate let extra: Range<Int>
    fileprivate let payload: Range<Int>
    /// Where its regions' entries begin.
    fileprivate let regions: Int
    package let rawByteCount: Int
  }

  package struct Region: Equatable {
    package let rawByteCount: Int
    package let storedByteCount: Int
    package let checksum: UInt64
  }

  private let bytes: UnsafeRawBufferPointer
  private let codeStart: Int?
  private let recordDigest: Range<Int> = 64..<96
  private let prefixDigest: Range<Int> = 128..<160
  package let firstBlock: Int
  package let regionCount: Int
  package let wordsPerBlock: Int
  /// Unix time in nanoseconds; 0 = none.
  package let endOfLife: UInt64
  /// How long it lives from each use, in nanoseconds; 0 = as long as it may.
  package let idleLife: UInt64
  package let rootKey: BlockKey
  package let parentKey: BlockKey
  package let blocks: [Block]

  /// Which blocks of its path it says that it has.
  package var range: Range<Int> { firstBlock..<firstBlock + blocks.count }

  /// Looks at bytes that may be anything, and must outlive the view.
  package init(_ bytes: UnsafeRawBufferPointer) throws(ChunkFlaw) {
    unsafe self.bytes = bytes
    guard bytes.count >= ChunkFormat.fixedByteCount else {
      let isOurs = unsafe bytes.prefix(8).elementsEqual(ChunkFormat.magic.prefix(bytes.count))
      throw isOurs && bytes.count > 0 ? .length : .format
    }
    var reader = unsafe ByteReader(bytes)
    guard reader.readBytes(8) == ChunkFormat.magic,
      reader.read(UInt32.self) == ChunkFormat.version
    else { throw .format }
    guard let flags = reader.read(UInt32.self), let objectByteCount = reader.read(UInt64.self),
      let headerByteCount = reader.read(UInt32.self).map(Int.init),
      let firstBlock = reader.read(UInt32.self), let blockCount = reader.read(UInt32.self),
      let regionCount = reader.read(UInt32.self), let wordsPerBlock = reader.read(UInt32.self),
      let reserved = reader.read(UInt32.self), let endOfLife = reader.read(UInt64.self),
      let idleLife = reader.read(UInt64.self), reader.skip(32), let rootKey = reader.readKey(),
      let parentKey = reader.readKey()
    else { throw .damaged }
    guard objectByteCount == UInt64(bytes.count) else { throw .length }
    guard headerByteCount >= ChunkFormat.fixedByteCount + ChunkFormat.checksumByteCount,
      headerByteCount <= bytes.count
    else { throw .damaged }
    let checked = headerByteCount - ChunkFormat.checksumByteCount
    var checksum = unsafe ByteReader(bytes, offset: checked)
    guard
      unsafe checksum.read(UInt64.self)
        == xxh3Checksum(UnsafeRawBufferPointer(rebasing: bytes[..<checked]))
    else { throw .damaged }
    // From here on it is what its maker wrote, who may be anybody.
    guard flags & ~ChunkFormat.hasCode == 0, reserved == 0,
      (1...ChunkFormat.blockCountMax).contains(Int(blockCount)), blockCount.nonzeroBitCount == 1,
      firstBlock % blockCount == 0,
      (1...ChunkFormat.regionCountMax).contains(Int(regionCount)),
      (1...ChunkFormat.wordsPerBlockMax).contains(Int(wordsPerBlock))
    else { throw .damaged }
    self.firstBlock = Int(firstBlock)
    self.regionCount = Int(regionCount)
    self.wordsPerBlock = Int(wordsPerBlock)
    self.endOfLife = endOfLife
    self.idleLife = idleLife
    self.rootKey = rootKey
    self.parentKey = parentKey
    let hasCode = flags & ChunkFormat.hasCode != 0
    let payloadEnd = bytes.count - (hasCode ? ChunkFormat.codeByteCount : 0)
    codeStart = hasCode ? payloadEnd : nil
    blocks = unsafe try Self.blocks(
      UnsafeRawBufferPointer(rebasing: bytes[..<checked]),
      count: Int(blockCount),
      regionCount: Int(regionCount),
      wordsPerBlock: Int(wordsPerBlock),
      payload: (headerByteCount, payloadEnd)
    )
  }

  /// The blocks' entries; they fill the header, and their payloads the rest, in order and without gaps.
  private static func blocks(
    _ header: UnsafeRawBufferPointer,
    count: Int,
    regionCount: Int,
    wordsPerBlock: Int,
    payload: (start: Int, end: Int)
  ) throws(ChunkFlaw) -> [Block] {
    var reader = unsafe ByteReader(header, offset: ChunkFormat.fixedByteCount)
    var blocks: [Block] = []
    blocks.reserveCapacity(count)
    var next = payload.start
    for _ in 0..<count {
      guard let blockKey = reader.readKey(), let codec = reader.read(UInt32.self),
        codec <= ChunkFormat.framesCodec, let extraByteCount = reader.read(UInt32.self),
        extraByteCount <= ChunkFormat.extraByteCountMax, let offset = reader.read(UInt64.self),
        offset == UInt64(next), let storedByteCount = reader.read(UInt64.self),
        next <= payload.end, storedByteCount <= UInt64(payload.end - next)
      else { throw .damaged }
      let regions = reader.offset
      var storedSum = 0
      var rawSum = 0
      for _ in 0..<regionCount {
        // At most 4096 numbers of 32 bits: their sums are far from the bounds of an Int.
        guard let raw = reader.read(UInt32.self), let stored = reader.read(UInt32.self),
          reader.skip(8), codec == ChunkFormat.framesCodec || raw == stored
        else { throw .damaged }
        rawSum += Int(raw)
        storedSum += Int(stored)
      }
      guard storedSum == Int(storedByteCount), rawSum <= ChunkFormat.blockPayloadByteCountMax
      else { throw .damaged }
      let words = reader.offset
      guard reader.skip(4 * wordsPerBlock) else { throw .damaged }
      let extra = reader.offset
      guard reader.skip(Int(extraByteCount)) else { throw .damaged }
      blocks.append(
        Block(
          blockKey: blockKey,
          isEncoded: codec == ChunkFormat.framesCodec,
          words: words..<extra,
          extra: extra..<reader.offset,
          payload: next..<next + storedSum,
          regions: regions,
          rawByteCount: rawSum
        )
      )
      next += storedSum
    }
    guard reader.remainingByteCount == 0, next == payload.end else { throw .damaged }
    return blocks
  }

  /// A block's token ids, or its digest, as little-endian words.
  package func words(of block: Block) -> UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(rebasing: bytes[block.words])
  }

  package func extra(of block: Block) -> UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(rebasing: bytes[block.extra])
  }

  package func region(_ index: Int, of block: Block) -> Region {
    var reader = unsafe ByteReader(
      bytes,
      offset: block.regions + ChunkFormat.regionByteCount * index
    )
    // It was read before.
    return Region(
      rawByteCount: Int(reader.read(UInt32.self) ?? 0),
      storedByteCount: Int(reader.read(UInt32.self) ?? 0),
      checksum: reader.read(UInt64.self) ?? 0
    )
  }

  // MARK: Is it the one?

  /// Whether it is the chunk at a place of a namespace, made by somebody who has the namespace's key.
  ///
  /// - Parameters:
  ///   - namespace: that is asked for.
  ///   - asked: which blocks of the path are asked for.
  ///   - now: Unix time in nanoseconds.
  /// - Throws: what it is not.
  package func check(
    _ namespace: RemoteNamespace,
    blocks asked: Range<Int>,
    now: UInt64
  ) throws(ChunkFlaw) {
    let identity = namespace.identity
    guard unsafe bytes[recordDigest].elementsEqual(namespace.recordDigest),
      rootKey == namespace.chain.rootKey, range == asked,
      asked.count == namespace.blocksOfChunk(endingAfter: asked.upperBound),
      regionCount == identity.regionByteCounts.count,
      wordsPerBlock == identity.wordsPerBlock
    else { throw .identity }
    for block in blocks {
      guard block.extra.count <= identity.extraByteCountMax else { throw .identity }
      for (index, bound) in identity.regionByteCounts.enumerated() {
        let count = region(index, of: block).rawByteCount
        guard identity.regionsAreVariable ? count <= bound : count == bound else {
          throw .identity
        }
      }
    }
    guard endOfLife == 0 || now <= endOfLife else { throw .expired }
    switch (namespace.key, codeStart) {
    case (nil, nil): break
    case (let key?, let start?):
      guard
        unsafe key.codeMatches(
          UnsafeRawBufferPointer(rebasing: bytes[start...]),
          of: UnsafeRawBufferPointer(rebasing: bytes[..<start])
        )
      else { throw .code }
    default: throw .code
    }
  }

  /// Whether it lies on a path, by the key of the block before it and the digest of the path down to its last one (`PrefixDigest`).
  ///
  /// The tokens prove; the keys only found it.
  package func isOf(path parentKey: BlockKey, prefixDigest: [UInt8]) -> Bool {
    unsafe self.parentKey == parentKey && bytes[self.prefixDigest].elementsEqual(prefixDigest)
  }

  /// Whether a block is that of these words, extra bytes and key.
  package func isBlock(
    _ index: Int,
    _ blockKey: BlockKey,
    words: UnsafeRawBufferPointer,
    extra: UnsafeRawBufferPointer
  ) -> Bool {
    let block = blocks[index]
    guard block.blockKey == blockKey else { return false }
    return unsafe self.words(of: block).elementsEqual(words)
      && self.extra(of: block).elementsEqual(extra)
  }

  // MARK: The payload

  /// Compares all stored bytes with their checksums.
  package func checkPayload() throws(ChunkFlaw) {
    for block in blocks {
      var offset = block.payload.lowerBound
      for index in 0..<regionCount {
        let region = region(index, of: block)
        let end = offset + region.storedByteCount
        guard
          unsafe xxh3Checksum(UnsafeRawBufferPointer(rebasing: bytes[offset..<end]))
            == region.checksum
        else { throw .damaged }
        offset = end
      }
    }
  }

  /// Whether a block's payload lies in the object as it is, its regions side by side.
  package func rawPayload(of block: Block) -> UnsafeRawBufferPointer? {
    unsafe block.isEncoded ? nil : UnsafeRawBufferPointer(rebasing: bytes[block.payload])
  }

  /// Brings a block's payload into memory of exactly its `rawByteCount`, its regions side by side.
  package func decode(
    _ block: Block,
    _ decoder: borrowing FrameDecoder,
    into target: UnsafeMutableRawBufferPointer
  ) throws(ChunkFlaw) {
    guard target.count == block.rawByteCount else { throw .damaged }
    if let raw = unsafe rawPayload(of: block) { return unsafe target.copyMemory(from: raw) }
    var read = block.payload.lowerBound
    var written = 0
    var index = 0
    while index < regionCount {
      let first = region(index, of: block)
      var rawByteCount = first.rawByteCount
      index += 1
      // A region with stored bytes and those behind it without are one group.
      while index < regionCount {
        let next = region(index, of: block)
        guard next.storedByteCount == 0 else { break }
        rawByteCount += next.rawByteCount
        index += 1
      }
      let end = read + first.storedByteCount
      let stored = unsafe UnsafeRawBufferPointer(rebasing: bytes[read..<end])
      let room = unsafe UnsafeMutableRawBufferPointer(
        rebasing: target[written..<written + rawByteCount]
      )
      guard
        unsafe rawByteCount == 0
          ? first.storedByteCount == 0 : decoder.decode(stored, into: room) == stored.count
      else { throw .damaged }
      read = end
      written += rawByteCount
    }
  }
}
