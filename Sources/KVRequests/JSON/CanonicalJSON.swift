/// JSON in one form: keys sorted, no blanks.
enum CanonicalJSON {
  /// The same for all ways to write a value; of a text that is no JSON, its own.
  static func hash(_ text: [UInt8]) -> UInt64 {
    guard let document = try? JSONDocument(text) else {
      return ByteHasher.hash(text, 0..<text.count)
    }
    var target: [UInt8] = []
    append(document, document.root, &target)
    return ByteHasher.hash(target, 0..<target.count)
  }

  private static func append(_ document: JSONDocument, _ node: Int, _ target: inout [UInt8]) {
    switch document.kind(node) {
    case .object:
      target.append(UInt8(ascii: "{"))
      let members = document.members(node).map { (document.textBytes($0.key), $0.value) }
        .sorted { $0.0.lexicographicallyPrecedes($1.0) }
      for (key, value) in members {
        target += JSONEscapes.quoted(key) + [UInt8(ascii: ":")]
        append(document, value, &target)
        target.append(UInt8(ascii: ","))
      }
      target.append(UInt8(ascii: "}"))
    case .array:
      target.append(UInt8(ascii: "["))
      for child in document.children(node) {
        append(document, child, &target)
        target.append(UInt8(ascii: ","))
      }
      target.append(UInt8(ascii: "]"))
    case .string: target += JSONEscapes.quoted(document.textBytes(node))
    case .number:
      let value = JSONNumber.value(document.rawBytes(node)) ?? 0
      target += Array("\(value)".utf8)
    case .null, .bool: target += Array(document.rawBytes(node))
    }
  }
}
