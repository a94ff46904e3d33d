import KVRequests

/// The findings of a log by kind and place, the dearest first, with what each kind costs.
struct LintOutcome {
  /// The same thing at the same place, however often.
  struct Group {
    var kind: RequestChange.Kind
    var shape: ValueShape?
    /// With `*` for the numbers of messages.
    var path: String
    var findings: [Int]
    var tokensLost: Int
    var cost: Double?
    /// The hit rate, were these not there.
    var mendedHitRate: Double
    /// The first one that is as dear as any.
    var example: LogFinding
  }

  let report: LogReport
  let sources: [String]
  let skipped: LintReader.Skipped
  let faults: [String]
  let groups: [Group]
  let prices: PriceList
  /// What the findings cost, in the price list's currency; nil where no model is in it.
  let cost: Double?
  /// The providers whose prices were used.
  let providers: [String]
  /// Seconds of a server's time, where its rate is known.
  let seconds: Double?

  init(_ reader: consuming LintReader, sources: [String], options: LintOptions, prices: PriceList) {
    let (skipped, faults) = (reader.skipped, reader.faults)
    self.init(
      reader.analysis.finish(),
      skipped: skipped,
      faults: faults,
      sources: sources,
      options: options,
      prices: prices
    )
  }

  /// The outcome without what is known.
  ///
  /// The rates stay those of the log.
  func without(_ baseline: LintBaseline, _ options: LintOptions) -> LintOutcome {
    var report = report
    report.findings.removeAll { baseline.holds($0) }
    return LintOutcome(
      report,
      skipped: skipped,
      faults: faults,
      sources: sources,
      options: options,
      prices: prices
    )
  }

  private init(
    _ report: LogReport,
    skipped: LintReader.Skipped,
    faults: [String],
    sources: [String],
    options: LintOptions,
    prices: PriceList
  ) {
    var report = report
    if options.redact {
      for index in report.findings.indices {
        report.findings[index].change = report.findings[index].change.withoutKeys
      }
    }
    self.skipped = skipped
    self.faults = faults
    self.report = report
    self.sources = sources
    self.prices = prices
    let pricing = Pricing(report, options, prices)
    providers = pricing.providers
    groups = Self.groups(report, pricing)
    let lost = report.lostTokenCount
    cost = pricing.lossPerToken.map { $0 * Double(lost) }
    seconds = options.prefillRate.map { Double(lost) / $0 }
  }

  /// What a lost token costs on the average of the models of the log.
  private struct Pricing {
    var lossPerToken: Double?
    var providers: [String] = []

    init(_ report: LogReport, _ options: LintOptions, _ prices: PriceList) {
      if let input = options.inputPrice {
        let provider = prices.providers.first { $0.name == options.provider }
        let factor = provider.map {
          PriceList.loss(
            $0,
            input: 1,
            isLong: options.usesLongTTL($0, report.longestTimeToLiveSeconds)
          )
        }
        lossPerToken = input * (factor ?? 0.9) / 1e6
        providers = [options.provider ?? "--input-price"]
        return
      }
      var sum = 0.0
      var count = 0
      for (model, requestCount) in report.modelCounts {
        guard let (provider, input) = prices.price(of: model),
          options.provider == nil || options.provider == provider.name
        else { continue }
        sum +=
          PriceList.loss(
            provider,
            input: input,
            isLong: options.usesLongTTL(provider, report.longestTimeToLiveSeconds)
          )
          * Double(requestCount)
        count += requestCount
        if !providers.contains(provider.name) { providers.append(provider.name) }
      }
      if count > 0 { lossPerToken = sum / Double(count) / 1e6 }
      providers.sort()
    }
  }

  private static func groups(_ report: LogReport, _ pricing: Pricing) -> [Group] {
    var places: [String: Int] = [:]
    var groups: [Group] = []
    for (index, finding) in report.findings.enumerated() {
      let change = finding.change
      let path = pattern(change.path)
      let key = "\(change.kind.rawValue) \(change.shape?.rawValue ?? "") \(path)"
      if let place = places[key] {
        groups[place].findings.append(index)
        groups[place].tokensLost += change.tokensLost
        if change.tokensLost > groups[place].example.change.tokensLost {
          groups[place].example = finding
        }
      } else {
        places[key] = groups.count
        groups.append(
          Group(
            kind: change.kind,
            shape: change.shape,
            path: path,
            findings: [index],
            tokensLost: change.tokensLost,
            mendedHitRate: 0,
            example: finding
          )
        )
      }
    }
    for index in groups.indices {
      groups[index].mendedHitRate = report.hitRate(adding: groups[index].tokensLost)
      groups[index].cost = pricing.lossPerToken.map { $0 * Double(groups[index].tokensLost) }
    }
    return groups.sorted { ($0.tokensLost, $1.path) > ($1.tokensLost, $0.path) }
  }

  /// A path without the numbers of messages beyond the first, which differ in each request.
  static func pattern(_ path: String) -> String {
    var result = ""
    var digits = ""
    for character in path {
      if character.isNumber, result.hasSuffix("[") {
        digits.append(character)
        continue
      }
      if !digits.isEmpty {
        result += character == "]" && digits != "0" ? "*" : digits
        digits = ""
      }
      result.append(character)
    }
    return result + digits
  }
}
