internal import CKVStore
internal import KVCore

/// Copies a caller's struct over ours: `min(struct_size, ours)` bytes, so that an older caller's shorter struct leaves the
/// newer fields at their defaults, and a newer caller's longer one is accepted as long as the rest is zero.
///
/// - Returns: false when `struct_size` is below `minimum`, the size of the first published version.
func copyStruct<Struct: BitwiseCopyable>(
  _ source: UnsafePointer<Struct>?,
  over value: inout Struct,
  minimum: Int
) throws(StoreError) {
  guard let source = unsafe source else { throw .invalidArgument(.null) }
  let bytes = unsafe UnsafeRawPointer(source)
  let size = unsafe Int(bytes.loadUnaligned(as: UInt32.self))
  let ours = MemoryLayout<Struct>.size
  guard isStructSize(size, minimum: minimum, maximum: ours + structSizeSlack) else {
    throw .invalidArgument(.structSize)
  }
  if size > ours {
    for offset in ours..<size
    where unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt8.self) != 0 {
      throw .invalidArgument(.structSize)
    }
  }
  unsafe withUnsafeMutableBytes(of: &value) { destination in
    unsafe destination.baseAddress?.copyMemory(from: bytes, byteCount: min(size, ours))
  }
}

/// Copies our struct out over a caller's: as much of it as the caller's `struct_size` knows.
func copyStruct<Struct: BitwiseCopyable>(
  _ value: Struct,
  to destination: UnsafeMutablePointer<Struct>?,
  minimum: Int
) throws(StoreError) {
  guard let destination = unsafe destination else { throw .invalidArgument(.null) }
  let bytes = UnsafeMutableRawPointer(destination)
  let size = unsafe Int(bytes.loadUnaligned(as: UInt32.self))
  let ours = MemoryLayout<Struct>.size
  guard isStructSize(size, minimum: minimum, maximum: ours + structSizeSlack) else {
    throw .invalidArgument(.structSize)
  }
  unsafe withUnsafeBytes(of: value) { source in
    if let base = source.baseAddress, min(size, ours) > 4 {
      // The caller's struct_size stays.
      unsafe bytes.advanced(by: 4).copyMemory(
        from: base.advanced(by: 4),
        byteCount: min(size, ours) - 4
      )
    }
  }
}

/// An element of a caller's array of structs, which are as far apart as his version of the struct is long.
@unsafe func element<Struct>(
  _ index: Int,
  of first: UnsafeMutablePointer<Struct>
) -> UnsafeMutablePointer<Struct> {
  let size = unsafe Int(UnsafeRawPointer(first).loadUnaligned(as: UInt32.self))
  return unsafe UnsafeMutableRawPointer(first).advanced(by: index * size)
    .assumingMemoryBound(to: Struct.self)
}

/// Copies our struct out over each of a caller's array; all have the `struct_size` of the first.
///
/// None is longer than ours: where the second one lies would be the word of a number that may be anything.
func copyStruct<Struct: BitwiseCopyable>(
  _ value: Struct,
  toEachOf first: UnsafeMutablePointer<Struct>,
  count: Int,
  minimum: Int
) throws(StoreError) {
  let size = unsafe UnsafeRawPointer(first).loadUnaligned(as: UInt32.self)
  guard count <= 1 || Int(size) <= MemoryLayout<Struct>.size else {
    throw .invalidArgument(.structSize)
  }
  for index in 0..<count {
    // The first one's size is checked before another one is looked for by it.
    let next = unsafe index == 0 ? first : element(index, of: first)
    guard unsafe UnsafeRawPointer(next).loadUnaligned(as: UInt32.self) == size else {
      throw .invalidArgument(.structSize)
    }
    try unsafe copyStruct(value, to: next, minimum: minimum)
  }
}

/// Every struct holds 64-bit fields, so no version of one ever had another size than a multiple of 8.
func isStructSize(_ size: Int, minimum: Int, maximum: Int) -> Bool {
  size >= minimum && size <= maximum && size % 8 == 0
}

/// No struct will ever grow by more; a larger size is garbage, and its tail is not read.
private let structSizeSlack = 4096

/// A C string of at most 4,096 bytes; NULL is "".
func text(_ pointer: UnsafePointer<CChar>?) throws(StoreError) -> String {
  guard let pointer = unsafe pointer else { return "" }
  guard let text = unsafe String(validatingCString: pointer) else {
    throw .invalidArgument(.textNotUTF8)
  }
  return text
}

/// A caller's bytes; NULL only with length 0.
func byteArray(_ bytes: kvstore_bytes_t) throws(StoreError) -> [UInt8] {
  guard unsafe bytes.length != 0 else { return [] }
  guard let data = unsafe bytes.data else { throw .invalidArgument(.null) }
  guard unsafe (0...4096).contains(bytes.length) else {
    throw .invalidArgument(.identityFieldTooLong)
  }
  return unsafe Array(UnsafeRawBufferPointer(start: data, count: bytes.length))
}
