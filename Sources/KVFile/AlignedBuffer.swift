internal import Glibc

/// Memory aligned for direct I/O: starts at a multiple of 4096; freed at the end of its life.
///
/// Unsafe: the class only owns the memory; who writes to it and when is up to its users.
@safe package final class AlignedBuffer: @unchecked Sendable {
  package static let alignment = 4096

  package let bytes: UnsafeMutableRawBufferPointer

  /// `byteCount` bytes, at least one.
  package init(byteCount: Int, isZeroed: Bool = false) throws(FileError) {
    var address: UnsafeMutableRawPointer?
    let code = unsafe posix_memalign(&address, Self.alignment, max(byteCount, 1))
    guard code == 0, let address = unsafe address else {
      throw FileError(.allocate, .memory, errno: ENOMEM)
    }
    if isZeroed { unsafe memset(address, 0, max(byteCount, 1)) }
    unsafe bytes = UnsafeMutableRawBufferPointer(start: address, count: byteCount)
  }

  deinit { unsafe free(bytes.baseAddress) }

  /// The same bytes, for reading.
  package var readOnly: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(bytes) }
}
