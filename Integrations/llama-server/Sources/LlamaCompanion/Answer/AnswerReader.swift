/// Reads the server's own figures out of an answer as it goes by, and corrects them where part of the prompt was computed ahead.
///
/// Looks for names of members with their quotes: inside a string those are escaped, so no text of the model is ever taken for one.
struct AnswerReader {
  private(set) var cachedTokenCount: Int?
  private(set) var computedTokenCount: Int?
  private(set) var promptMilliseconds: Double?
  /// Tokens that we let the server compute ahead, and how long that took: no cache held them.
  var aheadTokenCount = 0
  var aheadMilliseconds: Double = 0
  /// Prefixes that the caller wants kept, of which it is told what was read and what was created.
  var kept: [KeptPrefix] = []
  /// Whether something of an answer is changed on its way.
  var corrects: Bool { aheadTokenCount > 0 || !kept.isEmpty }
  let style: RequestKind.EndpointStyle
  private let isStream: Bool
  private var held: [UInt8] = []

  init(style: RequestKind.EndpointStyle, isStream: Bool) {
    self.style = style
    self.isStream = isStream
  }

  /// Whether a piece of a stream is one of its last, of any interface.
  static func isLast(_ bytes: some Collection<UInt8>) -> Bool {
    bytes.withContiguousStorageIfAvailable { bytes in
      bytes.indices.contains { at in
        ends.contains { end in
          bytes[at] == end[0] && bytes.count - at >= end.count
            && bytes[at..<at + end.count].elementsEqual(end)
        }
      }
    } ?? false
  }

  private static let ends = [
    "\"finish_reason\":\"", "\"stop\":true", "\"stop_reason\":\"", "response.completed",
    "data: [DONE]",
  ].map { Array($0.utf8) }

  /// What goes to the client of the next bytes; what ends in the middle of a line waits for the rest where something may need a correction.
  mutating func pass(_ bytes: [UInt8]) -> [UInt8] {
    guard corrects else {
      // Figures come last: of a long answer, its end is enough.
      held.append(contentsOf: bytes)
      if isStream {
        if let end = held.lastIndex(of: 10) {
          read(held[...end])
          held.removeSubrange(...end)
        }
      } else if held.count > 1 << 20 {
        held.removeFirst(held.count - 1 << 18)
      }
      return bytes
    }
    held.append(contentsOf: bytes)
    guard isStream, let end = held.lastIndex(of: 10) else { return [] }
    let lines = Array(held[...end])
    held.removeSubrange(...end)
    return corrected(lines)
  }

  /// At the end of the answer: what was held back.
  mutating func finish() -> [UInt8] {
    defer { held = [] }
    guard corrects else {
      read(held[...])
      return []
    }
    return corrected(held)
  }

  private mutating func read(_ bytes: ArraySlice<UInt8>) {
    if let (value, _) = Self.number("cache_n", bytes) { cachedTokenCount = Int(value) }
    if let (value, _) = Self.number("prompt_n", bytes) { computedTokenCount = Int(value) }
    if let (value, _) = Self.number("prompt_ms", bytes) { promptMilliseconds = value }
    if style == .responses, let (cached, _) = Self.number("cached_tokens", bytes),
      let (all, _) = Self.number("input_tokens", bytes)
    {
      cachedTokenCount = Int(cached)
      computedTokenCount = Int(all - cached)
    }
    guard style == .anthropic else { return }
    if let (value, _) = Self.number("cache_read_input_tokens", bytes) {
      cachedTokenCount = Int(value)
    }
    if let (value, _) = Self.number("input_tokens", bytes) { computedTokenCount = Int(value) }
  }

  private mutating func corrected(_ bytes: [UInt8]) -> [UInt8] {
    var result = bytes
    read(result[...])
    let ahead = Double(aheadTokenCount)
    var promptCount: Double?
    var promptTime: Double?
    func change(_ name: String, _ value: (Double) -> Double, isWhole: Bool = true) -> Double? {
      guard let (old, range) = Self.number(name, result[...]) else { return nil }
      let new = max(0, value(old))
      result.replaceSubrange(range, with: (isWhole ? String(Int(new)) : "\(new)").utf8)
      return new
    }
    _ = change("cache_n", { $0 - ahead })
    _ = change("cached_tokens", { $0 - ahead })
    _ = change("cache_read_input_tokens", { $0 - ahead })
    if style == .anthropic { _ = change("input_tokens", { $0 + ahead }) }
    if !kept.isEmpty { tellCreated(&result) }
    promptCount = change("prompt_n", { $0 + ahead })
    promptTime = change("prompt_ms", { $0 + aheadMilliseconds }, isWhole: false)
    if let promptCount, let promptTime, promptCount > 0, promptTime > 0 {
      _ = change("prompt_per_token_ms", { _ in promptTime / promptCount }, isWhole: false)
      _ = change("prompt_per_second", { _ in promptCount / promptTime * 1000 }, isWhole: false)
    }
    return result
  }

  /// As the hosted interface counts: what was read, what was created up to the last break point, and the rest.
  private func tellCreated(_ bytes: inout [UInt8]) {
    guard let (read, readRange) = Self.number("cache_read_input_tokens", bytes[...]),
      let (rest, _) = Self.number("input_tokens", bytes[...])
    else { return }
    let name = Array("\"cache_read_input_tokens\"".utf8)
    let start = readRange.lowerBound - name.count - 1
    guard start >= 0, bytes[start..<start + name.count].elementsEqual(name) else { return }
    var from = Int(read)
    var minutes = 0
    var hours = 0
    for prefix in kept {
      let count = min(prefix.tokenCount, Int(read + rest)) - from
      guard count > 0 else { continue }
      if prefix.seconds > 300 { hours += count } else { minutes += count }
      from += count
    }
    guard let (_, restRange) = Self.number("input_tokens", bytes[...]) else { return }
    bytes.replaceSubrange(restRange, with: String(max(0, Int(rest) - minutes - hours)).utf8)
    let text = """
      "cache_creation_input_tokens":\(minutes + hours),"cache_creation":\
      {"ephemeral_5m_input_tokens":\(minutes),"ephemeral_1h_input_tokens":\(hours)},
      """
    if restRange.lowerBound > start {
      bytes.insert(contentsOf: text.utf8, at: start)
    }
  }

  /// The last number after `"name":`, and where it stands.
  private static func number(_ name: String, _ bytes: ArraySlice<UInt8>) -> (Double, Range<Int>)? {
    let key = Array("\"\(name)\":".utf8)
    guard bytes.count > key.count else { return nil }
    var index = bytes.endIndex - key.count
    while index >= bytes.startIndex {
      defer { index -= 1 }
      guard bytes[index] == key[0], bytes[index..<index + key.count].elementsEqual(key) else {
        continue
      }
      if index > bytes.startIndex, bytes[index - 1] == UInt8(ascii: "\\") { continue }
      var start = index + key.count
      while start < bytes.endIndex, bytes[start] == 0x20 { start += 1 }
      var end = start
      while end < bytes.endIndex,
        (48...57).contains(bytes[end]) || "-+.eE".utf8.contains(bytes[end])
      {
        end += 1
      }
      guard let value = Double(String(decoding: bytes[start..<end], as: UTF8.self)),
        value.magnitude < 1e15
      else {
        continue
      }
      return (value, start..<end)
    }
    return nil
  }
}
