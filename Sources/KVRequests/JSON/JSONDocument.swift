/// A JSON text as a flat list of nodes that know where they stand; nothing is copied or decoded before it is asked for.
///
/// Children follow their container, each key before its value; `next` leads past a node and all below it:
///
///     {"a": [1, 2]}   →   0 object   1 string "a"   2 array   3 number   4 number
public struct JSONDocument: Sendable {
  /// The text.
  public let bytes: [UInt8]
  let nodes: [JSONNode]

  /// Deeper nesting is refused: no request has it, and whoever walks the nodes recursively may.
  public static let depthMax = 128
  /// Longer texts are refused: 256 MiB.
  public static let byteCountMax = 256 << 20

  /// Reads a text that holds one value.
  public init(_ bytes: [UInt8]) throws(JSONFault) {
    guard bytes.count <= Self.byteCountMax else {
      throw JSONFault(reason: .tooLong, offset: Self.byteCountMax)
    }
    var parser = JSONParser(byteCount: bytes.count)
    try parser.parse(bytes)
    self.bytes = bytes
    nodes = parser.nodes
  }
}

/// Why a text is no JSON, and at which byte.
public struct JSONFault: Error, Equatable, Sendable, CustomStringConvertible {
  /// What is wrong.
  public enum Reason: Sendable {
    case syntax, endsEarly, tooDeep, tooLong, notUTF8
  }

  /// What is wrong.
  public let reason: Reason
  /// Where: bytes from the beginning of the text.
  public let offset: Int

  /// What is wrong, in words.
  public var description: String {
    switch reason {
    case .syntax: "not JSON at byte \(offset)"
    case .endsEarly: "cut off: it ends at byte \(offset) in the middle of a value"
    case .tooDeep: "nested deeper than \(JSONDocument.depthMax) levels"
    case .tooLong: "longer than \(JSONDocument.byteCountMax >> 20) MiB"
    case .notUTF8: "not UTF-8 at byte \(offset)"
    }
  }
}

/// The kinds of JSON values.
enum JSONKind: UInt8, Sendable {
  case null, bool, number, string, array, object
}

/// A value or key of a document.
struct JSONNode: Sendable {
  /// Bytes of the text, quotes and brackets included.
  var start: UInt32
  var end: UInt32
  /// The index of the node behind this one and all below it.
  var next: UInt32
  var kind: JSONKind
  /// A string with backslashes: its text has to be decoded.
  var hasEscapes: Bool

  var range: Range<Int> { Int(start)..<Int(end) }
}

// MARK: - Walking

extension JSONDocument {
  func kind(_ node: Int) -> JSONKind { nodes[node].kind }

  /// The values of an array, or the keys and values of an object one after the other.
  func children(_ node: Int) -> JSONChildren {
    JSONChildren(document: self, at: node + 1, end: Int(nodes[node].next))
  }

  /// The value under a key; the last one where a key comes twice, as most readers have it.
  func value(_ key: StaticString, in object: Int) -> Int? {
    guard nodes[object].kind == .object else { return nil }
    var found: Int?
    var at = object + 1
    let end = Int(nodes[object].next)
    while at < end {
      if isString(at, key) { found = at + 1 }
      at = Int(nodes[at + 1].next)
    }
    return found
  }

  /// Whether a string is this text; escapes in keys that somebody wrote for fun are not undone.
  func isString(_ node: Int, _ text: StaticString) -> Bool {
    let range = nodes[node].range
    guard nodes[node].kind == .string, range.count == text.utf8CodeUnitCount + 2 else {
      return false
    }
    for offset in 0..<text.utf8CodeUnitCount
    where unsafe bytes[range.lowerBound + 1 + offset] != text.utf8Start[offset] { return false }
    return true
  }

  /// The decoded text of a string, "" of anything else.
  func text(_ node: Int) -> String {
    String(decoding: textBytes(node), as: UTF8.self)
  }

  /// The decoded bytes of a string, none of anything else.
  func textBytes(_ node: Int) -> [UInt8] {
    var target: [UInt8] = []
    appendText(node, to: &target)
    return target
  }

  /// Appends the decoded bytes of a string.
  func appendText(_ node: Int, to target: inout [UInt8]) {
    guard nodes[node].kind == .string else { return }
    let range = nodes[node].range.lowerBound + 1..<nodes[node].range.upperBound - 1
    guard nodes[node].hasEscapes else {
      target.append(contentsOf: bytes[range])
      return
    }
    JSONEscapes.decode(bytes, range, into: &target)
  }

  /// The text of a value as it stands in the document.
  func rawBytes(_ node: Int) -> ArraySlice<UInt8> { bytes[nodes[node].range] }

  var root: Int { 0 }
}

/// The children of a node, by index.
struct JSONChildren: Sequence, IteratorProtocol {
  let document: JSONDocument
  var at: Int
  let end: Int

  mutating func next() -> Int? {
    guard at < end else { return nil }
    defer { at = Int(document.nodes[at].next) }
    return at
  }
}
