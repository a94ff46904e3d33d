// Unsafe: walks the bytes of a line by pointer, every step checked against its end. A general JSON decoder reads a
// trace at a tenth of the speed at which it is replayed.

/// A forward scanner over one line of JSON; it reads what traces hold and skips all else.
@safe struct JSONScanner {
  private let base: UnsafePointer<UInt8>
  private let end: Int
  private(set) var offset = 0

  /// Why a scan stops.
  enum Fault: Error { case syntax, notInteger, outOfRange }

  /// `bytes` must outlive the scanner.
  init?(_ bytes: UnsafeRawBufferPointer) {
    guard let start = bytes.baseAddress else { return nil }
    unsafe base = start.assumingMemoryBound(to: UInt8.self)
    end = bytes.count
  }

  /// The next byte that is no white space; 0 at the end.
  mutating func peek() -> UInt8 {
    while offset < end {
      let byte = unsafe base[offset]
      if byte > 0x20 { return byte }
      offset += 1
    }
    return 0
  }

  /// Passes over `byte` if it is next.
  mutating func take(_ byte: UInt8) -> Bool {
    guard peek() == byte else { return false }
    offset += 1
    return true
  }

  mutating func expect(_ byte: UInt8) throws(Fault) {
    guard take(byte) else { throw .syntax }
  }

  /// A string without its quotes; escapes are passed over, not decoded.
  mutating func string() throws(Fault) -> UnsafeRawBufferPointer {
    try expect(UInt8(ascii: "\""))
    let start = offset
    while offset < end {
      switch unsafe base[offset] {
      case UInt8(ascii: "\\"): offset += 2
      case UInt8(ascii: "\""):
        defer { offset += 1 }
        return unsafe UnsafeRawBufferPointer(start: base + start, count: offset - start)
      default: offset += 1
      }
    }
    throw .syntax
  }

  /// An integer of 64 bits; a fraction is cut off.
  mutating func integer() throws(Fault) -> Int64 {
    let isNegative = take(UInt8(ascii: "-"))
    let magnitude = try unsignedInteger()
    if offset < end, unsafe base[offset] == UInt8(ascii: ".") {
      offset += 1
      while offset < end, unsafe base[offset] &- 0x30 < 10 { offset += 1 }
      if offset < end, unsafe base[offset] | 0x20 == UInt8(ascii: "e") { throw .notInteger }
    }
    guard magnitude <= UInt64(Int64.max) else { throw .outOfRange }
    return isNegative ? -Int64(magnitude) : Int64(magnitude)
  }

  mutating func unsignedInteger() throws(Fault) -> UInt64 {
    guard peek() &- 0x30 < 10 else { throw .notInteger }
    var value: UInt64 = 0
    let start = offset
    while offset < end {
      let digit = unsafe base[offset] &- 0x30
      if digit >= 10 { break }
      // 19 digits always fit; a twentieth may not.
      if offset - start >= 19 {
        let (product, isTooLarge) = value.multipliedReportingOverflow(by: 10)
        let (sum, isOver) = product.addingReportingOverflow(UInt64(digit))
        if isTooLarge || isOver { throw .outOfRange }
        value = sum
      } else {
        value = value &* 10 &+ UInt64(digit)
      }
      offset += 1
    }
    if offset < end, unsafe base[offset] | 0x20 == UInt8(ascii: "e") { throw .notInteger }
    return value
  }

  /// Appends the integers of an array.
  mutating func integers(into target: inout [UInt64]) throws(Fault) {
    try expect(UInt8(ascii: "["))
    if take(UInt8(ascii: "]")) { return }
    while true {
      target.append(try unsignedInteger())
      if take(UInt8(ascii: ",")) { continue }
      // An integer with a fraction ends here as well.
      guard take(UInt8(ascii: "]")) else { throw .notInteger }
      return
    }
  }

  /// Passes over any value, whatever it holds.
  mutating func skipValue() throws(Fault) {
    var depth = 0
    repeat {
      switch peek() {
      case 0: throw .syntax
      case UInt8(ascii: "\""): _ = unsafe try string()
      case UInt8(ascii: "{"), UInt8(ascii: "["):
        depth += 1
        offset += 1
      case UInt8(ascii: "}"), UInt8(ascii: "]"):
        guard depth > 0 else { throw .syntax }
        depth -= 1
        offset += 1
      case UInt8(ascii: ","), UInt8(ascii: ":"):
        guard depth > 0 else { throw .syntax }
        offset += 1
      default:
        // A number or a word: up to what cannot be part of one.
        while offset < end, unsafe !Self.endsWord(base[offset]) { offset += 1 }
      }
    } while depth > 0
  }

  private static func endsWord(_ byte: UInt8) -> Bool {
    switch byte {
    case ...0x20, UInt8(ascii: ","), UInt8(ascii: "]"), UInt8(ascii: "}"), UInt8(ascii: ":"),
      UInt8(ascii: "["), UInt8(ascii: "{"), UInt8(ascii: "\""):
      true
    default: false
    }
  }
}
