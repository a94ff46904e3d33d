/// A request out of a log, and when it was sent.
///
/// The body may be the whole line, or lie in a record of whatever layout: `{"time": …, "request": {…}}`, the files of batch
/// interfaces, the entries of a HAR file, a body that is itself a text.
public struct LoggedRequest: Sendable {
  /// The request.
  public let request: PromptRequest
  /// Unix seconds, where the record says.
  public let time: Double?

  /// The request in a record; nil where there is none in it.
  public static func inRecord(_ text: [UInt8]) throws(JSONFault) -> LoggedRequest? {
    let document = try JSONDocument(text)
    return found(document, document.root, depth: 0, time: nil)
  }

  /// The requests of a text that is no log of lines: a HAR file, a list of records, one record over many lines.
  ///
  /// - Returns: The number of entries looked at, and each that holds a request with its place among them, from 1 on.
  public static func inDocument(
    _ text: [UInt8],
    _ body: (Int, LoggedRequest) -> Void
  ) throws(JSONFault) -> Int {
    let document = try JSONDocument(text)
    var entries: [Int] = []
    if let log = document.value("log", in: document.root),
      let list = document.value("entries", in: log), document.kind(list) == .array
    {
      entries = Array(document.children(list))
    } else if document.kind(document.root) == .array {
      entries = Array(document.children(document.root))
    } else {
      entries = [document.root]
    }
    for (index, entry) in entries.enumerated() {
      // Each with bytes of its own: one of them kept does not keep the whole file.
      guard let own = try? JSONDocument(Array(document.rawBytes(entry))),
        let request = found(own, own.root, depth: 0, time: nil)
      else { continue }
      body(index + 1, request)
    }
    return entries.count
  }

  private static let depthMax = 5

  private static func found(
    _ document: JSONDocument,
    _ node: Int,
    depth: Int,
    time outer: Double?
  ) -> LoggedRequest? {
    guard depth <= depthMax else { return nil }
    if document.kind(node) == .string {
      // A body as a text: what recorders of network traffic write.
      guard document.nodes[node].range.count >= 16 else { return nil }
      let text = document.textBytes(node)
      guard text.first(where: { $0 > 0x20 }) == UInt8(ascii: "{"),
        let inner = try? JSONDocument(text)
      else { return nil }
      return found(inner, inner.root, depth: depth + 1, time: outer)
    }
    guard document.kind(node) == .object else { return nil }
    let time = outer ?? LogTime.time(document, node)
    if isRequest(document, node) {
      let request = PromptRequest(document, body: node)
      if !request.isEmpty { return LoggedRequest(request: request, time: time) }
    }
    let members = document.members(node)
    for (key, value) in members where isWrapper(document, key) {
      if let request = found(document, value, depth: depth + 1, time: time) { return request }
    }
    for (key, value) in members where !isWrapper(document, key) && !isAnswer(document, key) {
      if let request = found(document, value, depth: depth + 1, time: time) { return request }
    }
    return nil
  }

  private static func isWrapper(_ document: JSONDocument, _ key: Int) -> Bool {
    wrappers.contains(document.text(key))
  }

  private static func isAnswer(_ document: JSONDocument, _ key: Int) -> Bool {
    answers.contains(document.text(key))
  }

  private static let wrappers: Set<String> = [
    "body", "request", "request_body", "requestBody", "payload", "params", "data", "json", "kwargs",
    "input", "postData", "text",
  ]
  private static let answers: Set<String> = [
    "response", "response_body", "responseBody", "output", "choices", "usage", "error", "result",
    "completion",
  ]

  /// Whether an object is the body of a request: it has a history, or something of that shape.
  private static func isRequest(_ document: JSONDocument, _ node: Int) -> Bool {
    for (key, value) in document.members(node) {
      let kind = document.kind(value)
      switch RequestFields.meaning(document.text(key)) {
      case .messages: if kind == .array || kind == .string { return true }
      case .prompt: if kind == .array || kind == .string { return true }
      case .unknown:
        guard kind == .array, let first = document.children(value).first(where: { _ in true }),
          document.kind(first) == .object
        else { continue }
        if RequestReader.speaks(document, first) { return true }
      default: continue
      }
    }
    return false
  }
}

/// Times in records.
enum LogTime {
  private static let keys: Set<String> = [
    "timestamp", "time", "ts", "date", "created", "created_at", "createdAt", "startedDateTime",
    "start_time", "startTime", "at",
  ]

  /// Unix seconds of a record, where one of its fields says.
  static func time(_ document: JSONDocument, _ node: Int) -> Double? {
    for (key, value) in document.members(node) where keys.contains(document.text(key)) {
      switch document.kind(value) {
      case .number:
        if let number = JSONNumber.value(document.rawBytes(value)) { return seconds(number) }
      case .string:
        let text = document.textBytes(value)
        if let moment = iso(text) { return moment }
        if let number = JSONNumber.value(text) { return seconds(number) }
      default: continue
      }
    }
    return nil
  }

  /// Seconds, milliseconds, microseconds or nanoseconds, told by the size; small numbers count from the log's beginning.
  private static func seconds(_ value: Double) -> Double? {
    switch value {
    case 0..<1e11: return value
    case 1e11..<1e14: return value / 1e3
    case 1e14..<1e17: return value / 1e6
    case 1e17..<1e20: return value / 1e9
    // Below zero, no number, or no time that anybody has seen.
    default: return nil
    }
  }

  /// `2026-11-29T21:48:03.5Z`, with an offset instead of the Z, or without either.
  static func iso(_ text: [UInt8]) -> Double? {
    var numbers: [Int] = []
    var at = 0
    func digits() -> Int? {
      let start = at
      var value = 0
      while at < text.count, JSONNumber.isDigit(text[at]), at - start < 9 {
        value = value * 10 + Int(text[at] - 0x30)
        at += 1
      }
      return at > start ? value : nil
    }
    let marks = Array("--T::".utf8)
    for index in 0..<6 {
      guard let number = digits() else { return nil }
      numbers.append(number)
      guard index < 5 else { break }
      guard at < text.count,
        text[at] == marks[index] || index == 2 && text[at] == 0x20
      else { return nil }
      at += 1
    }
    guard (1970...9999).contains(numbers[0]), (1...12).contains(numbers[1]),
      (1...31).contains(numbers[2]), numbers[3] < 24, numbers[4] < 60, numbers[5] <= 60
    else { return nil }
    var fraction = 0.0
    if at < text.count, text[at] == UInt8(ascii: ".") {
      at += 1
      var scale = 0.1
      while at < text.count, JSONNumber.isDigit(text[at]) {
        fraction += Double(text[at] - 0x30) * scale
        scale /= 10
        at += 1
      }
    }
    var offset = 0
    if at < text.count, text[at] == UInt8(ascii: "+") || text[at] == UInt8(ascii: "-") {
      let sign = text[at] == UInt8(ascii: "-") ? -1 : 1
      at += 1
      let rest = text[at...].filter(JSONNumber.isDigit)
      if rest.count >= 2 {
        let hours = Int(rest[0] - 0x30) * 10 + Int(rest[1] - 0x30)
        let minutes = rest.count >= 4 ? Int(rest[2] - 0x30) * 10 + Int(rest[3] - 0x30) : 0
        offset = sign * (hours * 3_600 + minutes * 60)
      }
    }
    // Days since 1970, by the civil calendar (Howard Hinnant's days_from_civil).
    let year = numbers[1] <= 2 ? numbers[0] - 1 : numbers[0]
    let era = year / 400
    let yearOfEra = year - era * 400
    let month = (numbers[1] + 9) % 12
    let dayOfYear = (153 * month + 2) / 5 + numbers[2] - 1
    let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
    let days = era * 146_097 + dayOfEra - 719_468
    let whole = days * 86_400 + numbers[3] * 3_600 + numbers[4] * 60 + numbers[5] - offset
    return Double(whole) + fraction
  }
}
