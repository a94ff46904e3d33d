import ArgumentParser
import KVStore

/// `kvstore inspect metrics`: the store's sizes for Prometheus.
struct InspectMetrics: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "metrics",
    abstract: "Print the store's sizes in Prometheus' text format.",
    discussion: """
      Of the whole store: what is on disk, by namespace and tier. A server's own counters (look-ups, \
      restores, misses) are in its process: it serves them from kvstore_metrics_text. Write the \
      output to a file of node_exporter's textfile collector, or serve it from a script.
      """
  )

  @OptionGroup var options: InspectOptions

  /// The JSON of `inspect metrics`.
  private struct Document: CommandDocument {
    static let schema = "inspect-metrics"

    var samples: [Sample]
  }

  private struct Sample: Encodable {
    var name: String
    var labels: [String: String]
    var value: Double

    /// A line of Prometheus' text: `name{label="value",other="value"} 1`.
    init?(_ line: Substring) {
      guard let space = line.lastIndex(of: " ") else { return nil }
      let series = line[..<space]
      name = String(series.prefix { $0 != "{" })
      value = Double(line[line.index(after: space)...]) ?? .infinity
      labels = [:]
      var rest = series.dropFirst(name.count + 1)
      while let equals = rest.firstIndex(of: "=") {
        let label = String(rest[..<equals])
        var text = ""
        var isEscaped = false
        rest = rest[equals...].dropFirst(2)
        while let character = rest.popFirst(), isEscaped || character != "\"" {
          if !isEscaped, character == "\\" {
            isEscaped = true
            continue
          }
          text.append(isEscaped && character == "n" ? "\n" : character)
          isEscaped = false
        }
        labels[label] = text
        rest = rest.dropFirst()
      }
    }
  }

  func run() throws {
    try options.withStore { store in
      let text = try store.metricsText(includesProcess: false)
      let lines = text.split(separator: "\n").filter { !$0.hasPrefix("#") }
      let document = Document(samples: lines.compactMap(Sample.init))
      try options.show(document, [String(text.dropLast())])
    }
  }
}
