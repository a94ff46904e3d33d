/// Makes GGUF files, right and wrong ones.
struct GGUFBuilder {
  var magic: [UInt8] = Array("GGUF".utf8)
  var version: UInt32 = 3
  var entryCount: UInt64?
  private var entries: [UInt8] = []
  private var count: UInt64 = 0

  static func bytes<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> T($0 * 8)) }
  }

  static func string(_ text: some Sequence<UInt8>) -> [UInt8] {
    let text = Array(text)
    return bytes(UInt64(text.count)) + text
  }

  mutating func add(_ key: String, type: UInt32, _ value: [UInt8]) {
    entries += Self.string(key.utf8) + Self.bytes(type) + value
    count += 1
  }

  mutating func add(_ key: String, _ text: String) {
    add(key, type: 8, Self.string(text.utf8))
  }

  mutating func add(_ key: String, elementType: UInt32, count: UInt64, _ elements: [UInt8]) {
    add(key, type: 9, Self.bytes(elementType) + Self.bytes(count) + elements)
  }

  mutating func add(tokens: [[UInt8]]) {
    add(
      "tokenizer.ggml.tokens",
      elementType: 8,
      count: UInt64(tokens.count),
      tokens.flatMap(Self.string)
    )
  }

  /// The file, with what a model has behind its metadata.
  var file: [UInt8] {
    magic + Self.bytes(version) + Self.bytes(UInt64(2)) + Self.bytes(entryCount ?? count) + entries
      + [UInt8](repeating: 0xAB, count: 64)
  }

  /// A file as models have it: values of all types around the tokens.
  static func model(_ kind: String, _ tokens: [String]) -> GGUFBuilder {
    var builder = GGUFBuilder()
    builder.add("general.architecture", "llama")
    for (type, size) in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1)] {
      builder.add("value.\(type)", type: UInt32(type), [UInt8](repeating: 1, count: size))
    }
    for type in 10...12 {
      builder.add("value.\(type)", type: UInt32(type), [UInt8](repeating: 1, count: 8))
    }
    builder.add("floats", elementType: 6, count: 3, [UInt8](repeating: 2, count: 12))
    builder.add("names", elementType: 8, count: 2, string("a".utf8) + string("bc".utf8))
    let inner = bytes(UInt32(4)) + bytes(UInt64(1)) + [1, 2, 3, 4]
    builder.add("nested", elementType: 9, count: 2, inner + inner)
    builder.add("tokenizer.ggml.model", kind)
    builder.add(tokens: tokens.map { Array($0.utf8) })
    builder.add("tokenizer.ggml.scores", elementType: 6, count: 1, [0, 0, 0, 0])
    return builder
  }
}
