import Foundation
import KVCore
import Testing

/// The published vectors of docs/key-test-vectors.md.
@Suite struct KeyChainTests {
  static func keys(
    of identity: NamespaceIdentity,
    words: [UInt32],
    extra: [[UInt8]] = []
  ) -> [BlockKey] {
    let record = identity.encoded(saltKey: [])
    let root = record.withUnsafeBytes { xxh3Key($0) }
    let chain = KeyChain(
      rootKey: root,
      identityMode: identity.identityMode,
      wordsPerBlock: identity.wordsPerBlock
    )
    var parent = root
    return (0..<words.count / identity.wordsPerBlock).map { block in
      let blockExtra = block < extra.count ? extra[block] : []
      parent = words.withUnsafeBufferPointer { buffer in
        blockExtra.withUnsafeBytes { extraBytes in
          chain.key(
            after: parent,
            words: buffer.baseAddress.unsafelyUnwrapped + block * identity.wordsPerBlock,
            extra: extraBytes
          )
        }
      }
      return parent
    }
  }

  static func vectorIdentity() -> NamespaceIdentity {
    var identity = NamespaceIdentity()
    identity.tokensPerBlock = 4
    identity.regionByteCounts = [64, 64]
    identity.modelName = "vector"
    identity.kvDtype = "fp16"
    return identity
  }

  /// Computed by hand with python-xxhash 3.8 from docs/file-format.md alone.
  @Test func publishedVectors() throws {
    let vectors = try Self.publishedVectors()
    let identity = Self.vectorIdentity()
    let record = identity.encoded(saltKey: [])
    #expect(record.map { String(format: "%02x", $0) }.joined() == vectors["record"])
    #expect(record.withUnsafeBytes { xxh3Key($0) }.hexadecimal == vectors["root"])
    let keys = Self.keys(of: identity, words: [0, 1, 2, 3, 4, 5, 6, 7])
    #expect(keys.map(\.hexadecimal) == [vectors["tokens 0-3"], vectors["tokens 4-7"]])
    let withExtra = Self.keys(of: identity, words: [0, 1, 2, 3], extra: [[0xAA, 0xBB]])
    #expect(withExtra[0].hexadecimal == vectors["tokens 0-3, extra aabb"])
    var digestIdentity = identity
    digestIdentity.identityMode = .digest
    digestIdentity.digestByteCount = 32
    let digests = Self.keys(of: digestIdentity, words: Array(0..<16))
    #expect(digests.map(\.hexadecimal) == [vectors["digest 0-7"], vectors["digest 8-15"]])
  }

  private static func publishedVectors() throws -> [String: String] {
    let page = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "../../docs/key-test-vectors.md").standardized
    let text = try String(contentsOf: page, encoding: .utf8)
    var vectors: [String: String] = [:]
    for line in text.split(separator: "\n") where line.hasPrefix("| `") {
      let cells = line.split(separator: "|").map {
        $0.trimmingCharacters(in: CharacterSet(charactersIn: " `"))
      }
      vectors[cells[0]] = cells[1]
    }
    return vectors
  }

  /// With the processor's instructions and without, in pieces of any length.
  @Test(arguments: [true, false]) func sha256OfAMillionLetters(usesInstructions: Bool) {
    let letters = [UInt8](repeating: UInt8(ascii: "a"), count: 1_000_000)
    for pieceCount in [1, 7, 1000] {
      var hasher = SHA256()
      hasher.usesInstructions = usesInstructions
      for piece in 0..<pieceCount {
        let start = letters.count * piece / pieceCount
        let end = letters.count * (piece + 1) / pieceCount
        letters[start..<end].withUnsafeBytes { hasher.update($0) }
      }
      // FIPS 180-2, B.3.
      #expect(
        hasher.finished().map { String($0, radix: 16) }.joined()
          == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a49720" + "e46d39ccc7112cd0"
      )
    }
  }

  @Test func hashOfTheSaltIsHMACSHA256() {
    // RFC 4231, test case 2.
    let code = SHA256.authenticationCode(
      key: Array("Jefe".utf8),
      message: Array("what do ya want for nothing?".utf8)
    )
    #expect(
      code.map { String(format: "%02x", $0) }.joined()
        == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
    // FIPS 180-4, two blocks.
    let two = SHA256.hash(Array("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".utf8))
    #expect(
      two.map { String(format: "%02x", $0) }.joined()
        == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    )
    // In any pieces the same, around each boundary of a block.
    for count in 0...200 {
      let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7) }
      for cut in stride(from: 0, through: count, by: 9) {
        var hasher = SHA256()
        bytes[..<cut].withUnsafeBytes { hasher.update($0) }
        bytes[cut...].withUnsafeBytes { hasher.update($0) }
        #expect(hasher.finished() == SHA256.hash(bytes))
      }
    }
  }

  /// The vectors of docs/file-format.md, "Side sections".
  @Test func prefixDigests() {
    var digest = PrefixDigest()
    func append(_ words: [UInt32], _ extra: [UInt8]) -> String {
      words.withUnsafeBytes { words in
        extra.withUnsafeBytes { digest.append(words: words, extra: $0) }
      }
      return digest.bytes.map { String(format: "%02x", $0) }.joined()
    }
    #expect(
      append([1, 2, 3, 4], [])
        == "2c749102af8952fbbed5fe95192883a4153e80448eb125c01a8b2961c0b266e9"
    )
    #expect(
      append([5, 6, 7, 8], Array("ab".utf8))
        == "79d2ca5cffe16a4aa59e46383785d0764ebed0c0cfa784b7b6ebbe6ab9a602b3"
    )
  }
}
