import KVCodec
import KVCore
import KVRemote

/// A chunk of a remote tier, from bytes that anybody may have put there.
enum ChunkFuzzer {
  /// As it is, and with the checksums that belong to its header and to its regions: their maker knows them.
  static func run(_ bytes: [UInt8]) {
    for isSealed in [false, true] {
      // Of exactly this length, so that a byte beyond is seen by a sanitizer.
      let object = isSealed ? sealed(bytes) : bytes
      let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: object.count, alignment: 1)
      defer { unsafe copy.deallocate() }
      unsafe copy.copyBytes(from: object)
      do throws(ChunkFlaw) {
        try parse(UnsafeRawBufferPointer(copy))
      } catch {
        FuzzTarget.keep(object.count)
      }
    }
  }

  private static func parse(_ bytes: UnsafeRawBufferPointer) throws(ChunkFlaw) {
    let view = try unsafe ChunkView(bytes)
    var sum = view.firstBlock ^ Int(truncatingIfNeeded: view.endOfLife ^ view.idleLife)
    for block in view.blocks {
      unsafe sum ^= view.words(of: block).reduce(0) { $0 &+ Int($1) }
      unsafe sum ^= view.extra(of: block).reduce(0) { $0 &+ Int($1) }
    }
    FuzzTarget.keep(sum)
    for namespace in namespaces {
      do throws(ChunkFlaw) {
        try view.check(namespace, blocks: view.range, now: 1)
      } catch {
        FuzzTarget.keep(sum)
      }
    }
    try view.checkPayload()
    guard let decoder = FrameDecoder() else { return }
    for block in view.blocks where block.rawByteCount <= 1 << 20 {
      let target = UnsafeMutableRawBufferPointer.allocate(
        byteCount: block.rawByteCount,
        alignment: 1
      )
      defer { unsafe target.deallocate() }
      try unsafe view.decode(block, decoder, into: target)
    }
  }

  /// With the right checksums, as far as it is laid out as a chunk.
  private static func sealed(_ object: [UInt8]) -> [UInt8] {
    var bytes = object
    func integer(_ offset: Int, _ count: Int = 4) -> Int {
      guard offset >= 0, offset + count <= bytes.count else { return 0 }
      return Int(
        truncatingIfNeeded: bytes[offset..<offset + count].reversed()
          .reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
      )
    }
    func put(_ value: UInt64, _ offset: Int) {
      guard offset >= 0, offset + 8 <= bytes.count else { return }
      for byte in 0..<8 {
        bytes[offset + byte] = UInt8(truncatingIfNeeded: value >> UInt64(8 * byte))
      }
    }
    func checksum(_ range: Range<Int>) -> UInt64 {
      bytes[range].withUnsafeBytes { xxh3Checksum($0) }
    }
    put(UInt64(bytes.count), 16)
    let headerByteCount = integer(24)
    guard headerByteCount >= 168, headerByteCount <= bytes.count else { return bytes }
    let regionCount = min(integer(36), 64)
    var entry = 160
    for _ in 0..<min(integer(32), 64) {
      guard entry + 40 + 16 * regionCount <= headerByteCount else { break }
      var offset = integer(entry + 24, 8)
      for region in 0..<regionCount {
        let stored = integer(entry + 40 + 16 * region + 4)
        guard offset >= 0, offset <= bytes.count, stored <= bytes.count - offset else { break }
        put(checksum(offset..<offset + stored), entry + 40 + 16 * region + 8)
        offset += stored
      }
      let (next, overflow) = (entry + 40 + 16 * regionCount)
        .addingReportingOverflow(4 * min(integer(40), 1 << 20) + min(integer(entry + 20), 1 << 20))
      guard !overflow else { break }
      entry = next
    }
    put(checksum(0..<headerByteCount - 8), headerByteCount - 8)
    return bytes
  }

  private static let namespaces: [RemoteNamespace] = [
    nil, RemoteKey([UInt8](repeating: 7, count: 32)),
  ]
  .compactMap { RemoteNamespace(identity, key: $0) }

  private static var identity: NamespaceIdentity {
    var identity = NamespaceIdentity()
    identity.tokensPerBlock = 2
    // The smallest chunks that there are: two blocks.
    identity.regionByteCounts = [2 << 20]
    identity.regionsAreVariable = true
    identity.extraByteCountMax = 4
    return identity
  }

  /// Chunks of each namespace, raw and in frames, with and without lives and extra bytes.
  static var seeds: [[UInt8]] {
    var objects: [[UInt8]] = []
    for namespace in namespaces {
      for (isEncoded, chunk, length) in [
        (false, 0, 40), (true, 1, 256), (false, 3, 0), (true, 0, 64),
      ] {
        if let object = object(namespace, chunk, length, isEncoded: isEncoded) {
          objects.append(object)
        }
      }
    }
    return objects
  }

  private static func object(
    _ namespace: RemoteNamespace,
    _ chunk: Int,
    _ length: Int,
    isEncoded: Bool
  ) -> [UInt8]? {
    let count = namespace.blocksPerChunk
    let blocks = (0..<count).map { index in
      ChunkWriter.Block(
        blockKey: BlockKey(high: UInt64(index), low: UInt64(chunk)),
        words: [UInt32(index), 9],
        extra: [UInt8](repeating: 5, count: index * 3)
      )
    }
    let writer = ChunkWriter(
      namespace,
      firstBlock: chunk * count,
      parentKey: namespace.chain.rootKey,
      prefixDigest: [UInt8](repeating: 3, count: 32),
      blocks
    )
    guard let writer else { return nil }
    for index in 0..<count {
      let memory = unsafe writer.region(0, ofBlock: index)
      for place in 0..<length { unsafe memory[place] = place % 2 == 1 ? 0x3F : UInt8(place) }
    }
    let sealed = unsafe writer.seal(
      regionByteCounts: [[Int]](repeating: [length], count: count),
      endOfLife: chunk == 0 ? 0 : 1 << 60,
      idleLife: UInt64(chunk),
      encodedAs: isEncoded ? PayloadFormat(elementType: .bf16, rowByteCount: 16) : nil
    )
    return withExtendedLifetime(writer) { unsafe sealed.map { unsafe Array($0) } }
  }
}
