import ArgumentParser

/// A length of time as people write it: 90s, 15m, 3h, 2d.
struct TimeSpan: ExpressibleByArgument {
  let seconds: UInt64

  init?(argument: String) {
    let digits = argument.prefix { $0.isASCII && $0.isNumber }
    let factors: [String: UInt64] = ["s": 1, "m": 60, "h": 3_600, "d": 86_400]
    guard let number = UInt64(digits),
      let factor = factors[argument.dropFirst(digits.count).lowercased()]
    else { return nil }
    let (seconds, overflow) = number.multipliedReportingOverflow(by: factor)
    guard !overflow else { return nil }
    self.seconds = seconds
  }
}
