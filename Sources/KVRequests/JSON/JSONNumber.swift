/// How numbers are written.
enum JSONNumber {
  /// Whether a text is a number: JSON's grammar, and what Python writes besides.
  static func isNumber(_ text: some Collection<UInt8>) -> Bool {
    var rest = text[...]
    if rest.first == UInt8(ascii: "-") { rest = rest.dropFirst() }
    if rest.elementsEqual("Infinity".utf8) || text.elementsEqual("NaN".utf8) { return true }
    let whole = rest.prefix(while: isDigit)
    guard !whole.isEmpty, whole.count == 1 || whole.first != UInt8(ascii: "0") else { return false }
    rest = rest.dropFirst(whole.count)
    if rest.first == UInt8(ascii: ".") {
      rest = rest.dropFirst()
      let fraction = rest.prefix(while: isDigit)
      guard !fraction.isEmpty else { return false }
      rest = rest.dropFirst(fraction.count)
    }
    guard let exponent = rest.first else { return true }
    guard exponent | 0x20 == UInt8(ascii: "e") else { return false }
    rest = rest.dropFirst()
    if rest.first == UInt8(ascii: "+") || rest.first == UInt8(ascii: "-") {
      rest = rest.dropFirst()
    }
    return !rest.isEmpty && rest.allSatisfy(isDigit)
  }

  static func isDigit(_ byte: UInt8) -> Bool { byte &- 0x30 < 10 }

  /// A number as a server writes it after it has read it: what has no fraction or exponent stays, all else is a double.
  ///
  /// So 1.50 and 1.5 are the same in the prompt, and 1 and 1.0 are not.
  static func rendered(_ text: ArraySlice<UInt8>) -> [UInt8] {
    if text.allSatisfy({ isDigit($0) || $0 == UInt8(ascii: "-") }) { return Array(text) }
    guard let value = Double(String(decoding: text, as: UTF8.self)) else { return Array(text) }
    return Array("\(value)".utf8)
  }

  /// The value that a text stands for, nil when it is no number; `1,000` is one.
  static func value(_ text: some Sequence<UInt8>) -> Double? {
    let plain = text.filter { $0 != UInt8(ascii: ",") && $0 != UInt8(ascii: "_") }
    guard let first = plain.first, isDigit(first) || first == UInt8(ascii: "-") else { return nil }
    return Double(String(decoding: plain, as: UTF8.self))
  }
}
