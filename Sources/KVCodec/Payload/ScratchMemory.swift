/// Memory that grows to what is asked for and is kept; its contents mean nothing between two uses.
///
/// Unsafe: the class only owns the memory.
@safe final class ScratchMemory {
  private(set) var bytes = unsafe UnsafeMutableRawBufferPointer(start: nil, count: 0)

  deinit { unsafe bytes.deallocate() }

  /// At least `byteCount` bytes; valid until the next call.
  func reserve(_ byteCount: Int) -> UnsafeMutableRawBufferPointer {
    if unsafe bytes.count < byteCount {
      unsafe bytes.deallocate()
      unsafe bytes = .allocate(byteCount: byteCount, alignment: 64)
    }
    return unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[0..<byteCount])
  }
}
