import KVCore
import KVRedis
import KVRemote

/// A namespace of a few chunks, for `kvstore remote verify`.
enum Chunks {
  /// Writes the record and so many chunks of a namespace.
  static func put(
    _ count: Int,
    model: String,
    key: [UInt8]?,
    _ objects: RedisObjects,
    _ limit: UInt64
  ) throws(RemoteError) -> String {
    var identity = NamespaceIdentity()
    identity.modelName = model
    identity.tokensPerBlock = 2
    identity.regionByteCounts = [120, 40]
    guard let space = RemoteNamespace(identity, key: key.flatMap { RemoteKey($0) }) else {
      return "no namespace"
    }
    var names: [String] = []
    for number in 0..<count {
      let blocks = (0..<space.blocksPerChunk).map { index in
        let key = BlockKey(high: UInt64(index), low: UInt64(number))
        return ChunkWriter.Block(blockKey: key, words: [UInt32(number), UInt32(index)])
      }
      let digest = [UInt8](repeating: 5, count: 32)
      let writer = ChunkWriter(
        space,
        firstBlock: number * space.blocksPerChunk,
        parentKey: space.chain.rootKey,
        prefixDigest: digest,
        blocks
      )
      for index in blocks.indices {
        for region in 0..<2 {
          writer?.region(region, ofBlock: index).initializeMemory(
            as: UInt8.self,
            repeating: UInt8(index)
          )
        }
      }
      let counts = blocks.map { _ in [120, 40] }
      guard let bytes = writer?.seal(regionByteCounts: counts, endOfLife: 0, idleLife: 0) else {
        return "no chunk"
      }
      let name = space.chunkName(blocks[blocks.count - 1].blockKey)
      _ = try objects.putIfAbsent(
        name,
        pieces: [bytes],
        timeToLiveMilliseconds: 600_000,
        deadline: limit
      )
      names.append(name.text)
    }
    try space.record.span.withUnsafeBytes { (bytes) throws(RemoteError) in
      _ = try objects.putIfAbsent(
        space.recordName,
        pieces: [bytes],
        timeToLiveMilliseconds: nil,
        deadline: limit
      )
    }
    return ([space.recordName.text] + names).joined(separator: " ")
  }
}
