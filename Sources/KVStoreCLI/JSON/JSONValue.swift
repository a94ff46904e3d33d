/// A JSON value, with the members of objects in the order in which they were declared.
enum JSONValue {
  case null
  case bool(Bool)
  /// As it is written.
  case number(String)
  case string(String)
  case array([JSONValue])
  case object([(name: String, value: JSONValue)])

  init(encoding value: some Encodable) throws {
    self = try JSONEncoding.value(value, path: [])
  }

  /// Shortest, and read back as the same number; JSON has no infinity and no NaN.
  init(_ number: Double) {
    guard number.isFinite else {
      self = .null
      return
    }
    let text = "\(number)"
    self = .number(text.hasSuffix(".0") ? String(text.dropLast(2)) : text)
  }

  func text(isPretty: Bool) -> String {
    var bytes: [UInt8] = []
    write(to: &bytes, indent: isPretty ? 0 : nil)
    return String(decoding: bytes, as: UTF8.self)
  }

  private var isPlain: Bool {
    switch self {
    case .array, .object: false
    default: true
    }
  }

  /// With `indent` on lines of its own, as deep; nil: in one line.
  private func write(to bytes: inout [UInt8], indent: Int?) {
    switch self {
    case .null: bytes += "null".utf8
    case .bool(let value): bytes += (value ? "true" : "false").utf8
    case .number(let text): bytes += text.utf8
    case .string(let text): Self.write(text, to: &bytes)
    case .array(let values):
      // A list of numbers stays in one line.
      let inner = values.allSatisfy(\.isPlain) ? nil : indent.map { $0 + 2 }
      bytes += "[".utf8
      for (index, value) in values.enumerated() {
        if index > 0 { bytes += (inner == nil && indent != nil ? ", " : ",").utf8 }
        Self.breakLine(&bytes, inner)
        value.write(to: &bytes, indent: inner)
      }
      if inner != nil { Self.breakLine(&bytes, indent) }
      bytes += "]".utf8
    case .object(let members):
      let inner = members.isEmpty ? nil : indent.map { $0 + 2 }
      bytes += "{".utf8
      for (index, member) in members.enumerated() {
        if index > 0 { bytes += ",".utf8 }
        Self.breakLine(&bytes, inner)
        Self.write(member.name, to: &bytes)
        bytes += (inner == nil ? ":" : ": ").utf8
        member.value.write(to: &bytes, indent: inner)
      }
      if inner != nil { Self.breakLine(&bytes, indent) }
      bytes += "}".utf8
    }
  }

  private static func breakLine(_ bytes: inout [UInt8], _ indent: Int?) {
    guard let indent else { return }
    bytes += "\n".utf8
    bytes += repeatElement(UInt8(ascii: " "), count: indent)
  }

  private static func write(_ text: String, to bytes: inout [UInt8]) {
    bytes.append(UInt8(ascii: "\""))
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"): bytes += [UInt8(ascii: "\\"), byte]
      case 10: bytes += #"\n"#.utf8
      case 13: bytes += #"\r"#.utf8
      case 9: bytes += #"\t"#.utf8
      case ..<32, 127: bytes += "\\u00\(hexadecimal([byte]))".utf8
      default: bytes.append(byte)
      }
    }
    bytes.append(UInt8(ascii: "\""))
  }
}
