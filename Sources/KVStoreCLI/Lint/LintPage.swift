import KVRequests

/// The outcome as one page, without scripts and without network access, in light and dark.
struct LintPage {
  private let outcome: LintOutcome
  private let isRedacted: Bool

  init(_ outcome: LintOutcome, isRedacted: Bool) {
    self.outcome = outcome
    self.isRedacted = isRedacted
  }

  var html: String {
    """
    <!doctype html>
    <html lang="en">
    <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
    <title>kvstore lint</title>
    <style>
    :root { color-scheme: light dark; --back: light-dark(#f7f7f5, #14171a); --card: light-dark(#fff, #1d2125); --text: light-dark(#1d2023, #e6e8ea); --dim: light-dark(#62686e, #9aa3ab); --line: light-dark(#dcdfe2, #343a40); --good: light-dark(#2c7a4b, #6cc38f); --warn: light-dark(#b3471d, #f08a5d); }
    * { box-sizing: border-box; }
    body { margin: 0; background: var(--back); color: var(--text); font: 14px/1.5 system-ui, "DejaVu Sans", sans-serif; }
    main { max-width: 1100px; margin: 0 auto; padding: 20px; }
    h1 { font-size: 20px; margin: 0 0 14px; overflow-wrap: anywhere; }
    h2 { font-size: 15px; margin: 0 0 10px; }
    section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; margin-bottom: 14px; overflow-x: auto; }
    dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 0; }
    dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
    table { border-collapse: collapse; width: 100%; }
    th, td { text-align: left; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
    td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
    code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px; overflow-wrap: anywhere; }
    .dim { color: var(--dim); }
    svg { display: block; width: 100%; max-width: 760px; height: auto; }
    svg text { fill: var(--dim); font-size: 12px; }
    </style>
    </head>
    <body>
    <main>
    <h1>What breaks the prefix</h1>
    <section><dl>\(facts)</dl></section>
    <section><h2>Findings</h2>\(findings)</section>
    <section><h2>Hit rate by step of a conversation</h2>\(chart)</section>
    <section><h2>Conversations</h2>\(conversations)</section>
    </main>
    </body>
    </html>

    """
  }

  private func escaped(_ text: String) -> String {
    SVGElement.escaped(text).replacingOccurrences(of: "\"", with: "&quot;")
  }

  private var facts: String {
    let report = outcome.report
    var facts: [(String, String)] = [
      ("log", outcome.sources.joined(separator: ", ")),
      ("requests", LintText.grouped(report.requestCount)),
      ("tokens", "\(LintText.grouped(report.tokenCount)), estimated"),
      ("hit rate as it is", LintText.percent(report.hitRate)),
      ("with all findings mended", LintText.percent(report.hitRate(adding: report.lostTokenCount))),
      ("tokens lost", LintText.grouped(report.lostTokenCount)),
    ]
    if let cost = outcome.cost {
      facts.append(
        (
          "cost",
          "\(LintText.money(cost)) \(outcome.prices.currency), prices of \(outcome.prices.asOf)"
        )
      )
    }
    if outcome.skipped.count > 0 { facts.append(("lines skipped", "\(outcome.skipped.count)")) }
    return facts.map { "<dt>\(escaped($0.0))</dt><dd>\(escaped($0.1))</dd>" }.joined()
  }

  private var findings: String {
    guard !outcome.groups.isEmpty else {
      return "<p>None: each request goes on from what was sent before.</p>"
    }
    let rows = outcome.groups.map { group -> String in
      let change = group.example.change
      var example = "line \(group.example.line)"
      if !change.path.isEmpty {
        example += ": <code>\(escaped(change.path))</code>, \(change.start)–\(change.end)"
      }
      if !isRedacted {
        let (now, was) = Excerpt.pair(now: change.now, was: change.was)
        if !now.isEmpty { example += "<br>now <code>\(escaped(now))</code>" }
        if !was.isEmpty { example += "<br>was <code>\(escaped(was))</code>" }
      }
      return
        "<tr><td>\(escaped(LintText.title(group)))<br><span class=\"dim\">\(escaped(change.remedy))</span></td>"
        + "<td class=\"n\">\(group.findings.count)</td>"
        + "<td class=\"n\">\(LintText.grouped(group.tokensLost))</td>"
        + "<td class=\"n\">\(LintText.percent(group.mendedHitRate))</td><td>\(example)</td></tr>"
    }
    return "<table><tr><th>what</th><th class=\"n\">times</th><th class=\"n\">tokens lost</th>"
      + "<th class=\"n\">hit rate without it</th><th>for example</th></tr>"
      + rows.joined() + "</table>"
  }

  /// Of each step, over all conversations: what was found, and what would have been.
  private var chart: String {
    var sums: [(tokens: Int, found: Int, lost: Int)] = []
    for conversation in outcome.report.conversations {
      for (index, step) in conversation.steps.prefix(40).enumerated() {
        if index == sums.count { sums.append((0, 0, 0)) }
        sums[index].tokens += step.tokenCount
        sums[index].found += step.foundTokenCount
        sums[index].lost += step.lostTokenCount
      }
    }
    let width = 700.0 / Double(max(1, sums.count))
    var text =
      "<svg viewBox=\"0 0 760 230\" role=\"img\" aria-label=\"hit rate by step: as it is, and mended\">"
    for (share, label) in [(0.0, "0 %"), (0.5, "50 %"), (1.0, "100 %")] {
      let y = 190 - 170 * share
      text += "<line x1=\"50\" y1=\"\(y)\" x2=\"750\" y2=\"\(y)\" stroke=\"var(--line)\"/>"
      text += "<text x=\"44\" y=\"\(y + 4)\" text-anchor=\"end\">\(label)</text>"
    }
    for (index, sum) in sums.enumerated() where sum.tokens > 0 {
      let found = Double(sum.found) / Double(sum.tokens) * 170
      let lost = min(170 - found, Double(sum.lost) / Double(sum.tokens) * 170)
      let x = 50 + Double(index) * width
      let thickness = max(1, width - 2)
      text += bar(x, 190 - found, thickness, found, "var(--good)", "step \(index + 1): found")
      text += bar(x, 190 - found - lost, thickness, lost, "var(--warn)", "step \(index + 1): lost")
    }
    text += "<text x=\"50\" y=\"208\">step 1</text>"
    text += "<text x=\"750\" y=\"208\" text-anchor=\"end\">step \(sums.count)</text>"
    text += "<text x=\"50\" y=\"226\">green: found; orange: lost to findings</text></svg>"
    return text
  }

  private func bar(
    _ x: Double,
    _ y: Double,
    _ width: Double,
    _ height: Double,
    _ color: String,
    _ title: String
  ) -> String {
    guard height > 0 else { return "" }
    let number = SVGElement.number
    return "<rect x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(width))\" "
      + "height=\"\(number(height))\" fill=\"\(color)\"><title>\(title)</title></rect>"
  }

  private var conversations: String {
    let worst = outcome.report.conversations.sorted { a, b in
      a.steps.reduce(0) { $0 + $1.lostTokenCount } > b.steps.reduce(0) { $0 + $1.lostTokenCount }
    }
    let rows = worst.prefix(50).map { conversation -> String in
      let lost = conversation.steps.reduce(0) { $0 + $1.lostTokenCount }
      return "<tr><td class=\"n\">\(conversation.number)</td>"
        + "<td class=\"n\">\(conversation.steps.first?.line ?? 0)</td>"
        + "<td class=\"n\">\(conversation.steps.count)</td>"
        + "<td class=\"n\">\(LintText.percent(conversation.hitRate() ?? 0))</td>"
        + "<td class=\"n\">\(LintText.grouped(lost))</td>"
        + "<td class=\"n\">\(LintText.grouped(conversation.toolResultTokenCount))</td>"
        + "<td class=\"n\">\(conversation.repeatedToolCallCount + conversation.equivalentToolCallCount)</td></tr>"
    }
    let more =
      worst.count > 50 ? "<p class=\"dim\">and \(worst.count - 50) more that lost less</p>" : ""
    return "<table><tr><th class=\"n\">conversation</th><th class=\"n\">first line</th>"
      + "<th class=\"n\">requests</th><th class=\"n\">hit rate</th><th class=\"n\">tokens lost</th>"
      + "<th class=\"n\">tokens of tool results</th><th class=\"n\">calls repeated</th></tr>"
      + rows.joined() + "</table>" + more
  }
}
