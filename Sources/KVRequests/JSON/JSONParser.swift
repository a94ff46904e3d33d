// Unsafe: reads the text by pointer, eight bytes at a time inside strings; every access is checked against its end. A log of
// requests is nearly all strings, and bounds-checked bytes cost a third of the whole command.

/// Finds the nodes of a JSON text, without recursion.
struct JSONParser {
  private(set) var nodes: [JSONNode] = []
  /// The containers that are open.
  private var open: [Int] = []

  init(byteCount: Int) { nodes.reserveCapacity(min(byteCount / 48, 1 << 16) + 4) }

  mutating func parse(_ bytes: [UInt8]) throws(JSONFault) {
    let fault = unsafe bytes.withUnsafeBufferPointer { buffer -> JSONFault? in
      guard let base = buffer.baseAddress else {
        return JSONFault(reason: .endsEarly, offset: 0)
      }
      do throws(JSONFault) {
        unsafe try parse(base, buffer.count)
        return nil
      } catch { return error }
    }
    if let fault { throw fault }
  }

  private mutating func parse(
    _ base: UnsafePointer<UInt8>,
    _ end: Int
  ) throws(JSONFault) {
    var at = 0
    while true {
      // A value.
      unsafe skipBlanks(base, end, &at)
      guard at < end else { throw JSONFault(reason: .endsEarly, offset: at) }
      let byte = unsafe base[at]
      if byte == UInt8(ascii: "{") || byte == UInt8(ascii: "[") {
        guard open.count < JSONDocument.depthMax else {
          throw JSONFault(reason: .tooDeep, offset: at)
        }
        let isObject = byte == UInt8(ascii: "{")
        open.append(nodes.count)
        append(at, at + 1, isObject ? .object : .array)
        at += 1
        unsafe skipBlanks(base, end, &at)
        if at < end, unsafe base[at] == (isObject ? UInt8(ascii: "}") : UInt8(ascii: "]")) {
          close(&at)
        } else {
          if isObject { unsafe try key(base, end, &at) }
          continue
        }
      } else if byte == UInt8(ascii: "\"") {
        unsafe try string(base, end, &at)
      } else {
        unsafe try word(base, end, &at)
      }
      // What follows a value.
      while let container = open.last {
        unsafe skipBlanks(base, end, &at)
        guard at < end else { throw JSONFault(reason: .endsEarly, offset: at) }
        let isObject = nodes[container].kind == .object
        if unsafe base[at] == UInt8(ascii: ",") {
          at += 1
          if isObject { unsafe try key(base, end, &at) }
          break
        }
        guard unsafe base[at] == (isObject ? UInt8(ascii: "}") : UInt8(ascii: "]")) else {
          throw JSONFault(reason: .syntax, offset: at)
        }
        close(&at)
      }
      if open.isEmpty { break }
    }
    unsafe skipBlanks(base, end, &at)
    guard at == end else { throw JSONFault(reason: .syntax, offset: at) }
  }

  private mutating func append(
    _ start: Int,
    _ end: Int,
    _ kind: JSONKind,
    hasEscapes: Bool = false
  ) {
    nodes.append(
      JSONNode(
        start: UInt32(start),
        end: UInt32(end),
        next: UInt32(nodes.count + 1),
        kind: kind,
        hasEscapes: hasEscapes
      )
    )
  }

  private mutating func close(_ at: inout Int) {
    at += 1
    let container = open.removeLast()
    nodes[container].end = UInt32(at)
    nodes[container].next = UInt32(nodes.count)
  }

  private func skipBlanks(_ base: UnsafePointer<UInt8>, _ end: Int, _ at: inout Int) {
    while at < end {
      switch unsafe base[at] {
      case 0x20, 0x0A, 0x0D, 0x09: at += 1
      default: return
      }
    }
  }

  /// A key and the colon behind it.
  private mutating func key(
    _ base: UnsafePointer<UInt8>,
    _ end: Int,
    _ at: inout Int
  ) throws(JSONFault) {
    unsafe skipBlanks(base, end, &at)
    guard at < end else { throw JSONFault(reason: .endsEarly, offset: at) }
    guard unsafe base[at] == UInt8(ascii: "\"") else {
      throw JSONFault(reason: .syntax, offset: at)
    }
    unsafe try string(base, end, &at)
    unsafe skipBlanks(base, end, &at)
    guard at < end else { throw JSONFault(reason: .endsEarly, offset: at) }
    guard unsafe base[at] == UInt8(ascii: ":") else { throw JSONFault(reason: .syntax, offset: at) }
    at += 1
  }

  private mutating func string(
    _ base: UnsafePointer<UInt8>,
    _ end: Int,
    _ at: inout Int
  ) throws(JSONFault) {
    let start = at
    var hasEscapes = false
    at += 1
    while true {
      // Eight bytes of plain text at once: none is a quote, a backslash, a control character or beyond ASCII.
      while at + 8 <= end {
        let word = unsafe UnsafeRawPointer(base).loadUnaligned(
          fromByteOffset: at,
          as: UInt64.self
        )
        let ones: UInt64 = 0x0101_0101_0101_0101
        let quote = word ^ ones &* 0x22
        let backslash = word ^ ones &* 0x5C
        let special =
          (quote &- ones) & ~quote | (backslash &- ones) & ~backslash
          | (word &- ones &* 0x20) & ~word | word
        if special & ones &* 0x80 != 0 { break }
        at += 8
      }
      guard at < end else { throw JSONFault(reason: .endsEarly, offset: end) }
      let byte = unsafe base[at]
      switch byte {
      case UInt8(ascii: "\""):
        at += 1
        append(start, at, .string, hasEscapes: hasEscapes)
        return
      case UInt8(ascii: "\\"):
        hasEscapes = true
        unsafe try escape(base, end, &at)
      case 0..<0x20: throw JSONFault(reason: .syntax, offset: at)
      case 0x20..<0x80: at += 1
      default: unsafe try character(base, end, &at)
      }
    }
  }

  private func escape(
    _ base: UnsafePointer<UInt8>,
    _ end: Int,
    _ at: inout Int
  ) throws(JSONFault) {
    guard at + 1 < end else { throw JSONFault(reason: .endsEarly, offset: end) }
    switch unsafe base[at + 1] {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"),
      UInt8(ascii: "f"), UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"):
      at += 2
    case UInt8(ascii: "u"):
      guard at + 6 <= end else { throw JSONFault(reason: .endsEarly, offset: end) }
      for offset in 2..<6 where unsafe JSONEscapes.digit(base[at + offset]) == nil {
        throw JSONFault(reason: .syntax, offset: at)
      }
      at += 6
    default: throw JSONFault(reason: .syntax, offset: at)
    }
  }

  /// One character beyond ASCII, which has to be well-formed UTF-8.
  private func character(
    _ base: UnsafePointer<UInt8>,
    _ end: Int,
    _ at: inout Int
  ) throws(JSONFault) {
    let first = unsafe base[at]
    let (count, least): (Int, UInt32) =
      switch first {
      case 0xC2...0xDF: (2, 0x80)
      case 0xE0...0xEF: (3, 0x800)
      case 0xF0...0xF4: (4, 0x10000)
      default: (0, 0)
      }
    guard count > 0 else { throw JSONFault(reason: .notUTF8, offset: at) }
    guard at + count <= end else { throw JSONFault(reason: .endsEarly, offset: end) }
    var code = UInt32(first) & (0xFF >> UInt32(count + 1))
    for offset in 1..<count {
      let byte = unsafe base[at + offset]
      guard byte & 0xC0 == 0x80 else { throw JSONFault(reason: .notUTF8, offset: at) }
      code = code << 6 | UInt32(byte & 0x3F)
    }
    guard code >= least, Unicode.Scalar(code) != nil else {
      throw JSONFault(reason: .notUTF8, offset: at)
    }
    at += count
  }

  /// A number, `true`, `false` or `null`.
  ///
  /// Python's `NaN` and `Infinity` are taken as numbers.
  private mutating func word(
    _ base: UnsafePointer<UInt8>,
    _ end: Int,
    _ at: inout Int
  ) throws(JSONFault) {
    let start = at
    while at < end {
      let byte = unsafe base[at]
      let isPart =
        byte &- 0x30 < 10 || (byte | 0x20) &- 0x61 < 26 || byte == UInt8(ascii: "-")
        || byte == UInt8(ascii: "+") || byte == UInt8(ascii: ".")
      guard isPart else { break }
      at += 1
    }
    guard at > start else {
      throw JSONFault(
        reason: unsafe base[at] >= 0x80 ? .notUTF8 : .syntax,
        offset: at
      )
    }
    let text = unsafe UnsafeBufferPointer(start: base + start, count: at - start)
    let kind: JSONKind
    if unsafe text.elementsEqual("true".utf8) || text.elementsEqual("false".utf8) {
      kind = .bool
    } else if unsafe text.elementsEqual("null".utf8) {
      kind = .null
    } else if unsafe JSONNumber.isNumber(text) {
      kind = .number
    } else {
      throw JSONFault(reason: at == end ? .endsEarly : .syntax, offset: at == end ? at : start)
    }
    append(start, at, kind)
  }
}
