/// What a server answered to one command.
///
/// RESP3's types are told apart only as far as somebody asks: maps, sets and pushes are arrays (a map's keys and values take turns, as in RESP2), doubles, big
/// numbers and verbatim strings are texts, booleans are integers.
package enum Reply: Equatable, Sendable {
  case text([UInt8])
  case integer(Int64)
  case null
  case array([Reply])
  case error(ServerError)
  /// A string whose bytes the parser's caller took (`ReplyParser.Step.bulk`).
  case lentBulk

  /// As a number, also where a server writes numbers as text.
  package var number: Int64? {
    switch self {
    case .integer(let number): number
    case .text(let bytes): decimal(bytes)
    default: nil
    }
  }

  /// As a text; bytes that are not UTF-8 are replaced.
  package var string: String? {
    if case .text(let bytes) = self { String(decoding: bytes, as: UTF8.self) } else { nil }
  }

  package var items: [Reply]? {
    if case .array(let items) = self { items } else { nil }
  }
}

/// An integer in decimal digits with an optional sign; nil for anything else, also for what 64 bits do not hold.
func decimal(_ bytes: some Collection<UInt8>) -> Int64? {
  var rest = bytes[...]
  let isNegative = rest.first == UInt8(ascii: "-")
  if isNegative || rest.first == UInt8(ascii: "+") { rest = rest.dropFirst() }
  guard !rest.isEmpty else { return nil }
  var number: Int64 = 0
  for byte in rest {
    guard (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) else { return nil }
    let (tenfold, overflow) = number.multipliedReportingOverflow(by: 10)
    let digit = Int64(byte - UInt8(ascii: "0"))
    let (next, overflows) =
      isNegative
      ? tenfold.subtractingReportingOverflow(digit) : tenfold.addingReportingOverflow(digit)
    if overflow || overflows { return nil }
    number = next
  }
  return number
}
