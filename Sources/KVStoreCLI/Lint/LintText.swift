import KVRequests

/// The outcome for people, in at most 100 columns.
struct LintText {
  let outcome: LintOutcome
  /// Nothing of any prompt is shown.
  let isRedacted: Bool
  let limit: Int
  /// What a store has of what is lost, by finding.
  var stored: [Int: String] = [:]

  private static let width = 100

  var lines: [String] {
    var lines = head + [""]
    if outcome.groups.isEmpty {
      lines.append("No findings: each request goes on from what was sent before.")
    } else {
      lines += findings
    }
    return lines + [""] + audit
  }

  // MARK: - The head

  private var head: [String] {
    let report = outcome.report
    let files =
      outcome.sources.count == 1 ? outcome.sources[0] : "\(outcome.sources.count) files"
    var fields: [(name: String, value: String)] = [
      (
        "log",
        "\(files): \(counted(report.requestCount, "request")) in "
          + "\(counted(report.conversations.count, "conversation"))"
      ),
      (
        "tokens",
        "\(Self.grouped(report.tokenCount)), \(isExact ? "losses counted by the server" : "estimated")"
      ),
      (
        "hit rate",
        outcome.groups.isEmpty
          ? "\(Self.percent(report.hitRate))"
          : "\(Self.percent(report.hitRate)) as it is, "
            + "\(Self.percent(report.hitRate(adding: report.lostTokenCount))) with all findings mended"
      ),
    ]
    if report.lostTokenCount > 0 {
      var text = "\(Self.grouped(report.lostTokenCount)) tokens"
      if let cost = outcome.cost {
        text +=
          ", \(Self.money(cost)) \(outcome.prices.currency) "
          + "(\(outcome.providers.joined(separator: ", ")), prices of \(outcome.prices.asOf))"
      }
      if let seconds = outcome.seconds {
        text += ", \(decimalText(seconds, digits: 3)) s of the server's time"
      }
      fields.append(("lost", text))
    }
    var lines = fieldLines(fields)
    if report.hiddenHistoryCount > 0 {
      lines += Self.wrapped(
        "\(counted(report.hiddenHistoryCount, "request")) of which only the server has the history "
          + "(previous_response_id): only tools and instructions are compared",
        indent: 2,
        first: 0
      )
    }
    for fault in outcome.faults { lines.append("warning: \(fault)") }
    if outcome.skipped.count > 0 {
      lines.append("skipped \(counted(outcome.skipped.count, "line")):")
      for example in outcome.skipped.examples {
        let more = example.count > 1 ? " (and \(example.count - 1) more)" : ""
        lines.append("  \(example.text)\(more)")
      }
    }
    return lines
  }

  private var isExact: Bool {
    !outcome.report.findings.isEmpty && outcome.report.findings.contains { $0.isExact }
  }

  // MARK: - Findings

  private var findings: [String] {
    var lines: [String] = []
    for (index, group) in outcome.groups.prefix(limit).enumerated() {
      if index > 0 { lines.append("") }
      let title = "\(index + 1). \(Self.title(group)), \(times(group))"
      lines.append(contentsOf: Self.wrapped(title, indent: 3, first: 0))
      var cost = ""
      if group.tokensLost > 0 {
        cost = "\(Self.grouped(group.tokensLost)) tokens"
        if let money = group.cost { cost += " (\(Self.money(money)) \(outcome.prices.currency))" }
        cost += "; without it the hit rate is \(Self.percent(group.mendedHitRate))"
        lines.append("   \(cost)")
      }
      lines += example(group.example).flatMap { Self.wrapped($0, indent: 5, first: 3) }
      let found = Set(group.findings.compactMap { stored[$0] }).sorted()
      if !found.isEmpty {
        lines += Self.wrapped(
          "In the store, what was sent before is: \(found.joined(separator: ", ")).",
          indent: 3,
          first: 3
        )
      }
      lines += Self.wrapped(group.example.change.remedy, indent: 3, first: 3)
    }
    if outcome.groups.count > limit {
      lines += ["", "… and \(outcome.groups.count - limit) more; --limit shows them"]
    }
    return lines
  }

  private func times(_ group: LintOutcome.Group) -> String {
    group.findings.count == 1 ? "once" : "\(group.findings.count) times"
  }

  private func example(_ finding: LogFinding) -> [String] {
    let change = finding.change
    var place = outcome.sources.count > 1 ? "\(outcome.sources[finding.source]), line " : "line "
    place += "\(finding.line)"
    if finding.previousLine > 0 { place += " (beside line \(finding.previousLine))" }
    if change.path.isEmpty { return [place] }
    place += ": \(change.path)"
    if change.bytesShown { place += ", characters \(change.start)–\(change.end)" }
    guard !isRedacted else { return [place] }
    let (now, was) = Excerpt.pair(now: change.now, was: change.was)
    switch (now.isEmpty, was.isEmpty) {
    case (false, false): return [place, "\(now) was \(was)"]
    case (false, true): return [place, now]
    case (true, false): return [place, "gone: \(was)"]
    case (true, true): return [place]
    }
  }

  /// One finding in one line.
  static func line(_ finding: LogFinding, isRedacted: Bool) -> String {
    let change = isRedacted ? finding.change.withoutKeys : finding.change
    var text = "line \(finding.line): \(title(change.kind, change.shape, change.path))"
    if change.bytesShown, !change.path.isEmpty {
      text += ", characters \(change.start)–\(change.end)"
    }
    text += ": \(grouped(change.tokensLost)) tokens"
    guard !isRedacted else { return text }
    let (now, was) = Excerpt.pair(now: change.now, was: change.was)
    if !now.isEmpty { text += "; \(now)" }
    if !was.isEmpty { text += now.isEmpty ? "; gone: \(was)" : " was \(was)" }
    return text
  }

  static func title(_ group: LintOutcome.Group) -> String {
    title(group.kind, group.shape, group.path)
  }

  private static func title(
    _ kind: RequestChange.Kind,
    _ shape: ValueShape?,
    _ path: String
  ) -> String {
    let place = path.isEmpty ? "" : " in \(path)"
    switch kind {
    case .volatileValue:
      return "\((shape ?? .value).text.capitalizedFirst) that is another one each time\(place)"
    case .keyOrder: return "JSON keys in another order\(place)"
    case .whiteSpace: return "Other blanks or line breaks\(place)"
    case .numberFormat: return "The same number written differently\(place)"
    case .unicodeForm: return "The same characters encoded differently\(place)"
    case .toolsAdded: return "Tools added at \(path)"
    case .toolsRemoved: return "Tools removed at \(path)"
    case .toolsReordered: return "Tools in another order from \(path) on"
    case .toolChanged: return "A tool's definition changed\(place)"
    case .reordered: return "The same parts in another order\(place)"
    case .edited: return "Text edited\(place)"
    case .inserted: return "Inserted between earlier parts: \(path)"
    case .deleted: return "Deleted before \(path)"
    case .truncated: return "Cut off after it was sent\(place)"
    case .compacted: return "Messages compacted into \(path)"
    case .toolResultRemoved: return "A tool's result removed after it was sent\(place)"
    case .attachedAgain: return "The same text attached at another place\(place)"
    case .reasoningDropped: return "Reasoning sent once and then left out\(place)"
    case .reminderMoved: return "A note that moves to a later message, from \(path)"
    case .modelSwitched: return "Model switched in a conversation"
    case .adapterSwitched: return "Adapter switched in a conversation"
    case .templateSwitched: return "Chat template or its arguments changed"
    case .settingChanged: return "A setting of the whole prompt changed\(place)"
    case .dynamicBeforeStatic: return "What differs each time stands before what stays\(place)"
    case .resumedAfterPause: return "Resumed after the cache had forgotten it"
    case .lowHitRate: return "Less than 70 % found in steps 3 to 10 of a conversation"
    }
  }

  // MARK: - The audit

  private var audit: [String] {
    let conversations = outcome.report.conversations
    var fields: [(name: String, value: String)] = []
    let rates = conversations.compactMap { conversation in
      conversation.steps.count >= 3 ? conversation.hitRate(steps: 2..<10) : nil
    }.sorted()
    if !rates.isEmpty {
      let low = rates.count { $0 < 0.7 }
      fields.append(
        (
          "steps 3–10",
          "\(Self.percent(rates[rates.count / 2])) found in the median of "
            + "\(counted(rates.count, "conversation")); \(low) below 70 %"
        )
      )
    }
    let dynamic = conversations.count { !$0.hasStaticSystemPrompt }
    fields.append(
      (
        "front",
        dynamic == 0
          ? "tools and system prompt are the same through every conversation"
          : "tools or system prompt change within "
            + "\(dynamic) of \(counted(conversations.count, "conversation"))"
      )
    )
    let results = conversations.reduce(0) { $0 + $1.toolResultCount }
    if results > 0 {
      let tokens = conversations.reduce(0) { $0 + $1.toolResultTokenCount }
      let largest = conversations.map(\.largestToolResultTokenCount).max() ?? 0
      fields.append(
        (
          "tool results",
          "\(Self.grouped(results)), \(Self.grouped(tokens)) tokens; the largest has "
            + Self.grouped(largest)
        )
      )
    }
    let calls = conversations.reduce(0) { $0 + $1.toolCallCount }
    if calls > 0 {
      let equal = conversations.reduce(0) { $0 + $1.repeatedToolCallCount }
      let equivalent = conversations.reduce(0) { $0 + $1.equivalentToolCallCount }
      fields.append(
        (
          "tool calls",
          "\(Self.grouped(calls)); \(equal) made before in the same conversation, "
            + "\(equivalent) more written differently"
        )
      )
    }
    let lengths = conversations.map(\.steps.count).sorted()
    if let longest = lengths.last {
      fields.append(
        (
          "length",
          "\(counted(lengths[lengths.count / 2], "request")) in the median, \(longest) at most"
        )
      )
    }
    if let pause = conversations.map(\.longestPause).max(), pause > 0 {
      fields.append(("longest pause", pauseText(pause)))
    }
    return fieldLines(fields)
  }

  private func pauseText(_ seconds: Double) -> String {
    seconds < 120
      ? "\(decimalText(seconds, digits: 2)) s"
      : seconds < 7_200
        ? "\(Int(seconds / 60)) min"
        : seconds < 172_800
          ? "\(Int(seconds / 3_600)) h" : "\(Int(seconds / 86_400)) days"
  }

  // MARK: - Numbers and lines

  static func percent(_ rate: Double) -> String {
    String(format: "%.1f %%", (rate * 1_000).rounded(.down) / 10)
  }

  static func money(_ value: Double) -> String {
    String(format: value < 1 ? "%.4f" : "%.2f", value)
  }

  /// With commas between thousands.
  static func grouped(_ count: Int) -> String {
    var text = ""
    for (index, digit) in String(count).reversed().enumerated() {
      if index > 0, index % 3 == 0, digit != "-" { text.append(",") }
      text.append(digit)
    }
    return String(text.reversed())
  }

  static func wrapped(_ text: String, indent: Int, first: Int) -> [String] {
    var lines: [String] = []
    var line = String(repeating: " ", count: first)
    var isEmpty = true
    for word in text.split(separator: " ", omittingEmptySubsequences: false) {
      if !isEmpty, line.count + 1 + word.count > width {
        lines.append(line)
        line = String(repeating: " ", count: indent)
        isEmpty = true
      }
      line += isEmpty ? "\(word)" : " \(word)"
      isEmpty = false
    }
    return lines + [line]
  }
}

extension RequestChange {
  /// With the path of the field, and not of what lies in its value: keys of arguments are the prompt's own.
  var withoutKeys: RequestChange {
    var change = self
    change.path = change.fieldPath
    change.previousPath = change.previousFieldPath
    return change
  }

  /// A stretch within the field, not the field as a whole.
  var bytesShown: Bool { end > start || !now.isEmpty }
}

extension String {
  fileprivate var capitalizedFirst: String { prefix(1).uppercased() + dropFirst() }
}

/// The few characters that show a fault.
enum Excerpt {
  private static let countMax = 32

  /// Both texts around where they differ, in quotes.
  static func pair(now: String, was: String) -> (now: String, was: String) {
    let common = zip(now, was).prefix { $0 == $1 }.count
    let start = now.isEmpty || was.isEmpty ? 0 : max(0, common - 8)
    return (short(now, from: start), short(was, from: start))
  }

  private static func short(_ text: String, from start: Int) -> String {
    guard !text.isEmpty else { return "" }
    let rest = printable(String(text.dropFirst(start).prefix(countMax + 1)))
    let isCut = rest.count > countMax
    return
      "“\(start > 0 ? "…" : "")\(mask(isCut ? String(rest.prefix(countMax)) : rest))\(isCut ? "…" : "")”"
  }

  /// Keys and tokens are shown by their beginning only.
  private static func mask(_ text: String) -> String {
    var result = ""
    var word = ""
    func finish() {
      result += isSecret(word) ? word.prefix(6) + "…" : word
      word = ""
    }
    for character in text {
      if " /:=?&@,;\"'".contains(character) {
        finish()
        result.append(character)
      } else {
        word.append(character)
      }
    }
    finish()
    return result
  }

  /// Letters mixed with digits, or with capitals, as nobody writes words.
  private static func isSecret(_ word: String) -> Bool {
    let hasDigit = word.contains(where: \.isNumber)
    let hasLetter = word.contains(where: \.isLetter)
    if word.count >= 16, hasDigit, hasLetter { return true }
    let hasBoth = word.contains(where: \.isUppercase) && word.contains(where: \.isLowercase)
    if word.count >= 10, hasDigit, hasBoth { return true }
    let changes = zip(word, word.dropFirst()).count {
      $0.isLetter && $1.isLetter && $0.isUppercase != $1.isUppercase
    }
    return word.count >= 12 && changes >= 4
  }
}
