import Glibc

/// What a bench measured as one picture: throughputs as shares of their limits, and times from the median to the 99.9th percentile.
struct BenchPlot {
  let figures: [Figure]

  private static let chartWidth = 420.0
  /// What stands behind the longest bar.
  private static let right = 130.0
  /// Of a letter of the names, at most on average.
  private static let letterWidth = 6.6
  private static let rowHeight = 22.0
  private static let headHeight = 64.0
  private static let barColor = "#0072B2"
  private static let limitColor = "#D55E00"
  private static let gridColor = "#dddddd"

  /// Room for the longest name.
  private let left: Double
  private var width: Double { left + Self.chartWidth + Self.right }

  init(figures: [Figure]) {
    self.figures = figures
    let longest = figures.map { Self.name($0).count }.max() ?? 0
    left = max(160, Double(longest) * Self.letterWidth + 24)
  }

  private var shares: [Figure] { figures.filter { $0.unit == "GB/s" && $0.limit != nil } }
  private var times: [Figure] {
    figures.filter { $0.unit == "ns" && $0.series.median >= 1 }
  }

  func text() -> String {
    var body: [String] = []
    var y = 0.0
    if !shares.isEmpty {
      body += sharePanel(from: y)
      y += Self.headHeight + Double(shares.count) * Self.rowHeight + 24
    }
    if !times.isEmpty {
      body += timePanel(from: y)
      y += Self.headHeight + Double(times.count) * Self.rowHeight + 24
    }
    let head =
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(Int(width)) \(Int(max(y, 40)))\" "
      + "font-family=\"sans-serif\" font-size=\"13\">"
    return ([head, "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"] + body + ["</svg>"])
      .joined(separator: "\n") + "\n"
  }

  /// A bar for each throughput; the line at 1 is the limit.
  private func sharePanel(from top: Double) -> [String] {
    let most = max(1.2, shares.compactMap(\.ratio).max() ?? 1)
    let scale = (Self.chartWidth) / most
    let bottom = top + Self.headHeight + Double(shares.count) * Self.rowHeight
    var out = [
      SVGElement.label(
        16,
        top + 24,
        "Throughput ÷ its limit of the same run",
        size: 16,
        anchor: "start"
      )
    ]
    for tick in stride(from: 0, through: most, by: most > 4 ? 1 : 0.2) {
      let x = left + tick * scale
      out.append(SVGElement.line(x, top + Self.headHeight - 8, x, bottom, Self.gridColor))
      out.append(SVGElement.label(x, top + Self.headHeight - 12, decimalText(tick, digits: 2)))
    }
    for (row, figure) in shares.enumerated() {
      let y = top + Self.headHeight + Double(row) * Self.rowHeight
      let ratio = figure.ratio ?? 0
      out.append(name(figure, y))
      out.append(
        SVGElement.rectangle(left, y + 3, ratio * scale, Self.rowHeight - 6, Self.barColor)
      )
      out.append(
        SVGElement.label(
          left + ratio * scale + 6,
          y + 16,
          "\(decimalText(ratio, digits: 2)) (\(decimalText(figure.series.median, digits: 2)) GB/s)",
          size: 11,
          anchor: "start"
        )
      )
    }
    let one = left + scale
    out.append(
      SVGElement.line(one, top + Self.headHeight - 8, one, bottom, Self.limitColor, width: 2)
    )
    return out
  }

  /// The value as a mark, and where there are single calls a line from the median to the 99.9th percentile, on a logarithmic scale.
  private func timePanel(from top: Double) -> [String] {
    let all = times.flatMap { ends($0) }
    let low = floor(log10(max(1, all.min() ?? 1)))
    let high = max(low + 1, ceil(log10(max(1, all.max() ?? 1))))
    func x(_ nanoseconds: Double) -> Double {
      let share = (log10(max(1, nanoseconds)) - low) / (high - low)
      return left + share * (Self.chartWidth)
    }
    let bottom = top + Self.headHeight + Double(times.count) * Self.rowHeight
    var out = [
      SVGElement.label(
        16,
        top + 24,
        "Times: median, and the calls up to the 99.9th percentile",
        size: 16,
        anchor: "start"
      )
    ]
    for power in Int(low)...Int(high) {
      let tick = x(pow(10, Double(power)))
      out.append(SVGElement.line(tick, top + Self.headHeight - 8, tick, bottom, Self.gridColor))
      out.append(
        SVGElement.label(tick, top + Self.headHeight - 12, powerText(power))
      )
    }
    for (row, figure) in times.enumerated() {
      let y = top + Self.headHeight + Double(row) * Self.rowHeight
      let marks = ends(figure)
      out.append(name(figure, y))
      if let last = marks.last, marks.count > 1 {
        out.append(SVGElement.line(x(marks[0]), y + 11, x(last), y + 11, Self.barColor, width: 2))
      }
      out.append(
        SVGElement.rectangle(x(figure.series.median) - 3, y + 5, 6, 12, Self.barColor)
      )
      out.append(
        SVGElement.label(
          x(marks.max() ?? 1) + 8,
          y + 15,
          timeText(UInt64(figure.series.median)),
          size: 11,
          anchor: "start"
        )
      )
    }
    return out
  }

  /// The value, and the ends of what the single calls took.
  private func ends(_ figure: Figure) -> [Double] {
    let sorted = figure.series.latencies.sorted()
    let percentiles = [0.5, 0.999].compactMap { figure.series.percentile($0, sorted: sorted) }
    return percentiles.isEmpty ? [figure.series.median] : percentiles.map { Double($0) }
  }

  private func name(_ figure: Figure, _ y: Double) -> String {
    SVGElement.label(
      left - 10,
      y + 15,
      Self.name(figure),
      size: 11,
      anchor: "end"
    )
  }

  private static func name(_ figure: Figure) -> String { "\(figure.workload): \(figure.measure)" }

  /// A power of ten of nanoseconds: `1 µs`, `10 ms`.
  private func powerText(_ power: Int) -> String {
    let units = ["ns", "µs", "ms", "s"]
    let unit = min(power / 3, units.count - 1)
    return "\(Int(pow(10, Double(power - 3 * unit)))) \(units[unit])"
  }
}
