/// The few elements that the pictures are made of.
enum SVGElement {
  static func line(
    _ x1: Double,
    _ y1: Double,
    _ x2: Double,
    _ y2: Double,
    _ color: String,
    width: Double = 1
  ) -> String {
    "<line x1=\"\(number(x1))\" y1=\"\(number(y1))\" x2=\"\(number(x2))\" y2=\"\(number(y2))\" "
      + "stroke=\"\(color)\"\(width == 1 ? "" : " stroke-width=\"\(number(width))\"")/>"
  }

  static func rectangle(
    _ x: Double,
    _ y: Double,
    _ width: Double,
    _ height: Double,
    _ color: String
  ) -> String {
    "<rect x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(width))\" "
      + "height=\"\(number(height))\" fill=\"\(color)\"/>"
  }

  static func label(
    _ x: Double,
    _ y: Double,
    _ text: String,
    size: Int = 13,
    anchor: String = "middle"
  ) -> String {
    "<text x=\"\(number(x))\" y=\"\(number(y))\" font-size=\"\(size)\" text-anchor=\"\(anchor)\">\(escaped(text))</text>"
  }

  /// Hundredths of a pixel: the same text on any machine.
  static func number(_ value: Double) -> String { String(format: "%.2f", value) }

  static func escaped(_ text: String) -> String {
    text.replacingOccurrences(of: "&", with: "&amp;").replacingOccurrences(of: "<", with: "&lt;")
  }
}
