import Glibc
import KVCore

/// A parameter of a measurement in the JSON.
enum Parameter: Encodable {
  case integer(Int)
  case text(String)

  func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .integer(let value): try container.encode(value)
    case .text(let value): try container.encode(value)
    }
  }
}

/// One figure: a line of the table, or of the JSON.
struct Figure: CommandDocument {
  static let schema = "bench"

  var workload: String
  var params: [String: Parameter]
  var unit: String
  var series: Series
  var limit: Limit?

  private enum CodingKeys: String, CodingKey {
    case workload, params, value, unit, limit, ratio, runs, spread
    case limitName = "limit_name"
    case p50 = "p50_seconds"
    case p90 = "p90_seconds"
    case p99 = "p99_seconds"
    case p999 = "p999_seconds"
  }

  /// What it says, in words.
  var measure: String {
    if case .text(let text)? = params["measure"] { text } else { "" }
  }

  var ratio: Double? { limit.flatMap { $0.value == 0 ? nil : series.median / $0.value } }

  func encode(to encoder: any Encoder) throws {
    let sorted = series.latencies.sorted()
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(workload, forKey: .workload)
    try container.encode(params, forKey: .params)
    try container.encode(series.median, forKey: .value)
    try container.encode(unit, forKey: .unit)
    try container.encode(limit?.value, forKey: .limit)
    try container.encode(limit?.name, forKey: .limitName)
    try container.encode(ratio, forKey: .ratio)
    for (fraction, key) in [
      (0.5, CodingKeys.p50), (0.9, .p90), (0.99, .p99), (0.999, .p999),
    ] {
      let nanoseconds = series.percentile(fraction, sorted: sorted)
      try container.encode(nanoseconds.map { Double($0) / 1e9 }, forKey: key)
    }
    try container.encode(series.values.count, forKey: .runs)
    try container.encode(series.spread, forKey: .spread)
  }
}

/// Prints what was measured, a workload at a time.
final class Report {
  private let options: BenchOptions
  private let progress: ProgressLine
  private var workload = ""
  private var figures: [Figure] = []
  /// Of all workloads so far.
  private(set) var allFigures: [Figure] = []

  init(_ options: BenchOptions, _ progress: ProgressLine) {
    self.options = options
    self.progress = progress
  }

  func showEnvironment(_ folder: String, writtenByteCount: Int) {
    let lines = Environment.lines(
      folder: folder,
      options: options,
      writtenByteCount: writtenByteCount
    )
    let text = lines.joined(separator: "\n") + "\n"
    if options.json { writeError(text) } else { print(text) }
  }

  func begin(_ workload: String, _ pageCacheState: String) {
    self.workload = workload
    figures = []
    if !options.json {
      progress.clear()
      print("\(workload) (page cache: \(pageCacheState))")
      flushOutput()
    }
  }

  /// Says something that the figures depend on besides.
  func note(_ text: String) {
    progress.clear()
    if options.json { writeError(text + "\n") } else { print("  " + text) }
    flushOutput()
  }

  /// Adds a figure; `measure` in `params` says what it is.
  func add(_ params: [String: Parameter], _ series: Series, unit: String, limit: Limit? = nil) {
    figures.append(
      Figure(workload: workload, params: params, unit: unit, series: series, limit: limit)
    )
  }

  func end() throws {
    progress.clear()
    allFigures += figures
    if options.json {
      for figure in figures { print(try jsonText(figure, isPretty: false)) }
    } else {
      print(table().joined(separator: "\n") + "\n")
    }
    flushOutput()
  }

  private static let measureWidthMax = 40

  /// At most 100 columns: long measures take two lines, and the limits' names stand below.
  private func table() -> [String] {
    var table = TextTable([
      ("  measure", .left), ("value", .right), ("limit", .right), ("ratio", .right),
      ("p50", .right), ("p99", .right), ("spread", .right),
    ])
    var limitNames: [String] = []
    for figure in figures {
      let sorted = figure.series.latencies.sorted()
      let percentiles = [0.5, 0.99].map { fraction in
        figure.series.percentile(fraction, sorted: sorted).map(timeText) ?? ""
      }
      let limit = figure.limit.map { limit in
        let number = limitNames.firstIndex(of: limit.name) ?? limitNames.count
        if number == limitNames.count { limitNames.append(limit.name) }
        return valueText(limit.value, unit: figure.unit) + " " + Self.letter(number)
      }
      var measure = wrapped(figure.measure, width: Self.measureWidthMax)[...]
      table.append(
        [
          "  " + (measure.popFirst() ?? ""), valueText(figure.series.median, unit: figure.unit),
          limit ?? "", figure.ratio.map { decimalText($0, digits: 3) } ?? "",
        ] + percentiles + [spreadText(figure.series.spread)]
      )
      for rest in measure { table.append(["    " + rest, "", "", "", "", "", ""]) }
    }
    let names = limitNames.enumerated().flatMap { number, name in
      wrapped("\(Self.letter(number)): \(name)", width: 96).enumerated().map {
        ($0.offset == 0 ? "  " : "     ") + $0.element
      }
    }
    return table.lines() + names
  }

  private static func letter(_ number: Int) -> String {
    String(UnicodeScalar(UInt8(ascii: "a") + UInt8(number % 26)))
  }
}

/// A figure in a unit that suits people.
private func valueText(_ value: Double, unit: String) -> String {
  switch unit {
  case "ns" where value >= 10: timeText(UInt64(value))
  case "B" where value >= 1: byteText(UInt64(value))
  case "": decimalText(value, digits: 3)
  default: decimalText(value, digits: 3) + " " + unit
  }
}

/// Sends on what was printed: to a pipe it would wait.
func flushOutput() { fflush(nil) }

/// A spread in percent, to a tenth.
private func spreadText(_ spread: Double) -> String {
  decimalText((spread * 1000).rounded() / 10, digits: 3) + " %"
}

/// A time with a unit that suits it.
func timeText(_ nanoseconds: UInt64) -> String {
  switch nanoseconds {
  case ..<10_000: "\(nanoseconds) ns"
  case ..<10_000_000: decimalText(Double(nanoseconds) / 1e3, digits: 3) + " µs"
  case ..<10_000_000_000: decimalText(Double(nanoseconds) / 1e6, digits: 3) + " ms"
  default: decimalText(Double(nanoseconds) / 1e9, digits: 3) + " s"
  }
}
