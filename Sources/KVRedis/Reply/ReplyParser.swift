/// Takes replies of RESP2 and RESP3 out of a stream of bytes, however it is cut into pieces.
///
/// Nothing that the other side says of a length is believed beyond the limits, and memory grows only with bytes that have come. After an error the stream has no
/// meaning any more: the connection is to be closed.
package struct ReplyParser {
  /// What replies may measure.
  package struct Limits: Sendable {
    /// Arrays in arrays; `CLUSTER SLOTS` has four levels.
    package var depth = 8
    /// Values of a reply, all levels together.
    ///
    /// The map of a cluster whose slots are all apart has 300,000.
    package var valueCount = 1 << 20
    /// Bytes of a reply's texts together.
    package var byteCount = 8 << 20
    /// Of a line: simple texts, errors, numbers.
    package var lineByteCount = 4096
    /// Of a string that is lent; the servers' own default bound (proto-max-bulk-len).
    package var lentByteCount = 512 << 20

    package init() {}
  }

  /// What a stretch of the stream came to.
  package enum Step: Equatable {
    /// All bytes were taken; there is no whole reply yet.
    case more
    case reply(Reply)
    /// A string of so many bytes follows, which are the caller's to take off the stream; then `bulkWasTaken` is to be called.
    case bulk(byteCount: Int)
  }

  /// The bytes are not RESP, or beyond a limit.
  package struct Violation: Error, Equatable {
    package let reason: String
    init(_ reason: String) { self.reason = reason }
  }

  private enum State {
    case line
    /// So many bytes of a string are missing.
    case body(missingByteCount: Int)
    /// So many bytes of the string's line end have come.
    case lineEnd(Int)
    case lent
  }

  private enum Kind { case array, attributes, push }

  private struct Frame {
    let kind: Kind
    let count: Int
    var items: [Reply] = []
  }

  private let limits: Limits
  private var state = State.line
  private var line: [UInt8] = []
  private var body: [UInt8] = []
  private var bodyIsError = false
  private var bodyIsLent = false
  private var frames: [Frame] = []
  private var valueCount = 0
  private var byteCount = 0

  package init(limits: Limits = Limits()) { self.limits = limits }

  /// Whether the stream is between two replies.
  package var isBetweenReplies: Bool {
    if case .line = state { line.isEmpty && frames.isEmpty } else { false }
  }

  /// Goes on with the bytes from `offset`, which moves past what was taken.
  ///
  /// - Parameters:
  ///   - bytes: the next of the stream.
  ///   - offset: of the first byte that was not taken yet.
  ///   - lendsBulk: whether a string that is a whole reply is left to the caller.
  /// - Returns: a reply, what to do next, or that there is no more.
  /// - Throws: what is wrong with the bytes.
  package mutating func step(
    _ bytes: RawSpan,
    from offset: inout Int,
    lendsBulk: Bool
  ) throws(Violation) -> Step {
    while offset < bytes.byteCount {
      switch state {
      case .line:
        guard try takeLine(bytes, &offset) else { return .more }
        let content = line
        line.removeAll(keepingCapacity: true)
        if let step = try begin(content, lendsBulk: lendsBulk) { return step }
      case .body(let missingByteCount):
        let count = min(missingByteCount, bytes.byteCount - offset)
        unsafe bytes.extracting(offset..<offset + count).withUnsafeBytes {
          unsafe body.append(contentsOf: $0)
        }
        offset += count
        state =
          count == missingByteCount
          ? .lineEnd(0) : .body(missingByteCount: missingByteCount - count)
      case .lineEnd(let count):
        let expected = UInt8(ascii: count == 0 ? "\r" : "\n")
        guard byte(bytes, offset) == expected else {
          throw Violation("a string has another length than it says")
        }
        offset += 1
        state = .lineEnd(count + 1)
        if count == 1 {
          state = .line
          if let reply = add(endBody()) { return .reply(reply) }
        }
      case .lent:
        // The caller's bytes: it has not taken them.
        return .more
      }
    }
    return .more
  }

  /// The caller took the bytes of a string that it was lent.
  package mutating func bulkWasTaken() {
    if case .lent = state { state = .lineEnd(0) }
  }

  private func byte(_ bytes: RawSpan, _ offset: Int) -> UInt8 {
    unsafe bytes.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
  }

  /// Adds to `line` up to its end; true when it is whole, then without its line end.
  private mutating func takeLine(_ bytes: RawSpan, _ offset: inout Int) throws(Violation) -> Bool {
    while offset < bytes.byteCount {
      let byte = byte(bytes, offset)
      offset += 1
      if line.last == UInt8(ascii: "\r") {
        guard byte == UInt8(ascii: "\n") else { throw Violation("a carriage return within a line") }
        line.removeLast()
        return true
      }
      guard byte != UInt8(ascii: "\n") else { throw Violation("a line feed within a line") }
      guard line.count < limits.lineByteCount else { throw Violation("a line is too long") }
      line.append(byte)
    }
    return false
  }

  /// A line came: a value, or the head of one.
  private mutating func begin(_ line: [UInt8], lendsBulk: Bool) throws(Violation) -> Step? {
    guard let type = line.first else { throw Violation("an empty line") }
    let content = line.dropFirst()
    try count(values: 0, bytes: content.count)
    let value: Reply
    switch type {
    case UInt8(ascii: "+"), UInt8(ascii: ","), UInt8(ascii: "("): value = .text(Array(content))
    case UInt8(ascii: "-"): value = .error(ServerError(content))
    case UInt8(ascii: ":"):
      guard let number = decimal(content) else { throw Violation("an integer that is none") }
      value = .integer(number)
    case UInt8(ascii: "_"): value = .null
    case UInt8(ascii: "#"):
      guard content.elementsEqual("t".utf8) || content.elementsEqual("f".utf8) else {
        throw Violation("a boolean that is none")
      }
      value = .integer(content.elementsEqual("t".utf8) ? 1 : 0)
    case UInt8(ascii: "$"), UInt8(ascii: "="), UInt8(ascii: "!"):
      guard let step = try beginString(type, content, lendsBulk: lendsBulk) else { return nil }
      guard case .reply(let null) = step else { return step }
      value = null
    case UInt8(ascii: "*"), UInt8(ascii: "~"), UInt8(ascii: "%"), UInt8(ascii: "|"),
      UInt8(ascii: ">"):
      guard let empty = try beginArray(type, content) else { return nil }
      value = empty
    default: throw Violation("a reply of no known type")
    }
    return add(value).map { .reply($0) }
  }

  /// A string's head; nil when its bytes follow.
  private mutating func beginString(
    _ type: UInt8,
    _ content: ArraySlice<UInt8>,
    lendsBulk: Bool
  ) throws(Violation) -> Step? {
    guard let length = decimal(content) else { throw Violation("a length that is none") }
    if length == -1, type == UInt8(ascii: "$") { return .reply(.null) }
    guard length >= 0 else { throw Violation("a negative length") }
    if lendsBulk, frames.isEmpty, type == UInt8(ascii: "$") {
      guard length <= limits.lentByteCount else { throw Violation("a string is too long") }
      state = .lent
      bodyIsLent = true
      return .bulk(byteCount: Int(length))
    }
    guard length <= limits.byteCount else { throw Violation("a string is too long") }
    try count(values: 0, bytes: Int(length))
    bodyIsError = type == UInt8(ascii: "!")
    state = length == 0 ? .lineEnd(0) : .body(missingByteCount: Int(length))
    return nil
  }

  /// An array's head; nil when its values follow, or none of them counts.
  private mutating func beginArray(_ type: UInt8, _ content: ArraySlice<UInt8>) throws(Violation)
    -> Reply?
  {
    guard let length = decimal(content) else { throw Violation("a length that is none") }
    if length == -1, type == UInt8(ascii: "*") { return .null }
    guard length >= 0, length <= limits.valueCount else {
      throw Violation("an array has an impossible length")
    }
    let isOfPairs = type == UInt8(ascii: "%") || type == UInt8(ascii: "|")
    let count = Int(length) * (isOfPairs ? 2 : 1)
    let kind: Kind =
      switch type {
      case UInt8(ascii: "|"): .attributes
      case UInt8(ascii: ">"): .push
      default: .array
      }
    if count == 0 { return kind == .array ? .array([]) : nil }
    // All that were announced count, so that arrays of arrays do not multiply them.
    try self.count(values: count, bytes: 0)
    guard frames.count < limits.depth else { throw Violation("arrays lie too deep in one another") }
    frames.append(Frame(kind: kind, count: count))
    return nil
  }

  private mutating func endBody() -> Reply {
    defer {
      body = []
      bodyIsError = false
      bodyIsLent = false
    }
    if bodyIsLent { return .lentBulk }
    return bodyIsError ? .error(ServerError(body[...])) : .text(body)
  }

  private mutating func count(values: Int, bytes: Int) throws(Violation) {
    valueCount += values
    byteCount += bytes
    guard valueCount <= limits.valueCount else { throw Violation("a reply has too many values") }
    guard byteCount <= limits.byteCount else { throw Violation("a reply is too long") }
  }

  /// Puts a value where it belongs; the whole reply when it was the last one missing.
  private mutating func add(_ value: Reply) -> Reply? {
    var value = value
    while let last = frames.indices.last {
      frames[last].items.append(value)
      guard frames[last].items.count == frames[last].count else { return nil }
      let frame = frames.removeLast()
      // What a server tells unasked is nobody's answer; attributes go with the value that follows.
      if frame.kind != .array {
        if frames.isEmpty { (valueCount, byteCount) = (0, 0) }
        return nil
      }
      value = .array(frame.items)
    }
    (valueCount, byteCount) = (0, 0)
    return value
  }
}
