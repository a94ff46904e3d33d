import FoundationEssentials

/// What a command prints with `--json`: an object whose first member, `schema`, says what it is.
///
/// docs/json.md has the rules that all of them keep to, and docs/json/ a JSON Schema of each.
protocol CommandDocument: Encodable {
  /// The name of the schema's file; `kvstore/NAME/1` in the document.
  static var schema: String { get }
}

/// A document of a command.
func jsonText<Document: CommandDocument>(
  _ document: Document,
  isPretty: Bool = true
) throws -> String {
  let value = try JSONValue(encoding: document)
  guard case .object(let members) = value else { return value.text(isPretty: isPretty) }
  let schema = (name: "schema", value: JSONValue.string("kvstore/\(Document.schema)/1"))
  return JSONValue.object([schema] + members).text(isPretty: isPretty)
}

/// A value that is no document of its own: a part of a page or a file, a request.
func jsonText(_ value: some Encodable, isPretty: Bool) throws -> String {
  try JSONValue(encoding: value).text(isPretty: isPretty)
}

/// In a format that is not ours to name, as its types spell it; what is nil is left out.
func foreignJSONText(_ value: some Encodable) throws -> String {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
  return String(decoding: try encoder.encode(value), as: UTF8.self)
}

/// A moment: RFC 3339 in UTC with microseconds, `2026-11-30T12:20:28.123456Z`.
struct Moment: Encodable, Equatable {
  let nanoseconds: UInt64

  /// Nil for 0, which stands for never and for unknown.
  init?(nanoseconds: UInt64) {
    guard nanoseconds > 0 else { return nil }
    self.nanoseconds = nanoseconds
  }

  /// Nil for 0.
  init?(seconds: some BinaryInteger) {
    let (nanoseconds, overflow) =
      UInt64(clamping: seconds).multipliedReportingOverflow(by: 1_000_000_000)
    self.init(nanoseconds: overflow ? .max : nanoseconds)
  }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(text)
  }

  var text: String {
    let (days, inDay) = (nanoseconds / 1_000_000_000).quotientAndRemainder(dividingBy: 86_400)
    let date = Self.date(ofDay: days)
    return String(
      format: "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ",
      date.year,
      date.month,
      date.day,
      Int(inDay / 3_600),
      Int(inDay / 60 % 60),
      Int(inDay % 60),
      Int(nanoseconds % 1_000_000_000 / 1_000)
    )
  }

  /// The Gregorian date of a day after 1970-01-01; a year begins in March here, so that a leap day is its last.
  private static func date(ofDay days: UInt64) -> (year: Int, month: Int, day: Int) {
    let shifted = Int(days) + 719_468
    let (era, dayOfEra) = shifted.quotientAndRemainder(dividingBy: 146_097)
    let yearOfEra =
      (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let month = (5 * dayOfYear + 2) / 153
    let day = dayOfYear - (153 * month + 2) / 5 + 1
    return (yearOfEra + era * 400 + (month < 10 ? 0 : 1), month < 10 ? month + 3 : month - 9, day)
  }
}

/// Nanoseconds as the seconds of a JSON document; nil for 0, where that stands for none.
func secondsOrNil(nanoseconds: UInt64) -> Double? {
  nanoseconds == 0 ? nil : Double(nanoseconds) / 1e9
}
