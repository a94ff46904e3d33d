import KVCodec
import KVCore
import KVRemote
import KVTestSupport
import Testing

/// Chunks as they are made and taken; the format is in docs/remote-format.md.
@Suite struct ChunkTests {
  private static let key = [UInt8](repeating: 7, count: 32)

  /// Small chunks, so that every byte of one can be changed.
  private func small(
    key: [UInt8]? = nil,
    seed: UInt64 = 1,
    _ change: (inout NamespaceIdentity) -> Void = { _ in }
  ) throws -> ChunkFixture {
    try ChunkFixture(key: key, blockCount: 128, seed: seed) { identity in
      identity.regionByteCounts = [24, 8]
      identity.tokensPerBlock = 2
      change(&identity)
    }
  }

  /// Each end of a path has one chunk, and these cover the path.
  @Test func partsOfChunksHaveOnePlaceEach() throws {
    let path = try small()
    let size = path.namespace.blocksPerChunk
    #expect(size == 64)
    var places: [Int: Range<Int>] = [:]
    for end in 0...200 {
      let chunks = path.namespace.chunks(after: 0, through: end)
      #expect(chunks.reduce(0) { $0 == $1.lowerBound ? $1.upperBound : -1 } == end)
      for chunk in chunks {
        #expect(places[chunk.upperBound] ?? chunk == chunk)
        places[chunk.upperBound] = chunk
        #expect(chunk.lowerBound % chunk.count == 0)
        #expect(chunk.count == path.namespace.blocksOfChunk(endingAfter: chunk.upperBound))
      }
      #expect(chunks.count <= end / size + 6)
      let rest = path.namespace.chunks(after: 70, through: end)
      #expect(rest == chunks.filter { $0.upperBound > 70 && $0.lowerBound >= 64 })
    }
    #expect(path.namespace.blocksOfChunk(endingAfter: 0) == 0)
  }

  @Test func sectionsAreChunksOfOneBlock() throws {
    var owner = NamespaceIdentity()
    owner.tokensPerBlock = 4
    owner.regionByteCounts = [1000]
    func remote(_ salt: [UInt8], localKey: [UInt8], knowsOwner: Bool = true) -> RemoteNamespace? {
      owner.salt = salt
      let record = owner.encoded(saltKey: localKey)
      return RemoteNamespace(
        owner.ofSections(named: "state", byteCountMax: 100, record: record),
        key: RemoteKey(Self.key),
        owner: knowsOwner ? owner : nil
      )
    }
    let one = try #require(remote([], localKey: [1], knowsOwner: false))
    #expect(one.blocksPerChunk == 1)
    #expect(one.record == remote([], localKey: [2])?.record)
    // Each store knows its owner by another record; all machines know it by the same.
    let salted = try #require(remote([5], localKey: [1]))
    #expect(salted.record == remote([5], localKey: [2])?.record)
    #expect(salted.record != one.record)
    #expect(salted.record != remote([6], localKey: [1])?.record)
    #expect(remote([5], localKey: [1], knowsOwner: false) == nil)
  }

  @Test(arguments: [false, true], [nil, key])
  func whatWasPutInComesOut(isEncoded: Bool, key: [UInt8]?) throws {
    for isVariable in [false, true] {
      let path = try ChunkFixture(key: key, blockCount: 128) { $0.regionsAreVariable = isVariable }
      #expect(path.namespace.blocksPerChunk == 64)
      for chunk in 0..<2 {
        let object = try path.object(chunk, isEncoded: isEncoded)
        let rawByteCount = path.payloads[chunk * 64..<(chunk + 1) * 64].joined()
          .reduce(0) { $0 + $1.count }
        // One byte of two repeats: frames are shorter, which is what shows that there are any.
        if !isVariable { #expect((object.count < rawByteCount) == isEncoded) }
        #expect(object.count <= path.namespace.chunkByteCountMax)
        let payloads = try path.read(object, chunk: chunk)
        #expect(payloads == path.payloads[chunk * 64..<(chunk + 1) * 64].map { Array($0.joined()) })
      }
    }
  }

  @Test(arguments: [nil, key])
  func noFlippedBitPasses(key: [UInt8]?) throws {
    let path = try small(key: key)
    let object = try path.object(1)
    var random = SeededGenerator(seed: 3)
    // The fixed part whole, entries and payload at every seventh byte.
    for index in object.indices where index < 300 || index % 7 == 0 {
      var damaged = object
      damaged[index] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      #expect(throws: ChunkFlaw.self, "byte \(index)") { try path.read(damaged, chunk: 1) }
    }
  }

  @Test func noCutOrLongerObjectPasses() throws {
    let path = try small()
    let object = try path.object(0)
    for count in 0..<object.count where count < 300 || count % 13 == 0 {
      #expect(throws: ChunkFlaw.self) { try path.read(Array(object.prefix(count)), chunk: 0) }
    }
    #expect(throws: ChunkFlaw.length) { try path.read(object + [0], chunk: 0) }
    #expect(throws: ChunkFlaw.format) { try path.read([], chunk: 0) }
  }

  /// Whoever can write to a remote knows how to make the checksums fit.
  @Test func numbersThatLieDoNotPassUnderARightChecksum() throws {
    let path = try small()
    let object = try path.object(0)
    let headerByteCount = object[24..<28].reversed().reduce(0) { $0 << 8 | Int($1) }
    var random = SeededGenerator(seed: 5)
    var refusedCount = 0
    for _ in 0..<2000 {
      var changed = object
      let place = Int.random(in: 8..<headerByteCount - 8, using: &random) & ~3
      let value =
        [0, 1, 0x7FFF_FFFF, 0xFFFF_FFFF, UInt32.random(in: 0...UInt32.max, using: &random)]
        .randomElement(using: &random) ?? 0
      for byte in 0..<4 {
        changed[place + byte] = UInt8(truncatingIfNeeded: value >> UInt32(8 * byte))
      }
      changed = ChunkFixture.sealed(changed)
      // Tokens, keys and payload are right, or it is refused; the lives are all that may differ.
      do throws(ChunkFlaw) {
        let payloads = try path.read(changed, chunk: 0)
        #expect(payloads == path.payloads[..<64].map { Array($0.joined()) })
      } catch {
        refusedCount += 1
      }
    }
    #expect(refusedCount > 1500)
  }

  @Test func anotherPathsChunkIsNone() throws {
    let path = try small()
    let other = try small(seed: 2)
    #expect(throws: ChunkFlaw.identity) { try path.read(path.object(1), chunk: 0) }
    #expect(throws: ChunkFlaw.tokens) { try path.read(other.object(0), chunk: 0) }
    // The same chunk behind another one: its own tokens are right.
    var joined = other
    joined.words[64...] = path.words[64...]
    joined.extra[64...] = path.extra[64...]
    joined.chainKeys()
    #expect(throws: ChunkFlaw.tokens) { try path.read(joined.object(1), chunk: 1) }
    // Even if the keys before it collide.
    var object = try path.object(1)
    object[140] ^= 1
    #expect(throws: ChunkFlaw.tokens) { try path.read(ChunkFixture.sealed(object), chunk: 1) }
  }

  @Test func anotherModelsChunkIsNone() throws {
    let path = try small { $0.weightsDigest = [1] }
    let other = try small { $0.weightsDigest = [2] }
    #expect(path.namespace.prefix != other.namespace.prefix)
    #expect(throws: ChunkFlaw.identity) { try path.read(other.object(0), chunk: 0) }
  }

  @Test func whoHasNotTheKeyMakesNoChunk() throws {
    let path = try small(key: Self.key)
    let object = try path.object(0)
    _ = try path.read(object, chunk: 0)
    let stranger = try small(key: [UInt8](repeating: 8, count: 32))
    #expect(throws: ChunkFlaw.code) { try path.read(stranger.object(0), chunk: 0) }
    #expect(throws: ChunkFlaw.code) { try path.read(small().object(0), chunk: 0) }
    #expect(throws: ChunkFlaw.code) { try small().read(object, chunk: 0) }
    // The payload with its checksum, and the code as it was.
    var forged = object
    forged[forged.count - 40] ^= 1
    #expect(throws: ChunkFlaw.self) { try path.read(ChunkFixture.sealed(forged), chunk: 0) }
  }

  @Test func livesAreKept() throws {
    let path = try small()
    let object = try path.object(0, endOfLife: 1000, idleLife: 77)
    let lives = try object.span.withUnsafeBytes { (bytes) throws(ChunkFlaw) in
      let view = try ChunkView(bytes)
      return [view.endOfLife, view.idleLife]
    }
    #expect(lives == [1000, 77])
    _ = try path.read(object, chunk: 0, now: 1000)
    #expect(throws: ChunkFlaw.expired) { try path.read(object, chunk: 0, now: 1001) }
  }

  @Test func namesOfSaltedNamespacesTellNothing() throws {
    let salted = { (identity: inout NamespaceIdentity) in identity.salt = [1, 2, 3] }
    var identity = NamespaceIdentity()
    identity.regionByteCounts = [8]
    salted(&identity)
    #expect(RemoteNamespace(identity, key: nil) == nil)
    let path = try small(key: Self.key, salted)
    let same = try small(key: Self.key, salted)
    let other = try small(key: Self.key) { $0.salt = [4] }
    let open = try small(key: Self.key)
    let name = path.namespace.chunkName(path.keys[63])
    #expect(name == same.namespace.chunkName(same.keys[63]))
    #expect(!name.text.contains(path.keys[63].hexadecimal))
    for stranger in [other, open] {
      #expect(stranger.namespace.prefix != path.namespace.prefix)
      #expect(throws: ChunkFlaw.identity) { try stranger.read(path.object(0), chunk: 0) }
    }
    #expect(path.namespace.recordName.text.hasPrefix(path.namespace.prefix.text))
  }

  @Test func keysThatAreTooShortAreNone() {
    #expect(RemoteKey([UInt8](repeating: 1, count: 31)) == nil)
    #expect(RemoteKey([UInt8](repeating: 1, count: 31) + [10, 10]) == nil)
    #expect(RemoteKey([UInt8](repeating: 1, count: 32) + [13, 10]) != nil)
    #expect(RemoteKey([UInt8](repeating: 1, count: 5000)) == nil)
  }

  @Test(arguments: [(288 << 10, 16), (2 << 20, 2), (16 << 20, 1), (100, 64), (64 << 10, 64)])
  func chunksAreAboutFourMebibytes(blockByteCount: Int, blockCount: Int) {
    #expect(RemoteNamespace.blocksPerChunk(blockByteCount: blockByteCount) == blockCount)
  }
}

extension ChunkFixture {
  /// The header's checksum as it has to be.
  static func sealed(_ object: [UInt8]) -> [UInt8] {
    guard object.count >= 28 else { return object }
    let headerByteCount = object[24..<28].reversed().reduce(0) { $0 << 8 | Int($1) }
    guard (160 + 8...object.count).contains(headerByteCount) else { return object }
    var writer = ByteWriter()
    writer.append(object[..<(headerByteCount - 8)].withUnsafeBytes { xxh3Checksum($0) })
    var sealed = object
    sealed.replaceSubrange(headerByteCount - 8..<headerByteCount, with: writer.bytes)
    return sealed
  }
}
