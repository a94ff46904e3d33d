import KVCodec
import KVCore
import KVRemote
import KVTestSupport
import Testing

/// A path of blocks of one identity, and chunks of it.
struct ChunkFixture {
  let namespace: RemoteNamespace
  /// Of the blocks, in order.
  var words: [[UInt32]] = []
  var extra: [[UInt8]] = []
  var payloads: [[[UInt8]]] = []

  /// - Parameters:
  ///   - key: what the machines share.
  ///   - blockCount: of the path.
  ///   - seed: of tokens and payloads.
  ///   - change: of the identity.
  /// - Throws: for an identity that stays local.
  init(
    key: [UInt8]? = nil,
    blockCount: Int,
    seed: UInt64 = 1,
    _ change: (inout NamespaceIdentity) -> Void = { _ in }
  ) throws {
    var identity = NamespaceIdentity()
    identity.modelName = "a model"
    identity.kvDtype = "bf16"
    identity.tokensPerBlock = 4
    // 64 KiB, so that a chunk has the most blocks; the tests narrow that by their own.
    identity.regionByteCounts = [512, 256, 256]
    identity.extraByteCountMax = 8
    change(&identity)
    let made = RemoteNamespace(identity, key: key.flatMap { RemoteKey($0) })
    namespace = try #require(made)
    var random = SeededGenerator(seed: seed)
    for index in 0..<blockCount {
      words.append(
        (0..<identity.wordsPerBlock).map { _ in .random(in: 0..<100_000, using: &random) }
      )
      extra.append(index % 3 == 1 ? [1, 2, UInt8(truncatingIfNeeded: index)] : [])
      payloads.append(
        identity.regionByteCounts.map { bound in
          let count =
            identity.regionsAreVariable
            ? Int.random(in: 0...min(bound, 600), using: &random) : bound
          return (0..<count).map { index in
            // Exponents that repeat, so that frames are shorter.
            index % 2 == 1 ? 0x3F : .random(in: 0...255, using: &random)
          }
        }
      )
    }
    chainKeys()
  }

  /// Keys of all blocks, from when they were last chained.
  private(set) var keys: [BlockKey] = []

  mutating func chainKeys() { keys = chainedKeys }

  private var chainedKeys: [BlockKey] {
    var keys: [BlockKey] = []
    for (words, extra) in zip(words, extra) {
      let key = words.withUnsafeBytes { words in
        extra.withUnsafeBytes { extra in
          words.baseAddress.map {
            namespace.chain.key(
              after: keys.last ?? namespace.chain.rootKey,
              words: $0,
              extra: extra
            )
          }
        }
      }
      if let key { keys.append(key) }
    }
    return keys
  }

  func parentKey(ofBlock block: Int) -> BlockKey {
    block == 0 ? namespace.chain.rootKey : keys[block - 1]
  }

  /// Of the path's first blocks.
  func prefixDigest(blockCount: Int) -> [UInt8] {
    var digest = PrefixDigest()
    for (words, extra) in zip(words.prefix(blockCount), extra) {
      words.withUnsafeBytes { words in
        extra.withUnsafeBytes { digest.append(words: words, extra: $0) }
      }
    }
    return digest.bytes
  }

  /// The object of a chunk.
  func object(
    _ chunk: Int,
    endOfLife: UInt64 = 0,
    idleLife: UInt64 = 0,
    isEncoded: Bool = false
  ) throws -> [UInt8] {
    let count = namespace.blocksPerChunk
    let blocks = chunk * count..<(chunk + 1) * count
    let made = ChunkWriter(
      namespace,
      firstBlock: blocks.lowerBound,
      parentKey: parentKey(ofBlock: blocks.lowerBound),
      prefixDigest: prefixDigest(blockCount: blocks.upperBound),
      blocks.map { .init(blockKey: keys[$0], words: words[$0], extra: extra[$0]) }
    )
    let writer = try #require(made)
    for (index, block) in blocks.enumerated() {
      for (region, bytes) in payloads[block].enumerated() {
        let memory = unsafe writer.region(region, ofBlock: index)
        unsafe memory.copyBytes(from: bytes)
      }
    }
    let sealed = unsafe writer.seal(
      regionByteCounts: blocks.map { payloads[$0].map(\.count) },
      endOfLife: endOfLife,
      idleLife: idleLife,
      encodedAs: isEncoded ? PayloadFormat(elementType: .bf16, rowByteCount: 64) : nil
    )
    let bytes = try #require(unsafe sealed)
    return withExtendedLifetime(writer) { unsafe Array(bytes) }
  }

  /// Takes an object for a chunk of the path, as who restores it does: its payloads, or the flaw.
  func read(_ object: [UInt8], chunk: Int, now: UInt64 = 1) throws(ChunkFlaw) -> [[UInt8]] {
    // Of exactly this length, so that a byte beyond is seen by a sanitizer.
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: object.count, alignment: 1)
    defer { unsafe copy.deallocate() }
    unsafe copy.copyBytes(from: object)
    let view = try unsafe ChunkView(UnsafeRawBufferPointer(copy))
    let first = chunk * namespace.blocksPerChunk
    let past = first + namespace.blocksPerChunk
    try view.check(namespace, blocks: first..<past, now: now)
    guard
      view.isOf(
        path: parentKey(ofBlock: first),
        prefixDigest: prefixDigest(blockCount: past)
      )
    else { throw .tokens }
    for (index, block) in (first..<past).enumerated() {
      let isRight = words[block].withUnsafeBytes { words in
        extra[block].withUnsafeBytes {
          unsafe view.isBlock(index, keys[block], words: words, extra: $0)
        }
      }
      guard isRight else { throw .tokens }
    }
    try view.checkPayload()
    guard let decoder = FrameDecoder() else { return [] }
    var payloads: [[UInt8]] = []
    for block in view.blocks {
      let target = UnsafeMutableRawBufferPointer.allocate(
        byteCount: block.rawByteCount,
        alignment: 1
      )
      defer { unsafe target.deallocate() }
      try unsafe view.decode(block, decoder, into: target)
      unsafe payloads.append(Array(target))
    }
    return payloads
  }
}
