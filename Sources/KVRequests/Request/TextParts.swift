/// A prompt that is one text, cut into turns and paragraphs.
enum TextParts {
  /// Marks with which templates begin a turn.
  private static let marks: [[UInt8]] = [
    "<|im_start|>", "<start_of_turn>", "<|start_header_id|>", "<|start|>", "<|turn>", "[INST]",
    "<|user|>", "<|assistant|>", "<|system|>", "\n\nHuman:", "\n\nAssistant:",
  ].map { Array($0.utf8) }

  /// The pieces, side by side, none of them empty.
  static func ranges(of text: [UInt8]) -> [Range<Int>] {
    var starts: [Int] = [0]
    var at = 0
    while at < text.count {
      switch text[at] {
      case UInt8(ascii: "<"), UInt8(ascii: "["):
        if at > 0, marks.contains(where: { begins(text, at, $0) }) { starts.append(at) }
      case 0x0A:
        // A paragraph: behind an empty line.
        if at + 1 < text.count, text[at + 1] == 0x0A {
          while at + 1 < text.count, text[at + 1] == 0x0A { at += 1 }
          if at + 1 < text.count { starts.append(at + 1) }
        }
      default: break
      }
      at += 1
    }
    var ranges: [Range<Int>] = []
    for (index, start) in starts.enumerated() {
      let end = index + 1 < starts.count ? starts[index + 1] : text.count
      if end > start { ranges.append(start..<end) }
    }
    return ranges
  }

  private static func begins(_ text: [UInt8], _ at: Int, _ mark: [UInt8]) -> Bool {
    at + mark.count <= text.count && text[at..<at + mark.count].elementsEqual(mark)
  }

  /// Who speaks, as far as the mark says.
  static func role(_ text: ArraySlice<UInt8>) -> RequestPart.Role {
    guard text.first == UInt8(ascii: "<") || text.first == UInt8(ascii: "[") else { return .other }
    let head = String(decoding: text.prefix(48), as: UTF8.self)
    if head.contains("system") || head.contains("developer") { return .system }
    if head.contains("assistant") || head.contains("model") { return .assistant }
    if head.contains("user") || head.contains("INST") { return .user }
    return head.contains("tool") ? .toolResult : .other
  }
}
