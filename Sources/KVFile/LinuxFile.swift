internal import CLinux
internal import Glibc
internal import KVCore
internal import Synchronization

/// A real file: one descriptor through the page cache and, if asked for and possible, one past it (O_DIRECT).
///
/// Transfers that are aligned as the file system wants go past the page cache, all others through it; the kernel keeps
/// both views the same. Where O_DIRECT is refused, at open or later by EINVAL, everything goes through the cache.
final class LinuxFile: StorageFile {
  private let buffered: FileDescriptor
  private let direct: FileDescriptor?
  /// Number of `direct`, or of `buffered` where there is none.
  private let directNumber: Int32
  private let memoryAlignmentMask: UInt
  private let offsetAlignmentMask: UInt
  private let directIsRefused: Atomic<Bool>
  /// A sync has failed: the kernel may have dropped dirty pages and will not report them again.
  private let isSuspect = Atomic(false)
  private let isClosed = Atomic(false)

  init(
    _ path: String,
    in folder: OpenFolder?,
    mode: OpenMode,
    direct wantsDirect: Bool
  ) throws(FileError) {
    buffered = try FileDescriptor.open(path, in: folder, mode: mode)
    var memoryAlignment: UInt32 = 4096
    var offsetAlignment: UInt32 = 4096
    var descriptor: FileDescriptor?
    if wantsDirect {
      let mode: OpenMode = mode == .readOnly ? .readOnly : .existing
      // EINVAL: this file system has no O_DIRECT.
      do { descriptor = try FileDescriptor.open(path, in: folder, mode: mode, direct: true) } catch
      {
        guard error.errno == EINVAL else { throw error }
      }
      // The name may be another file's by now.
      if let direct = try descriptor?.identity(), try direct != buffered.identity() {
        throw FileError(.open, errno: ESTALE)
      }
      // A kernel that does not say is taken to want whole pages.
      if unsafe clinux_direct_alignment(buffered.rawValue, &memoryAlignment, &offsetAlignment) != 0
      {
        memoryAlignment = 4096
        offsetAlignment = 4096
      }
    }
    let isUsable = Self.isPowerOfTwo(memoryAlignment) && Self.isPowerOfTwo(offsetAlignment)
    let isRefused = !isUsable || descriptor == nil
    directNumber = descriptor?.rawValue ?? buffered.rawValue
    direct = descriptor
    directIsRefused = Atomic(isRefused)
    memoryAlignmentMask = UInt(max(memoryAlignment, 1) - 1)
    offsetAlignmentMask = UInt(max(offsetAlignment, 1) - 1)
  }

  private static func isPowerOfTwo(_ value: UInt32) -> Bool { value.nonzeroBitCount == 1 }

  var isDirect: Bool { !directIsRefused.load(ordering: .relaxed) }

  // MARK: Transfers

  func read(into bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(FileError) {
    try checkOpen(.read)
    var part = unsafe iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
    try unsafe withUnsafeMutablePointer(to: &part) { (part) throws(FileError) in
      try unsafe transfer(UnsafeMutableBufferPointer(start: part, count: 1), at: offset, .read)
    }
  }

  func read(into buffers: [UnsafeMutableRawBufferPointer], at offset: UInt64) throws(FileError) {
    try checkOpen(.read)
    var parts = unsafe buffers.map { unsafe iovec(iov_base: $0.baseAddress, iov_len: $0.count) }
    unsafe try transferAll(&parts, at: offset, .read)
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(FileError) {
    try checkWritable(.write)
    var part = unsafe iovec(
      iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress),
      iov_len: bytes.count
    )
    try unsafe withUnsafeMutablePointer(to: &part) { (part) throws(FileError) in
      try unsafe transfer(UnsafeMutableBufferPointer(start: part, count: 1), at: offset, .write)
    }
  }

  func write(_ buffers: [UnsafeRawBufferPointer], at offset: UInt64) throws(FileError) {
    try checkWritable(.write)
    var parts = unsafe buffers.map {
      unsafe iovec(iov_base: UnsafeMutableRawPointer(mutating: $0.baseAddress), iov_len: $0.count)
    }
    unsafe try transferAll(&parts, at: offset, .write)
  }

  private enum Direction { case read, write }

  private func transferAll(
    _ parts: inout [iovec],
    at offset: UInt64,
    _ direction: Direction
  ) throws(FileError) {
    // Array.withUnsafe… rethrows untyped errors; hence the detour.
    let error: FileError? = unsafe parts.withUnsafeMutableBufferPointer { parts in
      do throws(FileError) { unsafe try transfer(parts, at: offset, direction) } catch {
        return error
      }
      return nil
    }
    if let error { throw error }
  }

  /// The most parts that one call takes (Linux: UIO_MAXIOV).
  private static let partCountMax = 1024

  /// Moves all bytes of `parts`, which it consumes, however short the kernel's single transfers are.
  private func transfer(
    _ parts: UnsafeMutableBufferPointer<iovec>,
    at offset: UInt64,
    _ direction: Direction
  ) throws(FileError) {
    let operation: FileOperation = direction == .read ? .read : .write
    guard offset <= UInt64(Int64.max) else { throw FileError(operation, errno: EINVAL) }
    var offset = Int(offset)
    var first = 0
    while first < parts.count {
      guard unsafe parts[first].iov_len > 0, let base = parts.baseAddress else {
        first += 1
        continue
      }
      let count = min(parts.count - first, Self.partCountMax)
      let window = unsafe UnsafeBufferPointer(start: base + first, count: count)
      let goesDirect = unsafe isDirect && isAligned(window, at: offset)
      let descriptor = goesDirect ? directNumber : buffered.rawValue
      let moved =
        unsafe direction == .read
        ? preadv(descriptor, base + first, Int32(count), offset)
        : pwritev(descriptor, base + first, Int32(count), offset)
      if moved < 0 {
        let code = lastErrno
        if code == EINTR { continue }
        if code == EINVAL, goesDirect {
          directIsRefused.store(true, ordering: .relaxed)
          continue
        }
        throw FileError(operation, errno: code)
      }
      if moved == 0 {
        throw direction == .read ? .endOfFile : FileError(.write, errno: EIO)
      }
      offset += moved
      unsafe consume(moved, of: parts, from: &first)
    }
  }

  /// Steps over `byteCount` moved bytes.
  private func consume(
    _ byteCount: Int,
    of parts: UnsafeMutableBufferPointer<iovec>,
    from first: inout Int
  ) {
    var rest = byteCount
    while first < parts.count {
      let length = unsafe parts[first].iov_len
      if rest < length {
        if rest > 0, let base = unsafe parts[first].iov_base {
          unsafe parts[first] = unsafe iovec(iov_base: base + rest, iov_len: length - rest)
        }
        return
      }
      rest -= length
      first += 1
    }
  }

  private func isAligned(_ parts: UnsafeBufferPointer<iovec>, at offset: Int) -> Bool {
    guard UInt(bitPattern: offset) & offsetAlignmentMask == 0 else { return false }
    // Indexed: the formatter breaks a loop over unsafe elements.
    for index in parts.indices {
      let part = unsafe parts[index]
      guard unsafe UInt(bitPattern: part.iov_base) & memoryAlignmentMask == 0,
        unsafe UInt(bitPattern: part.iov_len) & offsetAlignmentMask == 0
      else { return false }
    }
    return true
  }

  // MARK: Durability and space

  func sync() throws(FileError) {
    try checkWritable(.sync)
    while fdatasync(buffered.rawValue) != 0 {
      let code = lastErrno
      if code == EINTR { continue }
      isSuspect.store(true, ordering: .releasing)
      throw FileError(.sync, errno: code)
    }
  }

  func allocate(byteCount: UInt64) throws(FileError) {
    try checkWritable(.allocate)
    let code = clinux_fallocate(buffered.rawValue, byteCount)
    guard code == EOPNOTSUPP || code == ENOSYS || code == EINVAL else {
      return try check(code, .allocate)
    }
    try fillWithZeros(upTo: byteCount)
  }

  /// Where the file system has no fallocate: real room is what was written.
  private func fillWithZeros(upTo byteCount: UInt64) throws(FileError) {
    let zeros = try AlignedBuffer(byteCount: 1 << 20, isZeroed: true)
    var offset = try self.byteCount()
    while offset < byteCount {
      let count = unsafe Int(min(UInt64(zeros.bytes.count), byteCount - offset))
      do {
        unsafe try write(UnsafeRawBufferPointer(rebasing: zeros.readOnly[..<count]), at: offset)
      } catch {
        throw FileError(.allocate, errno: error.errno)
      }
      offset += UInt64(count)
    }
  }

  func byteCount() throws(FileError) -> UInt64 {
    try checkOpen(.status)
    return UInt64(clamping: try buffered.status().st_size)
  }

  func allocatedByteCount() throws(FileError) -> UInt64 {
    try checkOpen(.status)
    // st_blocks counts 512-byte units whatever the block size is.
    return UInt64(clamping: try buffered.status().st_blocks) * 512
  }

  func hasData() throws(FileError) -> Bool {
    try checkOpen(.status)
    // ENXIO: nothing but holes and room that was never written.
    return clinux_first_data(buffered.rawValue) >= 0 || lastErrno != ENXIO
  }

  func identity() throws(FileError) -> FileIdentity {
    try checkOpen(.status)
    return try buffered.identity()
  }

  func dropPageCache() throws(FileError) {
    try checkOpen(.status)
    try check(clinux_drop_page_cache(buffered.rawValue), .status)
  }

  func close() { isClosed.store(true, ordering: .releasing) }

  private func checkOpen(_ operation: FileOperation) throws(FileError) {
    guard !isClosed.load(ordering: .acquiring) else { throw FileError(operation, errno: EBADF) }
  }

  private func checkWritable(_ operation: FileOperation) throws(FileError) {
    try checkOpen(operation)
    guard !isSuspect.load(ordering: .acquiring) else { throw FileError(operation, errno: EIO) }
  }
}
