import Glibc

// What Foundation would be linked for, with 45 MB of tables about the world's languages.

extension String {
  /// As printf has it, at most 511 bytes of it.
  init(format: String, _ arguments: any CVarArg...) {
    var text = [CChar](repeating: 0, count: 512)
    let capacity = text.count
    let count = unsafe withVaList(arguments) { unsafe vsnprintf(&text, capacity, format, $0) }
    self = String(
      decoding: text.prefix(Swift.max(0, Swift.min(Int(count), capacity - 1))).map {
        UInt8(bitPattern: $0)
      },
      as: UTF8.self
    )
  }
}

extension StringProtocol {
  /// Without white space at either end.
  var trimmed: String {
    let rest = drop(while: \.isWhitespace)
    guard let last = rest.lastIndex(where: { !$0.isWhitespace }) else { return "" }
    return String(rest[...last])
  }

  /// With every occurrence of some bytes replaced, whatever signs are combined with them.
  func replacingOccurrences(of old: String, with new: String) -> String {
    let bytes = Array(utf8)
    let ranges = bytes.ranges(of: Array(old.utf8))
    guard !ranges.isEmpty else { return String(self) }
    var result: [UInt8] = []
    var at = 0
    for range in ranges {
      result += bytes[at..<range.lowerBound]
      result += Array(new.utf8)
      at = range.upperBound
    }
    result += bytes[at...]
    return String(decoding: result, as: UTF8.self)
  }
}

/// A moment in the local time of who looks: `2026-11-21 10:09:08`.
func clockText(nanoseconds: UInt64) -> String {
  var time = time_t(nanoseconds / 1_000_000_000)
  var parts = unsafe tm()
  guard unsafe localtime_r(&time, &parts) != nil else { return "\(nanoseconds)" }
  return unsafe String(
    format: "%04d-%02d-%02d %02d:%02d:%02d",
    parts.tm_year + 1900,
    parts.tm_mon + 1,
    parts.tm_mday,
    parts.tm_hour,
    parts.tm_min,
    parts.tm_sec
  )
}
