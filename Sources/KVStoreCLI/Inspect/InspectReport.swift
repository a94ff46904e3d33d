import ArgumentParser
import KVCore
import KVStore

/// `kvstore inspect report`: the store as one page to look at.
struct InspectReport: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "report",
    abstract: "Write a page that shows the store: the block tree, tiers, sessions, agents' runs.",
    discussion: """
      One self-contained HTML file without network access: the prefix tree as a picture to zoom \
      into, how full the tiers are, what was stored and removed over time, the hit rate of the \
      sessions, a search for runs by key, number or token ids, and what agents asked: hits by layer, \
      what they saved, and the log of each run.

      EXAMPLES
        kvstore inspect report STORE -o report.html
      """
  )

  @OptionGroup var options: InspectOptions

  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("Write the page to this file, - for stdout.", valueName: "file"),
    completion: .file(extensions: ["html"])
  )
  var output: String

  @Option(help: "Show at most this many runs of each namespace.")
  var limit = 100_000

  @Option(
    help: ArgumentHelp(
      "Tokens a second that the engine computes of a prompt: the time saved follows from it.",
      discussion: "The page has a field for it, too.",
      valueName: "tokens/s"
    )
  )
  var prefillRate = 1000.0

  func validate() throws {
    guard limit > 0 else { throw ValidationError("--limit must be at least 1.") }
    guard prefillRate > 0, prefillRate.isFinite else {
      throw ValidationError("--prefill-rate must be above 0.")
    }
  }

  func run() throws {
    try options.withStore { store in
      let data = try ReportData(
        store,
        path: options.store,
        runCountMax: limit,
        prefillTokensPerSecond: prefillRate
      )
      if options.json { return print(try jsonText(data)) }
      // In a script element only "<" could end it; JSON may write it as an escape.
      let text = try jsonText(data, isPretty: false).replacingOccurrences(of: "<", with: "\\u003c")
      let page = reportPage.replacingOccurrences(of: "/*DATA*/", with: text)
      guard output != "-" else { return print(page) }
      try writePrivateFile(output, page)
      print("wrote \(output): \(byteText(page.utf8.count))")
    }
  }
}
