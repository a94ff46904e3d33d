import FoundationEssentials
import KVSimulation

/// The pictures of a simulated replay, one for each question.
struct EnginePlots {
  let comparison: EngineComparison
  let report: EngineReport

  /// Writes them; returns the files' paths.
  func write(to folder: String) throws -> [String] {
    try writeCharts(
      [
        ("ttft", ttft()), ("prefill", prefill()), ("tiers", tiers()), ("turns", turns()),
      ],
      to: folder
    )
  }

  private func ttft() -> SVGChart {
    func series(_ name: String, _ result: EngineResult) -> SVGChart.Series {
      let sorted = result.firstTokenNanoseconds.sorted()
      let points = (0...200).compactMap { step -> (x: Double, y: Double)? in
        guard !sorted.isEmpty else { return nil }
        let part = Double(step) / 200
        let index = min(sorted.count - 1, Int(part * Double(sorted.count)))
        return (max(Double(sorted[index]) / 1e9, 1e-3), part)
      }
      return SVGChart.Series(name: name, points: points)
    }
    return SVGChart(
      title: "How long until the first token?",
      xName: "time to first token, seconds",
      yName: "part of the requests",
      isXLogarithmic: true,
      series: [
        series("with store", comparison.withStore), series("without", comparison.withoutStore),
      ],
      yMax: 1
    )
  }

  private func prefill() -> SVGChart {
    func bars(_ name: String, _ value: (EngineReport.Arm) -> Int) -> SVGChart.Series {
      SVGChart.Series(
        name: name,
        points: [
          (0, Double(value(report.withStore)) / 1e6), (1, Double(value(report.withoutStore)) / 1e6),
        ]
      )
    }
    return SVGChart(
      title: "Where do the input tokens come from?",
      xName: "",
      yName: "million tokens",
      kind: .bars,
      series: [
        bars("computed", \.prefillTokens), bars("in device memory", \.deviceHitTokens),
        bars("restored", \.restoredTokens),
      ],
      barNames: ["with store", "without"]
    )
  }

  private func tiers() -> SVGChart {
    func bars(_ name: String, _ value: (TierResult) -> Int) -> SVGChart.Series {
      SVGChart.Series(
        name: name,
        points: report.tiers.enumerated().map {
          (Double($0.offset), Double(value($0.element)) / 1e9)
        }
      )
    }
    return SVGChart(
      title: "What does each tier read and write?",
      xName: "tier",
      yName: "GB",
      kind: .bars,
      series: [bars("read", \.readByteCount), bars("written", \.writtenByteCount)],
      barNames: report.tiers.map(\.name)
    )
  }

  /// nil when the trace has no turns.
  private func turns() -> SVGChart? {
    guard !report.turns.isEmpty else { return nil }
    return SVGChart(
      title: "How much is reused at each turn of a session?",
      xName: "turn",
      yName: "part of the input tokens",
      kind: .bars,
      series: [
        SVGChart.Series(
          name: "reused",
          points: report.turns.enumerated().map {
            let turn = $0.element
            let part =
              turn.tokenCount == 0 ? 0 : Double(turn.hitTokenCount) / Double(turn.tokenCount)
            return (Double($0.offset), part)
          }
        )
      ],
      barNames: report.turns.map {
        $0.turn == EngineResult.turnMax ? "\($0.turn)+" : "\($0.turn)"
      },
      yMax: 1
    )
  }
}

/// Writes charts as NAME.svg; returns the files' paths.
func writeCharts(_ charts: [(name: String, chart: SVGChart?)], to folder: String) throws -> [String]
{
  var files: [String] = []
  do {
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    for (name, chart) in charts {
      guard let chart else { continue }
      let file = folder + "/" + name + ".svg"
      try writeFile(file, chart.text())
      files.append(file)
    }
  } catch let failure as CommandFailure {
    throw failure
  } catch {
    throw CommandFailure("cannot make the folder \(folder)")
  }
  return files
}
