/// SHA-256 (FIPS 180-4), which the caches of model files name their files by.
struct SHA256 {
  private var state: [UInt32] = [
    0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A,
    0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19,
  ]
  private var byteCount: UInt64 = 0
  /// What fills no chunk yet.
  private var pending: [UInt8] = []

  private static let chunkByteCount = 64

  /// Adds bytes behind those that were added before.
  mutating func add(_ bytes: UnsafeRawBufferPointer) {
    byteCount &+= UInt64(bytes.count)
    var rest = unsafe bytes[...]
    if !pending.isEmpty {
      let count = unsafe min(Self.chunkByteCount - pending.count, rest.count)
      unsafe pending.append(contentsOf: rest.prefix(count))
      unsafe rest = rest.dropFirst(count)
      guard pending.count == Self.chunkByteCount else { return }
      let whole = pending
      unsafe whole.withUnsafeBytes { unsafe Self.compress(&state, $0) }
      pending.removeAll(keepingCapacity: true)
    }
    let wholeByteCount = unsafe rest.count / Self.chunkByteCount * Self.chunkByteCount
    unsafe Self.compress(&state, UnsafeRawBufferPointer(rebasing: rest.prefix(wholeByteCount)))
    unsafe pending.append(contentsOf: rest.dropFirst(wholeByteCount))
  }

  /// Adds text.
  mutating func add(_ text: String) {
    var text = text
    text.withUTF8 { unsafe add(UnsafeRawBufferPointer($0)) }
  }

  /// The digest of what was added.
  func finished() -> [UInt8] {
    var state = state
    var tail = pending + [0x80]
    while tail.count % Self.chunkByteCount != 56 { tail.append(0) }
    let bitCount = byteCount &* 8
    tail += (0..<8).map { UInt8(truncatingIfNeeded: bitCount >> (56 - 8 * $0)) }
    unsafe tail.withUnsafeBytes { unsafe Self.compress(&state, $0) }
    return state.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (24 - 8 * $0)) }
    }
  }

  private static let constants: [UInt32] = [
    0x428A_2F98, 0x7137_4491, 0xB5C0_FBCF, 0xE9B5_DBA5, 0x3956_C25B, 0x59F1_11F1, 0x923F_82A4,
    0xAB1C_5ED5, 0xD807_AA98, 0x1283_5B01, 0x2431_85BE, 0x550C_7DC3, 0x72BE_5D74, 0x80DE_B1FE,
    0x9BDC_06A7, 0xC19B_F174, 0xE49B_69C1, 0xEFBE_4786, 0x0FC1_9DC6, 0x240C_A1CC, 0x2DE9_2C6F,
    0x4A74_84AA, 0x5CB0_A9DC, 0x76F9_88DA, 0x983E_5152, 0xA831_C66D, 0xB003_27C8, 0xBF59_7FC7,
    0xC6E0_0BF3, 0xD5A7_9147, 0x06CA_6351, 0x1429_2967, 0x27B7_0A85, 0x2E1B_2138, 0x4D2C_6DFC,
    0x5338_0D13, 0x650A_7354, 0x766A_0ABB, 0x81C2_C92E, 0x9272_2C85, 0xA2BF_E8A1, 0xA81A_664B,
    0xC24B_8B70, 0xC76C_51A3, 0xD192_E819, 0xD699_0624, 0xF40E_3585, 0x106A_A070, 0x19A4_C116,
    0x1E37_6C08, 0x2748_774C, 0x34B0_BCB5, 0x391C_0CB3, 0x4ED8_AA4A, 0x5B9C_CA4F, 0x682E_6FF3,
    0x748F_82EE, 0x78A5_636F, 0x84C8_7814, 0x8CC7_0208, 0x90BE_FFFA, 0xA450_6CEB, 0xBEF9_A3F7,
    0xC671_78F2,
  ]

  /// Takes whole chunks in.
  private static func compress(_ state: inout [UInt32], _ bytes: UnsafeRawBufferPointer) {
    unsafe withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 64) { words in
      unsafe constants.withUnsafeBufferPointer { constants in
        unsafe state.withUnsafeMutableBufferPointer { state in
          for chunk in stride(from: 0, to: bytes.count, by: chunkByteCount) {
            for index in 0..<16 {
              let word = unsafe bytes.loadUnaligned(
                fromByteOffset: chunk &+ 4 &* index,
                as: UInt32.self
              )
              unsafe words[index] = word.bigEndian
            }
            unsafe compress(state, words, constants)
          }
        }
      }
    }
  }

  @inline(__always)
  private static func rotated(_ word: UInt32, _ count: UInt32) -> UInt32 {
    word &>> count | word &<< (32 &- count)
  }

  /// One chunk: `words` holds its first 16, and has room for the 48 that follow from them.
  @inline(__always)
  private static func compress(
    _ state: UnsafeMutableBufferPointer<UInt32>,
    _ words: UnsafeMutableBufferPointer<UInt32>,
    _ constants: UnsafeBufferPointer<UInt32>
  ) {
    for index in 16..<64 {
      let (x, y) = unsafe (words[index &- 15], words[index &- 2])
      let first = rotated(x, 7) ^ rotated(x, 18) ^ x &>> 3
      let second = rotated(y, 17) ^ rotated(y, 19) ^ y &>> 10
      unsafe words[index] = words[index &- 16] &+ first &+ words[index &- 7] &+ second
    }
    var (a, b, c, d) = unsafe (state[0], state[1], state[2], state[3])
    var (e, f, g, h) = unsafe (state[4], state[5], state[6], state[7])
    for index in 0..<64 {
      let sum1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)
      let first = unsafe h &+ sum1 &+ (e & f ^ ~e & g) &+ constants[index] &+ words[index]
      let sum0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)
      let second = sum0 &+ (a & b ^ a & c ^ b & c)
      (h, g, f, e) = (g, f, e, d &+ first)
      (d, c, b, a) = (c, b, a, first &+ second)
    }
    unsafe (state[0], state[1]) = unsafe (state[0] &+ a, state[1] &+ b)
    unsafe (state[2], state[3]) = unsafe (state[2] &+ c, state[3] &+ d)
    unsafe (state[4], state[5]) = unsafe (state[4] &+ e, state[5] &+ f)
    unsafe (state[6], state[7]) = unsafe (state[6] &+ g, state[7] &+ h)
  }
}
