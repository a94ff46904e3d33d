/// How many tokens a text has, estimated from its bytes: a sum over the text, so that the parts of a text add up to the whole.
///
/// Vocabularies differ by ±15 % among each other on English and code, and by more on other languages. Where the exact number
/// matters, a server's `/tokenize` counts.
public enum TokenEstimate {
  /// Tokens of a text.
  public static func count(_ text: some Sequence<UInt8>) -> Int {
    rounded(text.reduce(0) { $0 + Int(weights[Int($1)]) })
  }

  /// In 256ths of a token.
  static func weight(_ text: [UInt8], _ range: Range<Int>) -> Int {
    guard !range.isEmpty else { return 0 }
    let span = text.span.extracting(range)
    var sum = 0
    for index in span.indices { sum &+= Int(weights[Int(span[index])]) }
    return sum
  }

  static func count(_ text: [UInt8], _ range: Range<Int>) -> Int { rounded(weight(text, range)) }

  static func rounded(_ weight: Int) -> Int { (weight + 128) / 256 }

  /// Of an image or a document: what its bytes are says little of its tokens.
  static let mediaTokenCount = 1_000

  /// Letters make long tokens, punctuation short ones; the bytes behind the first of a character beyond ASCII count less.
  private static let weights: [UInt16] = (0..<256).map { byte in
    switch UInt8(byte) {
    case UInt8(ascii: "a")...UInt8(ascii: "z"): 49
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): 76
    case UInt8(ascii: "0")...UInt8(ascii: "9"): 160
    case UInt8(ascii: " "): 22
    case 0x0A: 150
    case 0..<0x20, 0x7F: 90
    case 0x80..<0xC0: 60
    case 0xC0...: 110
    default: 175
    }
  }
}
