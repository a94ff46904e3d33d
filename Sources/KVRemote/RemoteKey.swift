internal import KVCore

/// What the machines of one remote tier share: who has it can name, make and check the chunks of all of them.
///
/// Three keys are derived from it (HMAC-SHA256 of a label), so that none of them tells another.
package struct RemoteKey: Sendable {
  /// The least that a key file holds; less is not a key but a password.
  package static let byteCountMin = 32
  package static let byteCountMax = 4096

  private let nameKey: [UInt8]
  private let codeKey: [UInt8]
  /// What salts are digested with.
  let saltKey: [UInt8]

  /// The contents of a key file, without the end of its line; nil when they are too short or too long.
  package init?(_ contents: [UInt8]) {
    var key = contents[...]
    while let last = key.last, last == 10 || last == 13 { key.removeLast() }
    guard (Self.byteCountMin...Self.byteCountMax).contains(key.count) else { return nil }
    let bytes = Array(key)
    nameKey = Self.derive(bytes, "kvstore remote 1: names")
    codeKey = Self.derive(bytes, "kvstore remote 1: chunks")
    saltKey = Self.derive(bytes, "kvstore remote 1: salts")
  }

  private static func derive(_ key: [UInt8], _ label: String) -> [UInt8] {
    SHA256.authenticationCode(key: key, message: Array(label.utf8))
  }

  /// 16 bytes that tell nothing of the message to who has not the key.
  func name(_ message: [UInt8]) -> [UInt8] {
    Array(SHA256.authenticationCode(key: nameKey, message: message).prefix(16))
  }

  /// HMAC-SHA256 of a chunk's bytes before its code, 32 bytes.
  func code(of bytes: UnsafeRawBufferPointer) -> [UInt8] {
    // RFC 2104; the key has 32 bytes, less than SHA-256's chunk of 64.
    let padded = codeKey + [UInt8](repeating: 0, count: 64 - codeKey.count)
    var inner = SHA256()
    var outer = SHA256()
    unsafe padded.map { $0 ^ 0x36 }.withUnsafeBytes { unsafe inner.update($0) }
    unsafe padded.map { $0 ^ 0x5c }.withUnsafeBytes { unsafe outer.update($0) }
    unsafe inner.update(bytes)
    unsafe inner.finished().withUnsafeBytes { unsafe outer.update($0) }
    return outer.finished()
  }

  /// Whether a chunk's code is right; takes as long whichever byte is wrong.
  func codeMatches(_ code: UnsafeRawBufferPointer, of bytes: UnsafeRawBufferPointer) -> Bool {
    let right = unsafe self.code(of: bytes)
    guard code.count == right.count else { return false }
    var difference: UInt8 = 0
    for index in right.indices { unsafe difference |= right[index] ^ code[index] }
    return difference == 0
  }
}
