/// Appends little-endian integers and bytes; what the file format's records are made with.
package struct ByteWriter {
  package private(set) var bytes: [UInt8] = []

  package init(capacity: Int = 0) { bytes.reserveCapacity(capacity) }

  // Overloads instead of a generic function: one is not specialised for callers in other modules, and a slot's header has hundreds of
  // integers.
  package mutating func append(_ value: UInt8) { bytes.append(value) }
  package mutating func append(_ value: UInt16) { appendInteger(value) }
  package mutating func append(_ value: UInt32) { appendInteger(value) }
  package mutating func append(_ value: UInt64) { appendInteger(value) }
  package mutating func append(_ key: BlockKey) {
    append(key.high.byteSwapped)
    append(key.low.byteSwapped)
  }
  package mutating func append(contentsOf more: [UInt8]) { bytes.append(contentsOf: more) }
  package mutating func append(contentsOf more: UnsafeRawBufferPointer) {
    unsafe bytes.append(contentsOf: more)
  }

  private mutating func appendInteger<T: FixedWidthInteger & BitwiseCopyable>(_ value: T) {
    var littleEndian = value.littleEndian
    unsafe withUnsafeBytes(of: &littleEndian) { unsafe bytes.append(contentsOf: $0) }
  }
}

/// Reads little-endian integers from bytes that may be anything: out of bounds is nil, never a trap.
@safe package struct ByteReader {
  private let bytes: UnsafeRawBufferPointer
  package private(set) var offset = 0

  /// The bytes must outlive the reader.
  package init(_ bytes: UnsafeRawBufferPointer, offset: Int = 0) {
    unsafe self.bytes = bytes
    self.offset = offset
  }

  package var remainingByteCount: Int { unsafe bytes.count - offset }

  package mutating func read(_ type: UInt8.Type) -> UInt8? { readInteger() }
  package mutating func read(_ type: UInt16.Type) -> UInt16? { readInteger() }
  package mutating func read(_ type: UInt32.Type) -> UInt32? { readInteger() }
  package mutating func read(_ type: UInt64.Type) -> UInt64? { readInteger() }

  private mutating func readInteger<T: FixedWidthInteger & BitwiseCopyable>() -> T? {
    let size = MemoryLayout<T>.size
    guard offset >= 0, remainingByteCount >= size else { return nil }
    defer { offset += size }
    return unsafe T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
  }

  package mutating func readKey() -> BlockKey? {
    guard let high = read(UInt64.self), let low = read(UInt64.self) else { return nil }
    return BlockKey(high: high.byteSwapped, low: low.byteSwapped)
  }

  package mutating func readBytes(_ count: Int) -> [UInt8]? {
    guard count >= 0, offset >= 0, remainingByteCount >= count else { return nil }
    defer { offset += count }
    return unsafe Array(bytes[offset..<offset + count])
  }

  package mutating func skip(_ count: Int) -> Bool {
    guard count >= 0, remainingByteCount >= count else { return false }
    offset += count
    return true
  }
}

/// `value` rounded up to a multiple of `alignment`, a power of two.
@inlinable package func roundUp(_ value: Int, to alignment: Int) -> Int {
  (value + alignment - 1) & ~(alignment - 1)
}
