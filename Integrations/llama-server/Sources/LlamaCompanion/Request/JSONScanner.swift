/// Steps over JSON text and checks it on the way.
struct JSONScanner {
  let bytes: [UInt8]
  var index = 0
  private static let depthMax = 512

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  private var current: UInt8? { index < bytes.count ? bytes[index] : nil }

  mutating func skipSpace() {
    while index < bytes.count {
      switch bytes[index] {
      case 0x20, 0x0A, 0x0D, 0x09: index += 1
      default: return
      }
    }
  }

  mutating func skipString() -> Bool {
    guard current == UInt8(ascii: "\"") else { return false }
    index += 1
    while index < bytes.count {
      let byte = bytes[index]
      index += 1
      if byte == UInt8(ascii: "\"") { return true }
      if byte < 0x20 { return false }
      guard byte == UInt8(ascii: "\\") else { continue }
      guard let escape = current else { return false }
      index += 1
      switch escape {
      case UInt8(ascii: "u"):
        guard index + 4 <= bytes.count else { return false }
        for digit in bytes[index..<index + 4] {
          guard (48...57).contains(digit) || (65...70).contains(digit) || (97...102).contains(digit)
          else {
            return false
          }
        }
        index += 4
      case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"),
        UInt8(ascii: "f"), UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"):
        continue
      default: return false
      }
    }
    return false
  }

  private mutating func skipNumber() -> Bool {
    let start = index
    if current == UInt8(ascii: "-") { index += 1 }
    guard let digit = current, (48...57).contains(digit) else { return false }
    while let byte = current, (48...57).contains(byte) { index += 1 }
    // An integer, as nearly all are: thousands of token ids.
    guard let next = current,
      [UInt8(ascii: "."), UInt8(ascii: "e"), UInt8(ascii: "E")].contains(next)
    else {
      return true
    }
    while let byte = current, (48...57).contains(byte) || ".eE+-".utf8.contains(byte) { index += 1 }
    return Double(String(decoding: bytes[start..<index], as: UTF8.self)) != nil
  }

  private mutating func skip(_ word: StaticString) -> Bool {
    let count = word.utf8CodeUnitCount
    guard index + count <= bytes.count else { return false }
    for offset in 0..<count where bytes[index + offset] != word.utf8Start[offset] { return false }
    index += count
    return true
  }

  /// Steps over one value, without recursion: hostile text may nest as deep as it likes.
  mutating func skipValue() -> Bool {
    var open: [UInt8] = []
    while true {
      skipSpace()
      guard let byte = current else { return false }
      var isOpened = false
      switch byte {
      case UInt8(ascii: "{"):
        guard open.count < Self.depthMax else { return false }
        index += 1
        skipSpace()
        if current == UInt8(ascii: "}") {
          index += 1
        } else {
          open.append(byte)
          guard skipName() else { return false }
          isOpened = true
        }
      case UInt8(ascii: "["):
        guard open.count < Self.depthMax else { return false }
        index += 1
        skipSpace()
        if current == UInt8(ascii: "]") {
          index += 1
        } else {
          open.append(byte)
          isOpened = true
        }
      case UInt8(ascii: "\""): guard skipString() else { return false }
      case UInt8(ascii: "t"): guard skip("true") else { return false }
      case UInt8(ascii: "f"): guard skip("false") else { return false }
      case UInt8(ascii: "n"): guard skip("null") else { return false }
      default: guard skipNumber() else { return false }
      }
      if isOpened { continue }
      // A value has ended: so may what it is in.
      while true {
        guard let container = open.last else { return true }
        skipSpace()
        guard let byte = current else { return false }
        index += 1
        if byte == UInt8(ascii: ",") {
          if container == UInt8(ascii: "{") {
            skipSpace()
            guard skipName() else { return false }
          }
          break
        }
        guard byte == (container == UInt8(ascii: "{") ? UInt8(ascii: "}") : UInt8(ascii: "]"))
        else {
          return false
        }
        open.removeLast()
      }
    }
  }

  /// A member's name and the colon after it.
  private mutating func skipName() -> Bool {
    guard skipString() else { return false }
    skipSpace()
    guard current == UInt8(ascii: ":") else { return false }
    index += 1
    return true
  }
}
