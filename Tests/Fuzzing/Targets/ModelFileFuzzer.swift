import KVVocabulary

/// The metadata of a model file (GGUF), from bytes.
enum ModelFileFuzzer {
  private static let file = MemoryFile("model")

  /// The bytes as a file; and as what follows the header of one, so that every run gets that far.
  static func run(_ bytes: [UInt8]) {
    file.with(bytes, parse)
    file.with(header(entryCount: 1 << 40) + bytes, parse)
  }

  private static func parse(_ path: String) {
    do {
      let vocabulary = try GGUFVocabulary(path: path)
      FuzzTarget.keep(vocabulary.tokens.reduce(vocabulary.model.utf8.count) { $0 &+ $1.count })
    } catch {
      // Refused.
    }
  }

  private static func integer<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> T($0 * 8)) }
  }

  private static func string(_ text: String) -> [UInt8] {
    integer(UInt64(text.utf8.count)) + Array(text.utf8)
  }

  private static func header(entryCount: UInt64) -> [UInt8] {
    Array("GGUF".utf8) + integer(UInt32(3)) + integer(UInt64(0)) + integer(entryCount)
  }

  private static func entry(_ key: String, _ type: UInt32, _ value: [UInt8]) -> [UInt8] {
    string(key) + integer(type) + value
  }

  private static func array(_ type: UInt32, _ count: UInt64, _ elements: [UInt8]) -> [UInt8] {
    integer(type) + integer(count) + elements
  }

  static var seeds: [[UInt8]] {
    let model = entry("tokenizer.ggml.model", 8, string("llama"))
    let tokens = entry(
      "tokenizer.ggml.tokens",
      9,
      array(8, 3, string("a") + string("") + string("\u{2581}bc"))
    )
    let nested = entry("x", 9, array(9, 2, array(4, 1, [1, 2, 3, 4]) + array(8, 1, string("y"))))
    let numbers = entry("n", 6, [0, 0, 0, 0]) + entry("m", 10, [UInt8](repeating: 1, count: 8))
    let bodies = [
      model + tokens, tokens + model, nested + numbers + model + tokens, numbers + nested,
      entry("f", 9, array(6, 2, [UInt8](repeating: 2, count: 8))) + tokens + model,
    ]
    return bodies + bodies.map { header(entryCount: 4) + $0 }
  }
}
