import FoundationEssentials
import KVCore

/// A record of `kvstore.agent`, as the Python package lays it out (Integrations/python/src/kvstore/agent/blocks.py).
struct AgentRecord {
  /// Unix time.
  let storedNanoseconds: UInt64
  /// What is noted with the value: JSON, or nothing.
  private let meta: [UInt8]
  /// The value, where it lies beside that as it is.
  let content: [UInt8]?
  /// Where the pieces of the value are, if it is cut.
  let pieces: (digests: [UInt8], areLarge: Bool)?

  private static let headByteCount = 64

  init?(_ payload: [UInt8]) {
    guard payload.count >= Self.headByteCount, payload.starts(with: Array("kva1".utf8)) else {
      return nil
    }
    func number(_ offset: Int, _ byteCount: Int) -> UInt64 {
      (0..<byteCount).reduce(0) { $0 | UInt64(payload[offset + $1]) << (8 * UInt64($1)) }
    }
    let metaEnd = Self.headByteCount + Int(number(6, 2))
    guard metaEnd <= payload.count else { return nil }
    storedNanoseconds = number(8, 8)
    meta = Array(payload[Self.headByteCount..<metaEnd])
    // Neither compressed nor in pieces.
    content = payload[5] == 0 ? Array(payload[metaEnd...]) : nil
    // Compressed or not.
    let place = payload[5] & ~16
    pieces = place == 0 ? nil : (Array(payload[metaEnd...]), place == 2)
  }

  /// A record as it is stored: no pieces, not compressed.
  static func encoded(content: [UInt8], storedNanoseconds: UInt64) -> [UInt8] {
    func bytes(_ number: UInt64) -> [UInt8] { (0..<8).map { UInt8(number >> (8 * $0) & 0xff) } }
    // JSON, beside the head, with nothing noted.
    let head = Array("kva1".utf8) + [1, 0, 0, 0] + bytes(storedNanoseconds) + bytes(0)
    return head + bytes(UInt64(content.count)) + SHA256.hash(content) + content
  }

  func meta<Value: Decodable>(_ type: Value.Type) -> Value? {
    try? JSONDecoder().decode(type, from: Data(meta))
  }

  func content<Value: Decodable>(_ type: Value.Type) -> Value? {
    content.flatMap { try? JSONDecoder().decode(type, from: Data($0)) }
  }
}

/// The digests that records of `kvstore.agent` are found by (lists.py, run.py).
enum AgentKey {
  /// SHA-256 of canonical JSON; the members are in order.
  static func digest(_ members: KeyValuePairs<String, String>) -> [UInt8] {
    let text = members.map { "\(quoted($0.key)):\($0.value)" }.joined(separator: ",")
    return SHA256.hash(Array("{\(text)}".utf8))
  }

  /// Text as canonical JSON writes it.
  static func quoted(_ text: String?) -> String {
    guard let text else { return "null" }
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": result += "\\\""
      case "\\": result += "\\\\"
      case "\u{08}": result += "\\b"
      case "\t": result += "\\t"
      case "\n": result += "\\n"
      case "\u{0C}": result += "\\f"
      case "\r": result += "\\r"
      case "\u{00}"..<"\u{20}":
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }

  static let listPageCount = 256

  /// The digests of one page of a list.
  static func page(_ page: Int, ofList key: [UInt8]) -> [[UInt8]] {
    var digests = [SHA256.hash(Array("list".utf8) + key + bigEndian(page))]
    while digests.count < listPageCount { digests.append(SHA256.hash(digests[digests.count - 1])) }
    return digests
  }

  /// The digests of a run's first steps; `segments` are the labels of its branches, and the step at which each is left.
  static func steps(_ segments: [(label: [UInt8], end: Int?)], count: Int) -> [[UInt8]] {
    var last = digest(["kvstore.agent": quoted("steps")])
    var digests: [[UInt8]] = []
    for number in 1...max(1, count) {
      guard let segment = segments.first(where: { $0.end.map { number <= $0 } ?? true }) else {
        break
      }
      last = SHA256.hash(segment.label + last + bigEndian(number))
      digests.append(last)
    }
    return digests
  }

  /// A digest, or several side by side, as the words of a prompt.
  static func words(_ digests: [UInt8]) -> [UInt32] {
    stride(from: 0, to: digests.count - 3, by: 4).map { at in
      digests[at..<at + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
  }

  static func bytes(hexadecimal text: String) -> [UInt8] {
    let digits = text.utf8.compactMap { Character(UnicodeScalar($0)).hexDigitValue }
    return stride(from: 0, to: digits.count - 1, by: 2).map {
      UInt8(digits[$0] << 4 | digits[$0 + 1])
    }
  }

  static func hexadecimal(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef".utf8)
    let text = bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
    return String(decoding: text, as: UTF8.self)
  }

  static func bigEndian(_ number: Int) -> [UInt8] {
    (0..<8).map { UInt8(truncatingIfNeeded: number >> (56 - 8 * $0)) }
  }
}
