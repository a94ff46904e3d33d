/// Finds what differs between two requests, from the outside inwards: settings, tools, messages, pieces of messages, text.
struct ChangeFinder {
  let old: PromptRequest
  let new: PromptRequest
  /// Bytes of the new prompt that the old one has as well.
  var kept: [Range<Int>] = []
  var found: [RequestChange] = []
  /// What left and what came, before it is known whether the one is the other.
  var removed: [Loose] = []
  var added: [Loose] = []
  /// What differs in the marks that a template puts around what is said.
  var marks: [RequestChange] = []
  /// Where something came that stood elsewhere, in bytes of the new prompt.
  var movedTo: [Int] = []
  /// Parts of the new request that were appended behind the old one.
  var appended: Range<Int>
  private(set) var hasSameSettings = true

  /// A part, a piece or a stretch of text that is in one of the requests only.
  struct Loose {
    enum Level { case part, piece, text }

    var level: Level
    var role: RequestPart.Role
    var kind: RequestPiece.Kind
    /// Of the prompt that has it.
    var range: Range<Int>
    /// Where it stands, or would stand, in the new prompt.
    var position: Int
    /// What is reported if it is nothing else.
    var change: RequestChange
    /// It is not reported by itself: what was appended.
    var isSilent = false
  }

  /// Hashes of the parts of either that have no partner in order.
  var strayHashes: (old: Set<UInt64>, new: Set<UInt64>) = ([], [])

  init(old: PromptRequest, new: PromptRequest) {
    self.old = old
    self.new = new
    appended = new.parts.count..<new.parts.count
  }

  mutating func run() {
    compareSettings()
    let oldTools = old.parts.prefix { $0.role == .tool }.count
    let newTools = new.parts.prefix { $0.role == .tool }.count
    compareTools(0..<oldTools, 0..<newTools)
    compareMessages(oldTools..<old.parts.count, newTools..<new.parts.count)
    resolveMoves()
    findAttachedAgain()
    addMarks()
  }

  /// Marks differ where something beside them does: by themselves only elsewhere.
  private mutating func addMarks() {
    guard !marks.isEmpty else { return }
    let places = Set((found.map(\.position) + movedTo).map(partIndex))
    for mark in marks.prefix(Self.countMax) {
      let index = partIndex(mark.position)
      if !(index - 1...index + 1).contains(where: places.contains) { found.append(mark) }
    }
  }

  /// The part of the new request in which a place of its prompt is.
  private func partIndex(_ position: Int) -> Int {
    var (low, high) = (0, new.parts.count)
    while low < high {
      let middle = (low + high) / 2
      if new.parts[middle].range.upperBound <= position { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// Parts are compared all with all up to this many pairs, beyond it in order.
  static let pairCountMax = 1_600

  private static let lossCountMin = 5

  /// A request that was written anew from end to end has thousands of changes; nobody reads them.
  private static let countMax = 200

  // MARK: - The sum

  /// The changes, each with the tokens between it and the next one that both requests have.
  func changes(from foundByteCount: Int) -> [RequestChange] {
    let spans = mergedKept()
    let ordered = found.sorted {
      ($0.position, $0.bytes?.lowerBound ?? 0) < ($1.position, $1.bytes?.lowerBound ?? 0)
    }
    // What lies behind the last one that is named counts as its.
    let sorted = withoutForks(Array(joined(named(ordered)).prefix(Self.countMax)), spans)
    var result: [RequestChange] = []
    var end = new.prompt.count
    var behind = 0
    for change in sorted.reversed() {
      let from = max(change.position, foundByteCount)
      let window = min(from, end)..<end
      var weight = 0
      for span in spans { weight += TokenEstimate.weight(new.prompt, span.clamped(to: window)) }
      let tokenCount = TokenEstimate.rounded(weight) + mediaTokenCount(spans, window)
      // Two with nothing between them are mended together, or in vain.
      if tokenCount > 0 { behind = tokenCount }
      end = window.lowerBound
      guard behind > 0, change.position >= foundByteCount || tokenCount > 0 else { continue }
      var change = change
      change.tokensLost = behind
      result.append(change)
    }
    // No server finds so few.
    guard result.reduce(0, { $0 + $1.tokensLost }) >= Self.lossCountMin else { return [] }
    var texts = FieldTexts()
    return result.reversed().map { refreshed($0, &texts) }
  }

  /// The changes without those in messages, where next to nothing of what follows is the same: another conversation goes on there, and
  /// what both have they have by chance.
  private func withoutForks(
    _ changes: [RequestChange],
    _ spans: [Range<Int>]
  ) -> [RequestChange] {
    guard let front = new.parts.first(where: { $0.role != .tool && $0.role != .system }),
      let first = changes.first(where: { $0.position >= front.range.lowerBound })
    else { return changes }
    let behind = first.position..<new.prompt.count
    let keptCount = TokenEstimate.rounded(
      spans.reduce(0) { $0 + TokenEstimate.weight(new.prompt, $1.clamped(to: behind)) }
    )
    let newEnd =
      appended.isEmpty ? new.prompt.count : new.parts[appended.lowerBound].range.lowerBound
    let newCount = TokenEstimate.count(new.prompt, first.position..<max(first.position, newEnd))
    let keptBefore = spans.reduce(0) {
      $0 + $1.clamped(to: 0..<first.position).count
    }
    let oldCount = TokenEstimate.count(
      old.prompt,
      min(keptBefore, old.prompt.count)..<old.prompt.count
    )
    let isChance = keptCount * (keptCount < 16 ? 4 : 10) < min(newCount, oldCount)
    guard keptCount < 256, isChance else { return changes }
    return changes.filter { $0.position < front.range.lowerBound }
  }

  var keptTokenCount: Int {
    let spans = mergedKept()
    return TokenEstimate.rounded(spans.reduce(0) { $0 + TokenEstimate.weight(new.prompt, $1) })
      + mediaTokenCount(spans, 0..<new.prompt.count)
  }

  private func mediaTokenCount(_ spans: [Range<Int>], _ window: Range<Int>) -> Int {
    var count = 0
    for piece in new.pieces where piece.kind == .media && window.contains(piece.range.lowerBound) {
      if spans.contains(where: { $0.contains(piece.range.lowerBound) }) {
        count += TokenEstimate.mediaTokenCount
      }
    }
    return count
  }

  private func mergedKept() -> [Range<Int>] {
    var result: [Range<Int>] = []
    for span in kept.sorted(by: { $0.lowerBound < $1.lowerBound }) where !span.isEmpty {
      if let last = result.last, span.lowerBound <= last.upperBound {
        result[result.count - 1] =
          last.lowerBound..<max(last.upperBound, span.upperBound)
      } else {
        result.append(span)
      }
    }
    return result
  }

  /// The changes, without the echo of a call's id in its result, and with numbers beside volatile values as such.
  private func named(_ changes: [RequestChange]) -> [RequestChange] {
    var ids: Set<[UInt8]> = []
    var result: [RequestChange] = []
    for change in changes {
      if change.kind == .volatileValue, change.shape == .id, change.bytes?.lowerBound == 0,
        let before = change.previousNode
      {
        let pair = old.fieldText(before) + [0] + new.fieldText(change.node)
        if pair.count <= 512, !ids.insert(pair).inserted { continue }
      }
      result.append(change)
    }
    for index in result.indices where result[index].kind == .edited {
      guard let bytes = result[index].bytes, let previous = result[index].previousNode,
        let other = result[index].previousBytes, bytes.count <= 8, other.count <= 8,
        !bytes.isEmpty, !other.isEmpty
      else { continue }
      let isNear = [index - 1, index + 1].contains { near in
        guard result.indices.contains(near), result[near].kind == .volatileValue,
          result[near].node == result[index].node, let range = result[near].bytes
        else { return false }
        return abs(range.lowerBound - bytes.upperBound) <= 64
          || abs(bytes.lowerBound - range.upperBound) <= 64
      }
      let (now, was) = (new.fieldText(result[index].node), old.fieldText(previous))
      guard isNear, bytes.upperBound <= now.count, other.upperBound <= was.count,
        JSONNumber.value(now[bytes]) != nil, JSONNumber.value(was[other]) != nil
      else { continue }
      result[index].kind = .volatileValue
      result[index].shape = .counter
    }
    return result
  }

  /// Edits close by in one field are one edit; the same thing found twice is one.
  private func joined(_ changes: [RequestChange]) -> [RequestChange] {
    var result: [RequestChange] = []
    for change in changes {
      if var last = result.last, last.node == change.node, last.kind == change.kind,
        let a = last.bytes, let b = change.bytes
      {
        let gap = b.lowerBound - a.upperBound
        let isOneEdit = change.kind == .edited && gap <= 48
        let isOneForm =
          [.whiteSpace, .unicodeForm, .numberFormat, .keyOrder].contains(change.kind)
          && gap <= 4_096
        if isOneEdit || isOneForm || gap < 0 {
          last.bytes = a.lowerBound..<max(a.upperBound, b.upperBound)
          if let old = last.previousBytes, let other = change.previousBytes {
            last.previousBytes =
              old.lowerBound..<max(old.upperBound, other.upperBound, old.lowerBound)
          }
          result[result.count - 1] = last
          continue
        }
      }
      result.append(change)
    }
    return result
  }

  // MARK: - Settings

  private mutating func compareSettings() {
    var settings = new.settings.map { (setting: $0, other: Int?.none) }
    for (index, entry) in settings.enumerated() {
      settings[index].other = old.settings.firstIndex { $0.key == entry.setting.key }
    }
    for (setting, other) in settings {
      let before = other.map { old.settings[$0] }
      guard before?.value != setting.value else { continue }
      addSetting(setting, before)
    }
    for setting in old.settings where !new.settings.contains(where: { $0.key == setting.key }) {
      addSetting(nil, setting)
    }
  }

  private mutating func addSetting(_ now: RequestSetting?, _ before: RequestSetting?) {
    guard let kind = now?.kind ?? before?.kind else { return }
    hasSameSettings = false
    let key = now?.key ?? before?.key ?? ""
    var change = RequestChange(
      kind: Self.kind(of: kind),
      shape: nil,
      path: key,
      start: 0,
      end: 0,
      previousPath: before == nil ? nil : key,
      fieldPath: key,
      previousFieldPath: before == nil ? nil : key,
      now: now.map { String(decoding: $0.value.prefix(256), as: UTF8.self) } ?? "",
      was: before.map { String(decoding: $0.value.prefix(256), as: UTF8.self) } ?? "",
      tokensLost: 0,
      position: 0,
      context: 0,
      node: now?.node ?? new.body,
      previousNode: before?.node
    )
    if now == nil {
      change.fixedPath = key
      change.bytes = 0..<0
    }
    found.append(change)
  }

  private static func kind(of setting: RequestSetting.Kind) -> RequestChange.Kind {
    switch setting {
    case .model: .modelSwitched
    case .adapter: .adapterSwitched
    case .template: .templateSwitched
    case .other: .settingChanged
    }
  }

  // MARK: - Making changes

  /// A change at a value as a whole.
  func change(
    _ kind: RequestChange.Kind,
    node: Int,
    previousNode: Int?,
    position: Int
  ) -> RequestChange {
    RequestChange(
      kind: kind,
      shape: nil,
      path: "",
      start: 0,
      end: 0,
      previousPath: nil,
      now: "",
      was: "",
      tokensLost: 0,
      position: position,
      context: 0,
      node: node,
      previousNode: previousNode
    )
  }

  /// A change within the text of a value; the ranges count the node's decoded text.
  func change(
    _ kind: RequestChange.Kind,
    shape: ValueShape? = nil,
    node: Int,
    bytes: Range<Int>,
    previousNode: Int?,
    previousBytes: Range<Int>?,
    position: Int
  ) -> RequestChange {
    var change = self.change(kind, node: node, previousNode: previousNode, position: position)
    change.shape = shape
    change.bytes = bytes
    change.previousBytes = previousBytes
    return change
  }

  /// The texts of the fields that were asked for last: a long one has many changes.
  private struct FieldTexts {
    var new: (node: Int, text: [UInt8])?
    var old: (node: Int, text: [UInt8])?

    mutating func newText(_ request: PromptRequest, _ node: Int) -> [UInt8] {
      if let new, new.node == node { return new.text }
      let text = request.fieldText(node)
      new = (node, text)
      return text
    }

    mutating func oldText(_ request: PromptRequest, _ node: Int) -> [UInt8] {
      if let old, old.node == node { return old.text }
      let text = request.fieldText(node)
      old = (node, text)
      return text
    }
  }

  /// The change with path, code points and texts, which its nodes and bytes say.
  private func refreshed(_ change: RequestChange, _ texts: inout FieldTexts) -> RequestChange {
    var change = change
    change.path = change.fixedPath ?? new.path(change.node)
    change.previousPath = change.previousNode.map { old.path($0) }
    change.fieldPath = change.fixedPath ?? new.path(new.field(change.node))
    change.previousFieldPath = change.previousNode.map { old.path(old.field($0)) }
    let text = texts.newText(new, change.node)
    let range = change.bytes?.clamped(to: 0..<text.count) ?? 0..<text.count
    change.start = CodePoints.count(text[0..<range.lowerBound])
    change.end = change.start + CodePoints.count(text[range])
    change.now = excerpt(change.bytes == nil ? new.document.rawBytes(change.node) : text[range])
    change.context = ByteHasher.hash(text, max(0, range.lowerBound - 16)..<range.lowerBound)
    if let node = change.previousNode, change.was.isEmpty {
      if let bytes = change.previousBytes {
        let text = texts.oldText(old, node)
        change.was = excerpt(text[bytes.clamped(to: 0..<text.count)])
      } else {
        change.was = excerpt(old.document.rawBytes(node))
      }
    }
    return change
  }

  private func excerpt(_ text: ArraySlice<UInt8>) -> String {
    String(decoding: text.prefix(256), as: UTF8.self)
  }
}

/// Code points of UTF-8.
enum CodePoints {
  static func count(_ text: ArraySlice<UInt8>) -> Int {
    text.count { $0 & 0xC0 != 0x80 }
  }
}

extension PromptRequest {
  /// What stands at the place of a change in this request, the later of the two.
  public func text(at change: RequestChange) -> [UInt8] {
    let text = fieldText(change.node)
    return Array(text[(change.bytes ?? 0..<text.count).clamped(to: 0..<text.count)])
  }

  /// The text of a field: a string decoded, anything else as it stands.
  func fieldText(_ node: Int) -> [UInt8] {
    document.kind(node) == .string ? document.textBytes(node) : Array(document.rawBytes(node))
  }

  /// The value of a part in which a node lies; the node itself where it is no part of one.
  func field(_ node: Int) -> Int {
    pieces.first { $0.node < node && node < Int(document.nodes[$0.node].next) }?.node ?? node
  }

  /// Where a node stands in the body: `messages[0].content`.
  func path(_ node: Int) -> String {
    var path = ""
    var at = body
    while at != node {
      let isObject = document.kind(at) == .object
      var index = 0
      var key: Int?
      var next: Int?
      for child in document.children(at) {
        if isObject, key == nil {
          key = child
          // A key itself: its value's place.
          if child == node { break }
          continue
        }
        if child <= node, node < Int(document.nodes[child].next) {
          next = child
          break
        }
        key = nil
        index += 1
      }
      guard let next else { break }
      if isObject, let key {
        let name = document.text(key)
        let isPlain =
          !name.isEmpty && name.utf8.allSatisfy { TextTokens.isWord($0) || $0 == UInt8(ascii: "-") }
        if isPlain {
          path += path.isEmpty ? name : ".\(name)"
        } else {
          path += "[\(String(decoding: JSONEscapes.quoted(Array(name.utf8)), as: UTF8.self))]"
        }
      } else {
        path += "[\(index)]"
      }
      at = next
    }
    return path
  }
}
