import ArgumentParser
import KVRequests

/// `kvstore lint`: what in recorded requests breaks the prefix, and what it costs.
struct LintCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "lint",
    abstract: "Say what in recorded requests breaks the prefix, and what it costs.",
    discussion: """
      Reads requests as they were sent, finds which goes on from which, and names what was \
      changed in what had been sent before: the field, the characters, the tokens that count as \
      new because of it, and what to do. No store and no server are needed.

      A log is JSON Lines (plain, gzip, zstd, - for stdin) or a HAR file. A line is the body of a \
      request (OpenAI chat and responses, Anthropic messages, llama-server's /completion), or a \
      record with the body in it. Tokens are estimated from the text unless --server counts them. \
      Docs: docs/lint.md.

      EXAMPLES
        kvstore lint requests.jsonl
        kvstore lint requests.jsonl.zst --json
        kvstore lint traffic.har --redact --report report.html
        kvstore lint requests.jsonl --fail-under 70 --baseline known.json
        kvstore lint requests.jsonl --server http://127.0.0.1:8080
        kvstore lint requests.jsonl --show-fixed 18
      """
  )

  @OptionGroup var options: LintOptions

  func validate() throws { try options.validate() }

  func run() throws {
    if options.printPrices { return print(PriceList.shippedText) }
    let prices = try options.prices.map(PriceList.read) ?? PriceList.shipped()
    if let name = options.provider, !prices.providers.contains(where: { $0.name == name }) {
      let names = prices.providers.map(\.name).joined(separator: ", ")
      throw CommandFailure("the price list has no provider \(name); it has \(names)")
    }
    let review = try LintReview(options)
    var analysis = RequestAnalysis(options: options.analysisOptions(prices))
    if review.isNeeded { analysis.review = review.review }
    var reader = LintReader(analysis)
    if options.watch { return try watch(&reader) }
    for (source, log) in options.logs.enumerated() { try reader.read(log, source: source) }
    if let failure = review.failure { throw failure }
    if let line = options.showFixed {
      guard let fixed = review.fixed else {
        throw CommandFailure(
          "there is nothing to mend in line \(line): it goes on from an earlier request, or from none"
        )
      }
      return print(fixed)
    }
    guard reader.analysis.requestCount > 0 else { throw noRequests(reader) }
    let outcome = LintOutcome(reader, sources: options.logs, options: options, prices: prices)
    try show(outcome, review.states)
  }

  private func noRequests(_ reader: LintReader) -> CommandFailure {
    let names = options.logs.joined(separator: ", ")
    guard let example = reader.skipped.examples.first else {
      return CommandFailure("\(names): no requests in it")
    }
    return CommandFailure(
      "\(names): no requests in it; \(counted(reader.skipped.count, "line")) skipped, "
        + "the first: \(example.text). A line is the JSON body of a request, or a record with one in it"
    )
  }

  /// `states`: what a store has of the requests before, by line.
  private func show(_ outcome: LintOutcome, _ states: [Int: String]) throws {
    var outcome = outcome
    if let path = options.writeBaseline {
      try LintBaseline(outcome.report).write(path)
      print("wrote \(path): \(counted(outcome.groups.count, "known finding"))")
      return
    }
    var hasNew = false
    if let path = options.baseline {
      let baseline = try LintBaseline.read(path)
      outcome = outcome.without(baseline, options)
      hasNew = !outcome.report.findings.isEmpty
    }
    var stored: [Int: String] = [:]
    for (index, finding) in outcome.report.findings.enumerated() {
      stored[index] = states[finding.line]
    }
    if options.json {
      print(try jsonText(LintDocument(outcome, isRedacted: options.redact, stored: stored)))
    } else if options.sarif {
      print(try foreignJSONText(SARIFDocument(outcome)))
    } else {
      let text = LintText(
        outcome: outcome,
        isRedacted: options.redact,
        limit: options.limit,
        stored: stored
      )
      print(text.lines.joined(separator: "\n"))
    }
    if let path = options.report { try writeReport(outcome, path) }
    try decide(outcome, hasNew)
  }

  private func writeReport(_ outcome: LintOutcome, _ path: String) throws {
    let page = LintPage(outcome, isRedacted: options.redact).html
    try writePrivateFile(path, page)
    writeError("wrote \(path): \(byteText(page.utf8.count))\n")
  }

  /// The exit status for CI: 2 where what was asked for is not reached.
  private func decide(_ outcome: LintOutcome, _ hasNew: Bool) throws {
    var isFailed = false
    if let least = options.failUnder, outcome.report.hitRate * 100 < least {
      writeError(
        "kvstore: the hit rate is \(LintText.percent(outcome.report.hitRate)), below "
          + "\(decimalText(least, digits: 3)) %\n"
      )
      isFailed = true
    }
    if hasNew {
      writeError("kvstore: findings that are not in \(options.baseline ?? "the baseline")\n")
      isFailed = true
    }
    if isFailed { throw ExitCode(2) }
  }

  /// Prints each finding as it comes.
  private func watch(_ reader: inout LintReader) throws {
    var shown = 0
    let options = options
    try reader.follow(options.logs[0]) { reader in
      for finding in reader.analysis.findings.dropFirst(shown) {
        print(LintText.line(finding, isRedacted: options.redact))
      }
      // Nobody reads it any more.
      try Output.finish()
      shown = reader.analysis.findings.count
    }
  }
}

/// What `kvstore lint` takes.
struct LintOptions: ParsableArguments {
  @ArgumentParser.Argument(
    help: ArgumentHelp("Recorded requests; - is stdin.", valueName: "log"),
    completion: .file()
  )
  var logs: [String] = []

  @Flag(help: "Print one JSON document.")
  var json = false

  @Flag(help: "Print SARIF 2.1.0 for a CI service.")
  var sarif = false

  @Option(help: "Show at most this many kinds of findings.")
  var limit = 20

  @Flag(help: "Show nothing of any prompt: only kinds, places and costs.")
  var redact = false

  @Option(
    help: ArgumentHelp("Print the request of this line as it should be.", valueName: "line")
  )
  var showFixed: Int?

  @Option(
    help: ArgumentHelp("Write the findings as a page to look at.", valueName: "file"),
    completion: .file(extensions: ["html"])
  )
  var report: String?

  @Flag(help: "Follow a log that is being written, and print findings as they come.")
  var watch = false

  @Option(help: ArgumentHelp("Exit with 2 below this hit rate.", valueName: "percent"))
  var failUnder: Double?

  @Option(
    help: ArgumentHelp("Leave known findings out; exit with 2 if any is new.", valueName: "file")
  )
  var baseline: String?

  @Option(help: ArgumentHelp("Write what is found as known findings.", valueName: "file"))
  var writeBaseline: String?

  @Option(
    help: ArgumentHelp(
      "How long the server keeps a prompt: 5m, 1h; never = 0s. (default: by interface)",
      valueName: "time"
    )
  )
  var ttl: TimeSpan?

  @Option(
    help: ArgumentHelp(
      "Count tokens with this llama-server: http://127.0.0.1:8080.",
      valueName: "url"
    )
  )
  var server: String?

  @Option(
    help: ArgumentHelp(
      "Say what this store has of what is lost (with --server).",
      valueName: "folder"
    ),
    completion: .directory
  )
  var store: String?

  @Option(help: "Number of the store's namespace. (default: the only one)")
  var namespace: UInt32?

  @Option(help: "Whose prices: anthropic, openai, gemini … (default: by the model's name)")
  var provider: String?

  @Option(help: ArgumentHelp("Price of a million input tokens.", valueName: "price"))
  var inputPrice: Double?

  @Option(help: ArgumentHelp("A price list of your own.", valueName: "file"))
  var prices: String?

  @Flag(help: "Print the price list that ships, with its date.")
  var printPrices = false

  @Option(
    help: ArgumentHelp("Tokens a second that your server computes.", valueName: "rate")
  )
  var prefillRate: Double?

  func validate() throws {
    guard printPrices || !logs.isEmpty else {
      throw ValidationError("Give a log of requests, or - for stdin.")
    }
    guard limit > 0 else { throw ValidationError("--limit must be at least 1.") }
    guard !(json && sarif) else { throw ValidationError("Choose --json or --sarif.") }
    if let failUnder, !(0...100).contains(failUnder) {
      throw ValidationError("--fail-under takes a percentage from 0 to 100.")
    }
    if let inputPrice, !(inputPrice >= 0) {
      throw ValidationError("--input-price must not be negative.")
    }
    if let prefillRate, !(prefillRate > 0) {
      throw ValidationError("--prefill-rate must be more than 0.")
    }
    if let showFixed, showFixed < 1 {
      throw ValidationError("--show-fixed takes a line, from 1 on.")
    }
    guard logs.count == 1 || (showFixed == nil && !watch) else {
      throw ValidationError("--show-fixed and --watch take one log.")
    }
    guard showFixed == nil || !redact else {
      throw ValidationError("--show-fixed prints a whole request, which --redact forbids.")
    }
    guard store == nil || server != nil else {
      throw ValidationError(
        "--store needs --server: a store knows tokens, and only the server's tokenizer makes them."
      )
    }
    guard store == nil || logs.count == 1 else { throw ValidationError("--store takes one log.") }
  }

  func analysisOptions(_ prices: PriceList) -> RequestAnalysis.Options {
    if let ttl { return .init(timeToLiveSeconds: ttl.seconds == 0 ? nil : Double(ttl.seconds)) }
    if let provider, let chosen = prices.providers.first(where: { $0.name == provider }) {
      var options = RequestAnalysis.Options(timeToLiveSeconds: chosen.ttlSeconds)
      options.isFixed = false
      return options
    }
    return .init()
  }

  /// A time to live that is longer than the provider's shorter one was chosen.
  func usesLongTTL(_ provider: PriceList.Provider, _ asked: Double?) -> Bool {
    guard let short = provider.ttlSeconds, let chosen = ttl.map({ Double($0.seconds) }) ?? asked
    else { return false }
    return chosen > short
  }
}

/// What is done with each request that has changes, while both requests are at hand.
final class LintReview {
  private let server: ServerTokens?
  private let store: StoreJoin?
  private let line: Int?
  /// What the store has of the request before, by the line of the later one.
  private(set) var states: [Int: String] = [:]
  /// The request of `--show-fixed`.
  private(set) var fixed: String?
  /// Why the server could not be asked.
  private(set) var failure: (any Error)?

  init(_ options: LintOptions) throws {
    server = try options.server.map { try ServerTokens($0) }
    store = try options.store.map { try StoreJoin($0, namespace: options.namespace) }
    line = options.showFixed
  }

  var isNeeded: Bool { server != nil || line != nil }

  func review(
    _ at: Int,
    _ previous: PromptRequest,
    _ next: PromptRequest,
    _ changes: [RequestChange]
  ) -> [Int]? {
    if at == line, let body = next.mended(after: previous) {
      fixed = String(decoding: body, as: UTF8.self)
    }
    guard let server, failure == nil else { return nil }
    do {
      guard let before = try server.tokens(previous), let now = try server.tokens(next) else {
        return nil
      }
      if let store { states[at] = try store.state(of: before) }
      // Another model is another cache: all is lost, as this server counts it.
      let isWhole = changes.contains(where: \.isWhole)
      let lost = TokenCounts.lost(
        previous: before,
        next: now,
        isWhole: isWhole,
        isReordered: changes.contains(where: \.isReordered)
      )
      // What was appended and stands further in front already breaks nothing: it costs itself.
      let isBreak = changes.map { $0.kind != .attachedAgain || $0.previousPath != nil }
      let counts = TokenCounts.shared(
        lost,
        as: zip(changes, isBreak).map { $1 ? $0.tokensLost : 0 }
      )
      return try zip(changes, zip(counts, isBreak)).map { change, known in
        known.1 ? known.0 : try server.count(next.text(at: change))
      }
    } catch {
      failure = error
      return nil
    }
  }
}
