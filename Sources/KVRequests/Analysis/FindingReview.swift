/// What only the whole log tells: that a value changes again and again, that two fronts live side by side, that a rate is low.
struct FindingReview {
  /// The last conversation that began with a front.
  let frontUses: [UInt64: Int]
  /// Requests with a twin that were gone on from.
  let continued: Set<UInt64>

  func review(_ report: inout LogReport) {
    nameRecurring(&report)
    dropParallelFronts(&report)
    dropTwins(&report)
    addLowHitRates(&report)
    report.findings.sort { ($0.source, $0.line) < ($1.source, $1.line) }
  }

  /// The same place in the same surroundings.
  private struct Place: Hashable {
    var path: String
    var context: UInt64
  }

  private static let lowRate = 0.7

  /// An edit that happens at the same place again and again is no edit: a value of which nobody knows the shape.
  private func nameRecurring(_ report: inout LogReport) {
    var places: [Place: [Int]] = [:]
    for (index, finding) in report.findings.enumerated()
    where finding.change.kind == .edited && finding.change.bytes != nil {
      places[place(finding), default: []].append(index)
    }
    for indices in places.values where indices.count >= 2 {
      let texts = Set(indices.map { report.findings[$0].change.now })
      guard texts.count >= 2 else { continue }
      for index in indices {
        let change = report.findings[index].change
        let isLong = max(change.now.utf8.count, change.was.utf8.count) > 64
        report.findings[index].change.kind = isLong ? .dynamicBeforeStatic : .volatileValue
        if !isLong { report.findings[index].change.shape = .value }
      }
    }
  }

  private func place(_ finding: LogFinding) -> Place {
    Place(path: finding.change.path, context: finding.change.context)
  }

  /// Two agents with much the same rules, used side by side: neither is an edit of the other.
  private func dropParallelFronts(_ report: inout LogReport) {
    drop(from: &report) { finding in
      guard finding.isBetweenConversations, let front = finding.otherFront,
        let last = frontUses[front], last > finding.conversation - 1
      else { return false }
      switch finding.change.kind {
      case .edited, .inserted, .deleted, .toolsAdded, .toolsRemoved, .toolChanged, .truncated,
        .modelSwitched, .adapterSwitched, .templateSwitched, .settingChanged:
        return true
      default: return false
      }
    }
  }

  /// One prompt for two models, both of which go on: none was switched for the other.
  private func dropTwins(_ report: inout LogReport) {
    drop(from: &report) { finding in finding.twin.map { continued.contains($0) } ?? false }
  }

  /// Removes findings, and what their steps have lost by them.
  private func drop(from report: inout LogReport, where isNone: (LogFinding) -> Bool) {
    for finding in report.findings where isNone(finding) {
      let (conversation, step) = (finding.conversation - 1, finding.step - 1)
      let lost = report.conversations[conversation].steps[step].lostTokenCount
      report.conversations[conversation].steps[step].lostTokenCount =
        max(0, lost - finding.change.tokensLost)
    }
    report.findings.removeAll(where: isNone)
  }

  private func addLowHitRates(_ report: inout LogReport) {
    for conversation in report.conversations where conversation.steps.count >= 3 {
      guard let rate = conversation.hitRate(steps: 2..<10), rate < Self.lowRate else { continue }
      let window = conversation.steps[2..<min(10, conversation.steps.count)]
      // Only where something can be done: much that is new each time is no fault.
      guard let worst = window.max(by: { $0.lostTokenCount < $1.lostTokenCount }),
        worst.lostTokenCount > 0
      else { continue }
      let step = (conversation.steps.firstIndex { $0.line == worst.line } ?? 0) + 1
      var finding = LogFinding(
        source: worst.source,
        line: worst.line,
        previousLine: 0,
        conversation: conversation.number,
        step: step,
        isBetweenConversations: false,
        change: RequestChange(
          kind: .lowHitRate,
          shape: nil,
          path: "",
          start: 0,
          end: 0,
          previousPath: nil,
          now: "\(Int(rate * 100)) %",
          was: "",
          tokensLost: 0,
          position: 0,
          context: 0,
          node: 0,
          previousNode: nil
        )
      )
      // Its tokens are those of the other findings.
      finding.change.tokensLost = 0
      report.findings.append(finding)
    }
  }
}
