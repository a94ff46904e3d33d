/// Backslashes of JSON strings.
enum JSONEscapes {
  /// Appends the text of `range`, which the parser found sound.
  ///
  /// Half a surrogate pair becomes U+FFFD.
  static func decode(_ bytes: [UInt8], _ range: Range<Int>, into target: inout [UInt8]) {
    var at = range.lowerBound
    while at < range.upperBound {
      var plain = at
      while plain < range.upperBound, bytes[plain] != UInt8(ascii: "\\") { plain += 1 }
      if plain > at { target.append(contentsOf: bytes[at..<plain]) }
      at = plain
      guard at + 1 < range.upperBound else { return }
      let escaped = bytes[at + 1]
      at += 2
      switch escaped {
      case UInt8(ascii: "n"): target.append(10)
      case UInt8(ascii: "t"): target.append(9)
      case UInt8(ascii: "r"): target.append(13)
      case UInt8(ascii: "b"): target.append(8)
      case UInt8(ascii: "f"): target.append(12)
      case UInt8(ascii: "u"):
        var code = hexadecimal(bytes, at, range.upperBound)
        at = min(at + 4, range.upperBound)
        if (0xD800..<0xDC00).contains(code), at + 5 < range.upperBound,
          bytes[at] == UInt8(ascii: "\\"), bytes[at + 1] == UInt8(ascii: "u")
        {
          let low = hexadecimal(bytes, at + 2, range.upperBound)
          if (0xDC00..<0xE000).contains(low) {
            code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
            at += 6
          }
        }
        append(Unicode.Scalar(code) ?? "\u{FFFD}", to: &target)
      default: target.append(escaped)
      }
    }
  }

  private static func hexadecimal(_ bytes: [UInt8], _ start: Int, _ end: Int) -> UInt32 {
    var code: UInt32 = 0
    for at in start..<min(start + 4, end) { code = code << 4 | UInt32(digit(bytes[at]) ?? 0) }
    return code
  }

  /// The value of a hexadecimal digit.
  static func digit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
  }

  private static func append(_ scalar: Unicode.Scalar, to target: inout [UInt8]) {
    for unit in UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter { target.append(unit) }
  }

  /// A text as a JSON string, quotes included; what is no ASCII stays as it is.
  static func quoted(_ text: some Sequence<UInt8>) -> [UInt8] {
    var target: [UInt8] = [UInt8(ascii: "\"")]
    let digits = Array("0123456789abcdef".utf8)
    for byte in text {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"): target += [UInt8(ascii: "\\"), byte]
      case 10: target += Array("\\n".utf8)
      case 9: target += Array("\\t".utf8)
      case 13: target += Array("\\r".utf8)
      case 0..<0x20:
        target += Array("\\u00".utf8) + [digits[Int(byte >> 4)], digits[Int(byte & 15)]]
      default: target.append(byte)
      }
    }
    target.append(UInt8(ascii: "\""))
    return target
  }
}
