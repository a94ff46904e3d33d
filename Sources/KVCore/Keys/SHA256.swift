internal import CSHA256

/// SHA-256 (FIPS 180-4) and HMAC (RFC 2104): digests of tenants' salts and of the prefixes that side sections stand at.
///
/// XXH3 will not do there: its input can be computed back from its output. A cryptography package would bring Foundation
/// into the C library for these lines. Where the processor has instructions for it they are used: 0.5 s for each GB in place of 3.6. A value: a copy goes
/// on from where the original was.
package struct SHA256: Sendable {
  private var state: State = [
    0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab,
    0x5be0_cd19,
  ]
  /// The first `byteCount % 64` bytes wait to be compressed.
  private var pending = InlineArray<64, UInt8>(repeating: 0)
  private var byteCount: UInt64 = 0
  /// The processor's own; false for tests of what is done without.
  package var usesInstructions = true

  private typealias State = InlineArray<8, UInt32>

  /// Of no bytes yet.
  package init() {}

  package static func hash(_ message: [UInt8]) -> [UInt8] {
    var hasher = SHA256()
    unsafe message.withUnsafeBytes { unsafe hasher.update($0) }
    return hasher.finished()
  }

  /// HMAC-SHA256, 32 bytes.
  package static func authenticationCode(key: [UInt8], message: [UInt8]) -> [UInt8] {
    var blockKey = key.count > 64 ? hash(key) : key
    blockKey += [UInt8](repeating: 0, count: 64 - blockKey.count)
    let inner = hash(blockKey.map { $0 ^ 0x36 } + message)
    return hash(blockKey.map { $0 ^ 0x5c } + inner)
  }

  /// Goes on with these bytes.
  package mutating func update(_ bytes: UnsafeRawBufferPointer) {
    var offset = 0
    var index = Int(byteCount % 64)
    byteCount &+= UInt64(bytes.count)
    while offset < bytes.count {
      // Whole chunks are taken from where they are.
      if index == 0, bytes.count - offset >= 64 {
        let count = (bytes.count - offset) / 64 * 64
        unsafe compress(UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count]))
        offset += count
        continue
      }
      pending[index] = unsafe bytes[offset]
      offset += 1
      index += 1
      if index == 64 {
        compressPending()
        index = 0
      }
    }
  }

  /// Goes on with the text's UTF-8.
  package mutating func update(_ text: String) {
    var text = text
    text.withUTF8 { unsafe update(UnsafeRawBufferPointer($0)) }
  }

  /// The digest of all bytes so far, 32 bytes.
  package func finished() -> [UInt8] {
    var copy = self
    var index = Int(byteCount % 64)
    copy.pending[index] = 0x80
    index += 1
    if index > 56 {
      while index < 64 {
        copy.pending[index] = 0
        index += 1
      }
      copy.compressPending()
      index = 0
    }
    while index < 56 {
      copy.pending[index] = 0
      index += 1
    }
    let bitCount = byteCount &* 8
    for place in 0..<8 {
      copy.pending[56 + place] = UInt8(truncatingIfNeeded: bitCount >> UInt64(56 - place * 8))
    }
    copy.compressPending()
    var digest: [UInt8] = []
    digest.reserveCapacity(32)
    for index in 0..<8 {
      for shift: UInt32 in [24, 16, 8, 0] {
        digest.append(UInt8(truncatingIfNeeded: copy.state[index] >> shift))
      }
    }
    return digest
  }

  private mutating func compressPending() {
    let chunk = pending
    unsafe chunk.span.withUnsafeBytes { unsafe compress($0) }
  }

  /// Takes chunks of 64 bytes in.
  private mutating func compress(_ chunks: UnsafeRawBufferPointer) {
    if usesInstructions, let base = chunks.baseAddress {
      let isDone = unsafe withUnsafeMutableBytes(of: &state) { state in
        guard let words = unsafe state.baseAddress?.assumingMemoryBound(to: UInt32.self) else {
          return false
        }
        return unsafe csha256_compress(words, base, chunks.count / 64) != 0
      }
      if isDone { return }
    }
    for start in stride(from: 0, to: chunks.count, by: 64) {
      unsafe compressOne(UnsafeRawBufferPointer(rebasing: chunks[start..<start + 64]))
    }
  }

  private mutating func compressOne(_ chunk: UnsafeRawBufferPointer) {
    var w = InlineArray<64, UInt32>(repeating: 0)
    for i in 0..<16 {
      w[i] = unsafe chunk.loadUnaligned(fromByteOffset: i &* 4, as: UInt32.self).bigEndian
    }
    for i in 16..<64 {
      let (x, y) = (w[i &- 15], w[i &- 2])
      let s0 = rotate(x, 7) ^ rotate(x, 18) ^ x &>> 3
      let s1 = rotate(y, 17) ^ rotate(y, 19) ^ y &>> 10
      w[i] = w[i &- 16] &+ s0 &+ w[i &- 7] &+ s1
    }
    var (a, b, c, d) = (state[0], state[1], state[2], state[3])
    var (e, f, g, h) = (state[4], state[5], state[6], state[7])
    for i in 0..<64 {
      let s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)
      let t1 = h &+ s1 &+ (e & f ^ ~e & g) &+ roundConstants[i] &+ w[i]
      let s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)
      let t2 = s0 &+ (a & b ^ a & c ^ b & c)
      (h, g, f, e) = (g, f, e, d &+ t1)
      (d, c, b, a) = (c, b, a, t1 &+ t2)
    }
    let sums = [a, b, c, d, e, f, g, h] as InlineArray<8, UInt32>
    for i in 0..<8 { state[i] = state[i] &+ sums[i] }
  }
}

@inline(__always)
private func rotate(_ x: UInt32, _ n: UInt32) -> UInt32 { x &>> n | x &<< (32 &- n) }

private let roundConstants: InlineArray<64, UInt32> = [
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
]
