/// A piece of JSON text that was checked: reads what is needed, keeps everything else as it was written.
///
/// Requests are passed on byte for byte, so nothing is decoded and encoded again.
struct JSON: Sendable {
  let bytes: [UInt8]
  let range: Range<Int>

  /// Nil when the text is not exactly one JSON value, or nested deeper than 512.
  init?(_ bytes: [UInt8]) {
    var scanner = JSONScanner(bytes)
    scanner.skipSpace()
    let start = scanner.index
    guard scanner.skipValue() else { return nil }
    let end = scanner.index
    scanner.skipSpace()
    guard scanner.index == bytes.count else { return nil }
    self.bytes = bytes
    range = start..<end
  }

  private init(_ bytes: [UInt8], _ range: Range<Int>) {
    self.bytes = bytes
    self.range = range
  }

  private var first: UInt8 { bytes[range.lowerBound] }
  var isObject: Bool { first == UInt8(ascii: "{") }
  var isArray: Bool { first == UInt8(ascii: "[") }
  var isString: Bool { first == UInt8(ascii: "\"") }
  var isNull: Bool { first == UInt8(ascii: "n") }
  var bool: Bool? { first == UInt8(ascii: "t") ? true : first == UInt8(ascii: "f") ? false : nil }
  /// As it was written.
  var raw: ArraySlice<UInt8> { bytes[range] }
  var text: String { String(decoding: raw, as: UTF8.self) }
  var double: Double? {
    first == UInt8(ascii: "-") || (48...57).contains(first) ? Double(text) : nil
  }
  var int: Int? { double.flatMap { Int(exactly: $0.rounded(.towardZero)) } }

  /// The last member of that name: where a name is given twice, the server takes the last.
  subscript(name: String) -> JSON? {
    var found: JSON?
    forEachMember { if $0 == name { found = $1 } }
    return found
  }

  func forEachMember(_ body: (String, JSON) -> Void) {
    guard isObject else { return }
    var scanner = JSONScanner(bytes)
    scanner.index = range.lowerBound + 1
    while true {
      scanner.skipSpace()
      guard bytes[scanner.index] != UInt8(ascii: "}") else { return }
      let start = scanner.index
      _ = scanner.skipString()
      let name = JSON(bytes, start..<scanner.index).string ?? ""
      scanner.skipSpace()
      scanner.index += 1
      scanner.skipSpace()
      let value = scanner.index
      _ = scanner.skipValue()
      body(name, JSON(bytes, value..<scanner.index))
      scanner.skipSpace()
      if bytes[scanner.index] == UInt8(ascii: ",") { scanner.index += 1 }
    }
  }

  /// The elements of an array; none of anything else.
  var elements: [JSON] {
    guard isArray else { return [] }
    var result: [JSON] = []
    var scanner = JSONScanner(bytes)
    scanner.index = range.lowerBound + 1
    while true {
      scanner.skipSpace()
      guard bytes[scanner.index] != UInt8(ascii: "]") else { return result }
      let start = scanner.index
      _ = scanner.skipValue()
      result.append(JSON(bytes, start..<scanner.index))
      scanner.skipSpace()
      if bytes[scanner.index] == UInt8(ascii: ",") { scanner.index += 1 }
    }
  }

  /// An array of token ids; nil when it is anything else.
  var tokens: [Int32]? {
    guard isArray else { return nil }
    var result: [Int32] = []
    result.reserveCapacity(range.count / 5)
    var value: Int64?
    for index in range.dropFirst() {
      switch bytes[index] {
      case let byte where (48...57).contains(byte):
        let sum = (value ?? 0) * 10 + Int64(byte - 48)
        guard sum <= Int64(Int32.max) else { return nil }
        value = sum
      case UInt8(ascii: ","), UInt8(ascii: "]"):
        if let value { result.append(Int32(value)) }
        value = nil
      case 0x20, 0x0A, 0x0D, 0x09: continue
      default: return nil
      }
    }
    return result
  }

  /// The text of a string, escapes resolved.
  var string: String? {
    guard isString else { return nil }
    let inside = bytes[range.lowerBound + 1..<range.upperBound - 1]
    guard inside.contains(UInt8(ascii: "\\")) else {
      return String(decoding: inside, as: UTF8.self)
    }
    var units: [UInt8] = []
    var index = inside.startIndex
    func hex(_ at: Int) -> UInt32? {
      guard at + 4 <= inside.endIndex else { return nil }
      return UInt32(String(decoding: inside[at..<at + 4], as: UTF8.self), radix: 16)
    }
    while index < inside.endIndex {
      let byte = inside[index]
      index += 1
      guard byte == UInt8(ascii: "\\") else {
        units.append(byte)
        continue
      }
      let escape = inside[index]
      index += 1
      switch escape {
      case UInt8(ascii: "n"): units.append(10)
      case UInt8(ascii: "t"): units.append(9)
      case UInt8(ascii: "r"): units.append(13)
      case UInt8(ascii: "b"): units.append(8)
      case UInt8(ascii: "f"): units.append(12)
      case UInt8(ascii: "u"):
        var code = hex(index) ?? 0xFFFD
        index += 4
        if (0xD800..<0xDC00).contains(code), index + 6 <= inside.endIndex,
          inside[index] == UInt8(ascii: "\\"), inside[index + 1] == UInt8(ascii: "u"),
          let low = hex(index + 2), (0xDC00..<0xE000).contains(low)
        {
          code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
          index += 6
        }
        units.append(contentsOf: Array(String(Unicode.Scalar(code) ?? "\u{FFFD}").utf8))
      default: units.append(escape)
      }
    }
    return String(decoding: units, as: UTF8.self)
  }

  /// Without blanks between its parts, strings escaped only where they must be: as the server writes it.
  var compact: String {
    if isObject {
      var members: [String] = []
      forEachMember { members.append("\(Self.quoted($0)):\($1.compact)") }
      return "{\(members.joined(separator: ","))}"
    }
    if isArray { return "[\(elements.map(\.compact).joined(separator: ","))]" }
    return string.map(Self.quoted) ?? text
  }

  /// This object with more members at its end, where they win over members of the same name.
  func adding(_ members: [(String, String)]) -> [UInt8] {
    var result = Array(bytes[range.dropLast()])
    var isEmpty = true
    forEachMember { _, _ in isEmpty = false }
    for (name, value) in members {
      if !isEmpty { result.append(UInt8(ascii: ",")) }
      isEmpty = false
      result.append(contentsOf: "\"\(name)\":\(value)".utf8)
    }
    result.append(UInt8(ascii: "}"))
    return result
  }

  /// `text` as a JSON string, quotes included.
  static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\r": result += "\\r"
      case "\t": result += "\\t"
      case "\u{8}": result += "\\b"
      case "\u{C}": result += "\\f"
      case let scalar where scalar.value < 0x20:
        let hex = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }

  /// A list of token ids.
  static func list(_ tokens: some Sequence<Int32>) -> String {
    var bytes: [UInt8] = [UInt8(ascii: "[")]
    for token in tokens {
      if bytes.count > 1 { bytes.append(UInt8(ascii: ",")) }
      bytes.append(contentsOf: String(token).utf8)
    }
    bytes.append(UInt8(ascii: "]"))
    return String(decoding: bytes, as: UTF8.self)
  }
}
