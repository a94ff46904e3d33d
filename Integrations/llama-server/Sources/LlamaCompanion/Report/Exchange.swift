import KVRequests

/// What is known of one request: what it asked, what it found, and what it cost.
struct Exchange: Sendable {
  var id: UInt64 = 0
  var timeMilliseconds: Double = 0
  var path = ""
  var tenant = ""
  /// Set when it is passed on as it is.
  var passed: String?
  var tokenCount = 0
  /// Already in the server's slot, as we believe.
  var memoryTokenCount = 0
  /// In the store, whether or not it was restored.
  var foundTokenCount = 0
  var restoredTokenCount = 0
  /// Where the prefix came from: `disk`, `host`, `archive`, `memory` or `none`.
  var tier = "none"
  /// What the server says that it did not compute.
  var cachedTokenCount: Int?
  /// What it says that it computed, and how long that took.
  var computedTokenCount: Int?
  var promptMilliseconds: Double?
  /// Computed by us ahead of the request, for an end to go on from.
  var aheadTokenCount = 0
  var aheadMilliseconds: Double = 0
  /// What break points of the request want kept.
  var kept: [KeptPrefix] = []
  var status = 0
  var slot: Int?
  var newBlockCount = 0
  /// Milliseconds of each step.
  var steps: [(String, Double)] = []
  var savedMilliseconds: Double = 0
  var problem: String?
  var why: String?
  /// The same in a word, as `kvstore inspect why-miss` and `kvstore lint` call it.
  var cause: String?
  /// Where this request has something else than one before it.
  var changes: [RequestChange] = []
  var conversation: UInt64 = 0
  var wasCancelled = false

  mutating func step(_ name: String, since start: UInt64) {
    steps.append((name, milliseconds(since: start)))
  }

  /// The header's text: `2048/2064 disk 41ms`.
  var header: String {
    if let passed { return "pass (\(passed))" }
    let used = max(memoryTokenCount, restoredTokenCount)
    let time = steps.reduce(0) { $0 + $1.1 }
    return "\(used)/\(tokenCount) \(used == 0 ? "none" : tier) \(Int(time.rounded()))ms"
  }

  var json: String {
    var members = [
      "\"id\":\(id)", "\"time\":\(number(timeMilliseconds))", "\"path\":\(JSON.quoted(path))",
      "\"status\":\(status)", "\"tokens\":\(tokenCount)", "\"memory\":\(memoryTokenCount)",
      "\"found\":\(foundTokenCount)", "\"restored\":\(restoredTokenCount)", "\"tier\":\"\(tier)\"",
      "\"new_blocks\":\(newBlockCount)", "\"saved_ms\":\(number(savedMilliseconds))",
      "\"cancelled\":\(wasCancelled)",
    ]
    if conversation != 0 {
      members.append("\"conversation\":\"\(String(conversation, radix: 16))\"")
    }
    if let slot { members.append("\"slot\":\(slot)") }
    if let cachedTokenCount { members.append("\"cached\":\(cachedTokenCount)") }
    if let computedTokenCount { members.append("\"computed\":\(computedTokenCount)") }
    if let promptMilliseconds { members.append("\"prompt_ms\":\(number(promptMilliseconds))") }
    if aheadTokenCount > 0 { members.append("\"computed_ahead\":\(aheadTokenCount)") }
    if !kept.isEmpty {
      members.append("\"kept\":[\(kept.map { "\($0.tokenCount)" }.joined(separator: ","))]")
    }
    if let passed { members.append("\"passed\":\(JSON.quoted(passed))") }
    if let problem { members.append("\"problem\":\(JSON.quoted(problem))") }
    if !changes.isEmpty {
      members.append("\"changes\":[\(changes.map(\.json).joined(separator: ","))]")
    }
    if let why { members.append("\"why\":\(JSON.quoted(why))") }
    if let cause { members.append("\"cause\":\(JSON.quoted(cause))") }
    let times = steps.map { "\"\($0.0)\":\(number($0.1))" }.joined(separator: ",")
    members.append("\"steps_ms\":{\(times)}")
    return "{\(members.joined(separator: ","))}"
  }
}

/// With two digits behind the point.
func number(_ value: Double) -> String {
  guard value.isFinite else { return "0" }
  let hundredths = (value * 100).rounded()
  let text = String(Int64(hundredths.magnitude))
  let padded = String(repeating: "0", count: max(0, 3 - text.count)) + text
  let sign = hundredths < 0 ? "-" : ""
  return "\(sign)\(padded.dropLast(2)).\(padded.suffix(2))"
}
