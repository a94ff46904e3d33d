/// The tokens of a model file in GGUF, the format of llama.cpp.
///
/// magic `GGUF`, u32 version (2 or 3), u64 tensors, u64 metadata entries; each entry: a key, u32 type, a value. Of the metadata
/// `tokenizer.ggml.model` and `tokenizer.ggml.tokens` are kept, and nothing behind them is read.
package struct GGUFVocabulary {
  /// Name of the tokenizer's kind: `llama`, `gpt2`, …; empty when the file does not say.
  package private(set) var model = ""
  /// The tokens' texts, by id.
  package private(set) var tokens: [[UInt8]] = []

  private static let magic = Array("GGUF".utf8)
  private static let stringType: UInt32 = 8
  private static let arrayType: UInt32 = 9
  /// Of arrays in arrays; the format has no use for them.
  private static let depthMax = 4

  /// Whether the file begins as a GGUF file does.
  package static func isGGUF(path: String) -> Bool {
    guard let input = try? GGUFInput(path: path) else { return false }
    return (try? input.bytes(4)) == magic
  }

  /// Reads the metadata of a file up to the tokens and their kind.
  package init(path: String) throws(GGUFError) {
    let input = try GGUFInput(path: path)
    guard input.remainingByteCount >= 4, try input.bytes(4) == Self.magic else { throw .notGGUF }
    let version = try input.integer(UInt32.self)
    guard version == 2 || version == 3 else { throw .version(version) }
    try input.skip(8)
    var entryCount = try input.integer(UInt64.self)
    var isModelKnown = false
    // Each takes bytes of the file, so a count that is a lie ends with it.
    while entryCount > 0, tokens.isEmpty || !isModelKnown {
      entryCount -= 1
      let key = try input.string()
      let type = try input.integer(UInt32.self)
      if key == Array("tokenizer.ggml.model".utf8), type == Self.stringType {
        model = String(decoding: try input.string(), as: UTF8.self)
        isModelKnown = true
      } else if key == Array("tokenizer.ggml.tokens".utf8), type == Self.arrayType {
        tokens = try Self.strings(input)
      } else {
        try Self.skip(type, input, depth: 0)
      }
    }
    guard !tokens.isEmpty else { throw .noTokens }
  }

  private static func strings(_ input: GGUFInput) throws(GGUFError) -> [[UInt8]] {
    let start = input.offset
    guard try input.integer(UInt32.self) == stringType else { throw .malformed(offset: start) }
    let count = try input.integer(UInt64.self)
    guard count <= UInt64(input.remainingByteCount / 8) else { throw .malformed(offset: start) }
    var strings: [[UInt8]] = []
    for _ in 0..<count { strings.append(try input.string()) }
    return strings
  }

  private static func skip(_ type: UInt32, _ input: GGUFInput, depth: Int) throws(GGUFError) {
    let start = input.offset
    if let size = byteCount(type) { return try input.skip(size) }
    if type == stringType { return try input.skip(input.integer(UInt64.self)) }
    guard type == arrayType, depth < depthMax else { throw .malformed(offset: start) }
    let elementType = try input.integer(UInt32.self)
    let count = try input.integer(UInt64.self)
    if let size = byteCount(elementType) {
      let (total, isTooLarge) = size.multipliedReportingOverflow(by: count)
      guard !isTooLarge else { throw .malformed(offset: start) }
      return try input.skip(total)
    }
    guard count <= UInt64(input.remainingByteCount / 8) else { throw .malformed(offset: start) }
    for _ in 0..<count { try skip(elementType, input, depth: depth + 1) }
  }

  /// Of a value of fixed size: u8, i8, u16, i16, u32, i32, f32, bool; 8 and 9 are strings and arrays; u64, i64, f64.
  private static func byteCount(_ type: UInt32) -> UInt64? {
    switch type {
    case 0, 1, 7: 1
    case 2, 3: 2
    case 4, 5, 6: 4
    case 10, 11, 12: 8
    default: nil
    }
  }
}
