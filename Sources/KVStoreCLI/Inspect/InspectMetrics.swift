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

  private struct Sample: Encodable {
    var name: String
    var labels: String
    var value: Double
  }

  func run() throws {
    try options.withStore { store in
      let text = try store.metricsText(includesProcess: false)
      let samples = text.split(separator: "\n").filter { !$0.hasPrefix("#") }.compactMap { line in
        line.lastIndex(of: " ").map { space in
          let name = line[..<space].prefix { $0 != "{" }
          return Sample(
            name: String(name),
            labels: String(line[..<space].dropFirst(name.count)),
            value: Double(line[line.index(after: space)...]) ?? 0
          )
        }
      }
      try options.show(samples, [String(text.dropLast())])
    }
  }
}
