package import KVCore

/// A namespace as all machines of a remote tier see it: its record, its chain of keys, and the names of its objects.
///
/// Without a salt it is the local one. A salt's digest in a store's own record is under a key of that store, so with a salt the record is
/// made anew, under the key that the machines share.
package struct RemoteNamespace: Sendable {
  package let identity: NamespaceIdentity
  /// The canonical record (docs/file-format.md, "Identity record"); an object beside the chunks holds it.
  package let record: [UInt8]
  /// SHA-256 of the record: what chunks name it by.
  package let recordDigest: [UInt8]
  package let chain: KeyChain
  package let blocksPerChunk: Int
  package let key: RemoteKey?
  private let name: String

  /// What all names begin with, of any namespace.
  package static let allPrefix = RemoteName("kv1:")

  /// Nil for a namespace that stays local: it has a salt, and there is no key; or it holds side sections, has a salt, and its owner is not known.
  ///
  /// - Parameters:
  ///   - identity: of the namespace, checked, its salt included.
  ///   - key: what the machines share.
  ///   - owner: of a namespace of side sections: the identity beside whose blocks they stand. The record that names it by its digest is another one
  ///     there when it has a salt.
  ///   - keyBitCount: of each block key; 128 but in tests.
  ///   - blocksPerChunk: nil but in tests.
  package init?(
    _ identity: NamespaceIdentity,
    key: RemoteKey?,
    owner: NamespaceIdentity? = nil,
    keyBitCount: Int = 128,
    blocksPerChunk: Int? = nil
  ) {
    guard key != nil || identity.salt.isEmpty else { return nil }
    var identity = identity
    if identity.sideSection != nil, !identity.salt.isEmpty {
      guard let owner, let key else { return nil }
      identity.sideSection?.ownerDigest = SHA256.hash(owner.encoded(saltKey: key.saltKey))
    }
    self.identity = identity
    self.key = key
    record = identity.encoded(saltKey: key?.saltKey ?? [])
    recordDigest = SHA256.hash(record)
    chain = KeyChain(
      rootKey: unsafe record.withUnsafeBytes { xxh3Key($0) },
      identityMode: identity.identityMode,
      wordsPerBlock: identity.wordsPerBlock,
      keyBitCount: keyBitCount
    )
    // A section is the first block of a path of its own.
    self.blocksPerChunk =
      identity.sideSection != nil
      ? 1 : blocksPerChunk ?? Self.blocksPerChunk(blockByteCount: identity.payloadByteCountMax)
    name = Self.hexadecimal(key?.name(recordDigest) ?? Array(recordDigest.prefix(16)))
  }

  /// Blocks of a chunk: the power of two, 64 at most, whose payload is nearest to 4 MiB in the scale of powers.
  ///
  /// Measured on Valkey and Redis, objects of 2 to 4 MiB move fastest, and half and twice as much is as good as that.
  package static func blocksPerChunk(blockByteCount: Int) -> Int {
    // 4 MiB times the square root of two.
    let byteCountMax = 5_931_641
    var count = 1
    while count < 64, count * 2 * max(1, blockByteCount) <= byteCountMax { count *= 2 }
    return count
  }

  // MARK: Chunks of a path

  /// How many blocks the chunk has that ends with a path's first `blockCount` blocks: each end has one chunk, so a name means one object.
  ///
  /// A whole chunk where whole ones end, and else a part of one, as long as it can be aligned.
  package func blocksOfChunk(endingAfter blockCount: Int) -> Int {
    blockCount > 0 ? min(blocksPerChunk, 1 << blockCount.trailingZeroBitCount) : 0
  }

  /// The chunks of a path's first `blockCount` blocks, each as a range of blocks: whole ones, then ever shorter parts of one.
  ///
  /// Those without a block behind the first `stored` ones are left out.
  package func chunks(after stored: Int, through blockCount: Int) -> [Range<Int>] {
    var chunks: [Range<Int>] = []
    var first = stored / blocksPerChunk * blocksPerChunk
    while first < blockCount {
      var count = blocksPerChunk
      while count > blockCount - first { count /= 2 }
      if first + count > stored { chunks.append(first..<first + count) }
      first += count
    }
    return chunks
  }

  // MARK: Names

  /// Of the object with the identity record.
  package var recordName: RemoteName { RemoteName("kv1:\(name):id") }

  /// What the names of its objects begin with.
  package var prefix: RemoteName { RemoteName("kv1:\(name):") }

  /// Of the chunk that ends with a block.
  package func chunkName(_ lastBlockKey: BlockKey) -> RemoteName {
    guard let key else { return RemoteName("kv1:\(name):\(lastBlockKey.hexadecimal)") }
    var message = ByteWriter(capacity: 48)
    message.append(contentsOf: recordDigest)
    message.append(lastBlockKey)
    return RemoteName("kv1:\(name):\(Self.hexadecimal(key.name(message.bytes)))")
  }

  /// The largest that a chunk can be.
  package var chunkByteCountMax: Int {
    let block =
      ChunkFormat.blockByteCount(
        regionCount: identity.regionByteCounts.count,
        wordsPerBlock: identity.wordsPerBlock
      ) + identity.extraByteCountMax + identity.payloadByteCountMax
    return ChunkFormat.fixedByteCount + blocksPerChunk * block + ChunkFormat.checksumByteCount
      + ChunkFormat.codeByteCount
  }

  private static func hexadecimal(_ bytes: [UInt8]) -> String {
    bytes.reduce(into: "") { $0 += hexadecimalText(UInt64($1), digitCount: 2) }
  }
}
