import ArgumentParser

/// A number of bytes as people write it: 4096, 288KiB, 2MiB, 1.5GiB; decimal units (kB, MB) too.
struct ByteSize: ExpressibleByArgument, CustomStringConvertible {
  let byteCount: Int

  init(_ byteCount: Int) { self.byteCount = byteCount }

  init?(argument: String) {
    let digits = argument.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
    let unit = argument.dropFirst(digits.count).drop { $0 == " " }.lowercased()
    guard let number = Double(digits), let factor = Self.factors[unit] else { return nil }
    let byteCount = number * Double(factor)
    // Above 2^60 nothing is a size that a disk has; the bound also keeps the conversion exact.
    guard byteCount.isFinite, byteCount >= 1, byteCount <= Double(1 << 60) else { return nil }
    self.byteCount = Int(byteCount)
  }

  private static let factors: [String: Int] = [
    "": 1, "b": 1,
    "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20,
    "g": 1 << 30, "gib": 1 << 30, "t": 1 << 40, "tib": 1 << 40,
    "kb": 1_000, "mb": 1_000_000, "gb": 1_000_000_000, "tb": 1_000_000_000_000,
  ]

  var defaultValueDescription: String { description }

  var description: String { byteText(byteCount) }
}

/// A number of bytes in binary units: `512 B`, `288 KiB`, `1.5 GiB`.
func byteText(_ byteCount: some BinaryInteger) -> String {
  var value = Double(byteCount)
  var unit = "B"
  for next in ["KiB", "MiB", "GiB", "TiB"] where value >= 1024 {
    value /= 1024
    unit = next
  }
  return "\(decimalText(value, digits: 3)) \(unit)"
}

/// At least `digits` significant digits; whole numbers without a point.
func decimalText(_ value: Double, digits: Int) -> String {
  guard value.isFinite else { return "–" }
  var places = digits - 1
  var magnitude = value.magnitude
  while magnitude >= 10, places > 0 {
    magnitude /= 10
    places -= 1
  }
  while magnitude < 1, magnitude > 0, places < 9 {
    magnitude *= 10
    places += 1
  }
  let scale = (0..<places).reduce(1.0) { factor, _ in factor * 10 }
  let rounded = (value * scale).rounded() / scale
  if rounded == rounded.rounded(), rounded.magnitude < 1e15 { return String(Int(rounded)) }
  var text = String(Int(rounded.magnitude.rounded(.down)))
  var fraction = String(
    Int(((rounded.magnitude - rounded.magnitude.rounded(.down)) * scale).rounded())
  )
  fraction = String(repeating: "0", count: max(0, places - fraction.count)) + fraction
  while fraction.hasSuffix("0") { fraction.removeLast() }
  text += "." + fraction
  return value < 0 ? "-" + text : text
}

/// How long ago a moment was: `12 s ago`, `3 h ago`.
func ageText(secondsAgo: Int) -> String {
  guard secondsAgo >= 0 else { return "in \(durationText(seconds: -secondsAgo))" }
  return "\(durationText(seconds: secondsAgo)) ago"
}

private func durationText(seconds: Int) -> String {
  switch seconds {
  case ..<120: "\(seconds) s"
  case ..<7_200: "\(seconds / 60) min"
  case ..<172_800: "\(seconds / 3_600) h"
  default: "\(seconds / 86_400) d"
  }
}
