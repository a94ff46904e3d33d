internal import Glibc

/// Reads a GGUF file from its beginning on; the file may be anything.
///
/// Through a stream, not a mapping: a file that is cut while it is read is an error then, and no signal. No count in the file makes it ask
/// for more memory than the file has bytes.
@safe final class GGUFInput {
  /// Metadata beyond this are not read: the largest vocabularies take some 10 MiB.
  private static let byteCountMax = 256 << 20

  private let stream: UnsafeMutablePointer<FILE>
  private let byteCount: Int
  private(set) var offset = 0

  var remainingByteCount: Int { byteCount - offset }

  init(path: String) throws(GGUFError) {
    guard let stream = unsafe fopen(path, "re") else { throw .io(errno: errno) }
    var status = stat()
    guard unsafe fstat(fileno(stream), &status) == 0 else {
      let code = errno
      unsafe fclose(stream)
      throw .io(errno: code)
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      unsafe fclose(stream)
      throw .io(errno: EINVAL)
    }
    unsafe self.stream = unsafe stream
    byteCount = min(Int(status.st_size), Self.byteCountMax)
  }

  deinit { unsafe fclose(stream) }

  func bytes(_ count: UInt64) throws(GGUFError) -> [UInt8] {
    guard count <= UInt64(remainingByteCount) else { throw .malformed(offset: offset) }
    let wanted = Int(count)
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: wanted) { buffer, got in
      got = unsafe wanted == 0 ? 0 : fread(buffer.baseAddress, 1, wanted, stream)
    }
    guard bytes.count == wanted else { throw .malformed(offset: offset) }
    offset += wanted
    return bytes
  }

  func skip(_ count: UInt64) throws(GGUFError) {
    guard count <= UInt64(remainingByteCount), unsafe fseek(stream, Int(count), SEEK_CUR) == 0
    else { throw .malformed(offset: offset) }
    offset += Int(count)
  }

  /// Little-endian.
  func integer<T: FixedWidthInteger>(_: T.Type) throws(GGUFError) -> T {
    try bytes(UInt64(T.bitWidth / 8)).reversed().reduce(0) { $0 << 8 | T($1) }
  }

  /// A byte count and as many bytes.
  func string() throws(GGUFError) -> [UInt8] { try bytes(integer(UInt64.self)) }
}
