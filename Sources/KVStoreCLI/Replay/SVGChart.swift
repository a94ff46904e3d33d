import Glibc

/// A picture that answers one question: lines over two axes, or bars.
struct SVGChart {
  /// One line or one kind of bar.
  struct Series {
    var name: String
    var points: [(x: Double, y: Double)]
  }

  enum Kind { case lines, steps, bars }

  var title: String
  var xName: String
  var yName: String
  var kind = Kind.lines
  /// Powers of ten at equal distances.
  var isXLogarithmic = false
  var series: [Series]
  /// Of bars: what stands below each, by x from 0 on.
  var barNames: [String] = []
  var yMax: Double?

  private static let width = 760.0
  private static let height = 420.0
  private static let left = 76.0
  private static let right = 24.0
  private static let top = 48.0
  private static let bottom = 84.0
  /// Told apart by people who see colours differently (Okabe and Ito 2008).
  private static let colors = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"]

  func text() -> String {
    var out: [String] = []
    out.append(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(Int(Self.width)) \(Int(Self.height))\" "
        + "font-family=\"sans-serif\" font-size=\"13\">"
    )
    out.append("<rect width=\"100%\" height=\"100%\" fill=\"white\"/>")
    out.append(SVGElement.label(Self.left, 24, title, size: 16, anchor: "start"))
    out += axes()
    for (index, one) in series.enumerated() { out += draw(one, index) }
    out += legend()
    out.append("</svg>")
    return out.joined(separator: "\n") + "\n"
  }

  // MARK: Scales

  private var xs: [Double] { series.flatMap { $0.points.map(\.x) } }

  private var xRange: ClosedRange<Double> {
    if kind == .bars { return -0.5...(Double(max(1, barNames.count)) - 0.5) }
    let low = isXLogarithmic ? xs.filter { $0 > 0 }.min() ?? 1 : min(0, xs.min() ?? 0)
    let high = max(xs.max() ?? 1, low * (isXLogarithmic ? 10 : 1) + (isXLogarithmic ? 0 : 1e-9))
    return low...high
  }

  private var yTop: Double {
    yMax ?? niceCeiling(series.flatMap { $0.points.map(\.y) }.max() ?? 1)
  }

  private func x(_ value: Double) -> Double {
    let span = Self.width - Self.left - Self.right
    let range = xRange
    guard isXLogarithmic else {
      return Self.left + span * (value - range.lowerBound) / (range.upperBound - range.lowerBound)
    }
    let low = log10(range.lowerBound)
    return Self.left + span * (log10(max(value, range.lowerBound)) - low)
      / (log10(range.upperBound) - low)
  }

  private func y(_ value: Double) -> Double {
    let span = Self.height - Self.top - Self.bottom
    return Self.height - Self.bottom - span * min(value, yTop) / yTop
  }

  private func niceCeiling(_ value: Double) -> Double {
    guard value > 0 else { return 1 }
    let power = pow(10, floor(log10(value)))
    for factor in [1.0, 2, 2.5, 5, 10] where value <= factor * power { return factor * power }
    return 10 * power
  }

  // MARK: Parts

  private func axes() -> [String] {
    var out: [String] = []
    let baseline = Self.height - Self.bottom
    for step in 0...5 {
      let value = yTop * Double(step) / 5
      out.append(SVGElement.line(Self.left, y(value), Self.width - Self.right, y(value), "#dddddd"))
      out.append(
        SVGElement.label(Self.left - 8, y(value) + 4, decimalText(value, digits: 3), anchor: "end")
      )
    }
    if kind == .bars {
      for (index, name) in barNames.enumerated() where barNames.count <= 16 || index % 2 == 0 {
        out.append(SVGElement.label(x(Double(index)), baseline + 18, name))
      }
    } else {
      for value in xTicks() {
        out.append(SVGElement.line(x(value), baseline, x(value), baseline + 5, "#444444"))
        out.append(SVGElement.label(x(value), baseline + 18, decimalText(value, digits: 3)))
      }
    }
    out.append(SVGElement.line(Self.left, baseline, Self.width - Self.right, baseline, "#444444"))
    out.append(SVGElement.label((Self.left + Self.width - Self.right) / 2, baseline + 38, xName))
    let middle = (Self.top + baseline) / 2
    out.append(
      "<text x=\"18\" y=\"\(SVGElement.number(middle))\" text-anchor=\"middle\" "
        + "transform=\"rotate(-90 18 \(SVGElement.number(middle)))\">\(SVGElement.escaped(yName))</text>"
    )
    return out
  }

  private func xTicks() -> [Double] {
    let range = xRange
    guard isXLogarithmic else {
      return (0...5).map {
        range.lowerBound + (range.upperBound - range.lowerBound) * Double($0) / 5
      }
    }
    let low = Int(ceil(log10(range.lowerBound) - 1e-9))
    let high = Int(floor(log10(range.upperBound) + 1e-9))
    return low <= high ? (low...high).map { pow(10, Double($0)) } : [range.lowerBound]
  }

  private func draw(_ series: Series, _ index: Int) -> [String] {
    let color = Self.colors[index % Self.colors.count]
    if kind == .bars {
      let slot = (Self.width - Self.left - Self.right) / Double(max(1, barNames.count))
      let width = slot * 0.8 / Double(max(1, self.series.count))
      return series.points.map { point in
        let left = x(point.x) - slot * 0.4 + width * Double(index)
        return
          "<rect x=\"\(SVGElement.number(left))\" y=\"\(SVGElement.number(y(point.y)))\" width=\"\(SVGElement.number(width))\" "
          + "height=\"\(SVGElement.number(y(0) - y(point.y)))\" fill=\"\(color)\"/>"
      }
    }
    var path = ""
    var lastY: Double?
    for point in series.points {
      if kind == .steps, let lastY {
        path += " \(SVGElement.number(x(point.x))),\(SVGElement.number(y(lastY)))"
      }
      path += " \(SVGElement.number(x(point.x))),\(SVGElement.number(y(point.y)))"
      lastY = point.y
    }
    return [
      "<polyline points=\"\(path.dropFirst())\" fill=\"none\" stroke=\"\(color)\" stroke-width=\"2\"/>"
    ]
  }

  private func legend() -> [String] {
    guard series.count > 1 else { return [] }
    var out: [String] = []
    var left = Self.left
    for (index, one) in series.enumerated() {
      let color = Self.colors[index % Self.colors.count]
      out.append(
        "<rect x=\"\(SVGElement.number(left))\" y=\"\(Int(Self.height) - 28)\" width=\"14\" height=\"14\" fill=\"\(color)\"/>"
      )
      out.append(SVGElement.label(left + 20, Self.height - 16, one.name, anchor: "start"))
      left += 40 + Double(one.name.count) * 8
    }
    return out
  }
}
