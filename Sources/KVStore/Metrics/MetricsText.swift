/// Builds a page in Prometheus' text format, version 0.0.4.
struct MetricsText {
  private(set) var text = ""

  enum Kind: String { case counter, gauge, histogram }

  typealias Labels = [(name: String, value: String)]

  /// A metric with its samples; none is written when there are none.
  mutating func add(
    _ name: String,
    _ kind: Kind,
    _ help: String,
    _ samples: [(labels: Labels, value: UInt64)]
  ) {
    guard !samples.isEmpty else { return }
    begin(name, kind, help)
    for sample in samples {
      text += "\(name)\(Self.labelText(sample.labels)) \(sample.value)\n"
    }
  }

  mutating func add(_ name: String, _ kind: Kind, _ help: String, _ value: UInt64) {
    add(name, kind, help, [([], value)])
  }

  /// A gauge of seconds, of samples in nanoseconds.
  mutating func addSeconds(
    _ name: String,
    _ help: String,
    _ samples: [(labels: Labels, value: UInt64)]
  ) {
    guard !samples.isEmpty else { return }
    begin(name, .gauge, help)
    for sample in samples {
      text += "\(name)\(Self.labelText(sample.labels)) \(Self.secondsText(sample.value))\n"
    }
  }

  /// A histogram of seconds.
  mutating func add(
    _ name: String,
    _ help: String,
    _ series: [(labels: Labels, histogram: LatencyHistogram)]
  ) {
    begin(name, .histogram, help)
    for (labels, histogram) in series {
      var sum: UInt64 = 0
      for (bound, count) in zip(LatencyHistogram.bounds, histogram.counts) {
        sum += count
        let bounded = labels + [("le", Self.secondsText(bound))]
        text += "\(name)_bucket\(Self.labelText(bounded)) \(sum)\n"
      }
      text += "\(name)_bucket\(Self.labelText(labels + [("le", "+Inf")])) \(histogram.count)\n"
      text += "\(name)_sum\(Self.labelText(labels)) \(Self.secondsText(histogram.sumNanoseconds))\n"
      text += "\(name)_count\(Self.labelText(labels)) \(histogram.count)\n"
    }
  }

  private mutating func begin(_ name: String, _ kind: Kind, _ help: String) {
    text += "# HELP \(name) \(help)\n# TYPE \(name) \(kind.rawValue)\n"
  }

  /// Labels as `{tier="disk"}`; the format escapes backslash, quote and line break.
  ///
  /// Names are the engine's, and the text ends up on terminals: what would control one is shown as "?", as in the other commands.
  private static func labelText(_ labels: Labels) -> String {
    guard !labels.isEmpty else { return "" }
    let pairs = labels.map { name, value in
      var escaped = ""
      for character in value.unicodeScalars {
        switch character {
        case "\\": escaped += "\\\\"
        case "\"": escaped += "\\\""
        case "\n": escaped += "\\n"
        default:
          switch character.properties.generalCategory {
          case .control, .format, .lineSeparator, .paragraphSeparator: escaped += "?"
          default: escaped.unicodeScalars.append(character)
          }
        }
      }
      return "\(name)=\"\(escaped)\""
    }
    return "{" + pairs.joined(separator: ",") + "}"
  }

  /// Nanoseconds as seconds, exact, without trailing zeros.
  private static func secondsText(_ nanoseconds: UInt64) -> String {
    let whole = nanoseconds / 1_000_000_000
    var rest = "\(nanoseconds % 1_000_000_000)"
    rest = String(repeating: "0", count: 9 - rest.count) + rest
    while rest.hasSuffix("0") { rest.removeLast() }
    return rest.isEmpty ? "\(whole)" : "\(whole).\(rest)"
  }
}
