internal import Glibc
internal import KVCore

/// Writes little-endian integers into bytes that LMDB set aside for a row.
@safe struct RawWriter {
  private let bytes: UnsafeMutableRawBufferPointer
  private var offset: Int

  init(_ bytes: UnsafeMutableRawBufferPointer, at offset: Int = 0) {
    unsafe self.bytes = bytes
    self.offset = offset
  }

  mutating func write<T: FixedWidthInteger & BitwiseCopyable>(_ value: T) {
    let size = MemoryLayout<T>.size
    guard unsafe bytes.count - offset >= size else { return assertionFailure("row too short") }
    unsafe bytes.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
    offset += size
  }

  @safe mutating func write(_ more: UnsafeRawBufferPointer) {
    guard unsafe !more.isEmpty else { return }
    guard unsafe bytes.count - offset >= more.count else {
      return assertionFailure("row too short")
    }
    unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[offset...]).copyMemory(from: more)
    offset += more.count
  }
}

// A position is u64 run, u32 position wherever a value names one. A value of `keys` is nothing else; in namespace 0 the run is the id of
// the namespace with the root key.

extension BlockPosition {
  static let byteCount = 12
}

extension RawWriter {
  mutating func write(_ at: BlockPosition) {
    write(at.run.rawValue)
    write(at.position)
  }
}

extension ByteWriter {
  mutating func append(_ at: BlockPosition) {
    append(at.run.rawValue)
    append(at.position)
  }
}

extension ByteReader {
  mutating func readPosition() -> BlockPosition? {
    guard let run = read(UInt64.self), let position = read(UInt32.self) else { return nil }
    return BlockPosition(run: RunID(rawValue: run), position: position)
  }
}

extension UnsafeRawBufferPointer {
  /// A little-endian integer; the caller has checked that its bytes are there.
  ///
  /// Inlined, since rows are read by the thousand.
  @inline(__always) func loadInteger<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int) -> T {
    unsafe T(littleEndian: loadUnaligned(fromByteOffset: offset, as: T.self))
  }
}

@safe func bytesEqual(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
  guard a.count == b.count else { return false }
  guard let left = a.baseAddress, let right = b.baseAddress else { return true }
  return unsafe memcmp(left, right, a.count) == 0
}
