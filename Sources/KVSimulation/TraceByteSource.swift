internal import Glibc
internal import KVCodec

// Unsafe: reads into buffers that it owns, and lends the bytes of one line at a time.

/// The lines of a file, plain or zstd-compressed (told by its first bytes), without holding more than one of them.
@safe final class TraceByteSource {
  private let file: String
  private let descriptor: Int32
  private var decoder: ZstdStreamDecoder?
  /// What was read from a compressed file and not decoded yet.
  private var packed: UnsafeMutableRawBufferPointer
  private var packedRange = 0..<0
  /// Text: `unread` is what no line was made of yet.
  private var text: UnsafeMutableRawBufferPointer
  private var unread = 0..<0
  private var isAtEnd = false

  static let lineByteCountMax = 256 << 20
  private static let chunkByteCount = 1 << 20

  /// Opens a file; "-" is the standard input.
  init(file: String) throws(TraceError) {
    self.file = file
    descriptor = file == "-" ? dup(0) : unsafe open(file, O_RDONLY | O_CLOEXEC)
    unsafe packed = .allocate(byteCount: Self.chunkByteCount, alignment: 16)
    unsafe text = .allocate(byteCount: 2 * Self.chunkByteCount, alignment: 16)
    guard descriptor >= 0 else { throw .cannotOpen(file: file, errno: errno) }
    try readPacked()
    let isCompressed =
      unsafe packedRange.count >= 4
      && packed.loadUnaligned(fromByteOffset: 0, as: UInt32.self) == 0xFD2F_B528
    if unsafe packedRange.count >= 2 && packed[0] == 0x1F && packed[1] == 0x8B {
      throw .gzip(file: file)
    }
    if isCompressed {
      do throws(ZstdStreamDecoder.Fault) { decoder = try ZstdStreamDecoder() } catch {
        throw .badCompression(file: file, text: error.text)
      }
    }
  }

  deinit {
    if descriptor >= 0 { close(descriptor) }
    unsafe packed.deallocate()
    unsafe text.deallocate()
  }

  /// Lends the next line without its line break; nil at the end.
  func withLine<R>(_ body: (UnsafeRawBufferPointer) -> R) throws(LineError) -> R? {
    var searched = 0
    while true {
      let start = unread.lowerBound + searched
      if let found = unsafe text.baseAddress.flatMap({ base in
        unsafe memchr(base + start, 0x0A, unread.upperBound - start)
      }) {
        let end =
          unsafe UnsafeRawPointer(found) - UnsafeRawPointer(text.baseAddress.unsafelyUnwrapped)
        let line = unsafe UnsafeRawBufferPointer(rebasing: text[unread.lowerBound..<end])
        unread = end + 1..<unread.upperBound
        return unsafe body(line)
      }
      searched = unread.count
      if isAtEnd {
        guard !unread.isEmpty else { return nil }
        let line = unsafe UnsafeRawBufferPointer(rebasing: text[unread])
        unread = unread.upperBound..<unread.upperBound
        return unsafe body(line)
      }
      guard unread.count <= Self.lineByteCountMax else { throw .tooLong }
      do throws(TraceError) { try fill() } catch { throw .trace(error) }
    }
  }

  /// Why there is no line.
  enum LineError: Error {
    case tooLong
    case trace(TraceError)
  }

  /// Moves the unread text to the front, and reads more behind it.
  private func fill() throws(TraceError) {
    if unread.lowerBound > 0 {
      let count = unread.count
      unsafe text.baseAddress.unsafelyUnwrapped.copyMemory(
        from: text.baseAddress.unsafelyUnwrapped + unread.lowerBound,
        byteCount: count
      )
      unread = 0..<count
    }
    if unsafe unread.count + Self.chunkByteCount > text.count {
      let larger = unsafe UnsafeMutableRawBufferPointer.allocate(
        byteCount: text.count * 2,
        alignment: 16
      )
      unsafe larger.copyMemory(from: UnsafeRawBufferPointer(rebasing: text[unread]))
      unsafe text.deallocate()
      unsafe text = larger
    }
    let room = unsafe UnsafeMutableRawBufferPointer(rebasing: text[unread.upperBound...])
    let count = unsafe decoder == nil ? try copyPlain(room) : try decode(room)
    if count == 0 { isAtEnd = true }
    unread = unread.lowerBound..<unread.upperBound + count
  }

  private func copyPlain(_ room: UnsafeMutableRawBufferPointer) throws(TraceError) -> Int {
    if packedRange.isEmpty { try readPacked() }
    let count = min(packedRange.count, room.count)
    let source = packedRange.lowerBound..<packedRange.lowerBound + count
    unsafe room.copyMemory(from: UnsafeRawBufferPointer(rebasing: packed[source]))
    packedRange = source.upperBound..<packedRange.upperBound
    return count
  }

  private func decode(_ room: UnsafeMutableRawBufferPointer) throws(TraceError) -> Int {
    while true {
      if packedRange.isEmpty, decoder?.holdsOutput != true {
        try readPacked()
        if packedRange.isEmpty {
          guard decoder?.isInsideFrame == false else {
            throw .badCompression(file: file, text: "it ends too early")
          }
          return 0
        }
      }
      do throws(ZstdStreamDecoder.Fault) {
        let source = unsafe UnsafeRawBufferPointer(rebasing: packed[packedRange])
        let result = unsafe try decoder?.decode(source, into: room) ?? (taken: 0, put: 0)
        packedRange = packedRange.lowerBound + result.taken..<packedRange.upperBound
        if result.put > 0 { return result.put }
      } catch { throw .badCompression(file: file, text: error.text) }
    }
  }

  /// Reads the next chunk of the file; the range is empty at its end.
  private func readPacked() throws(TraceError) {
    while true {
      let count = unsafe read(descriptor, packed.baseAddress, packed.count)
      if count >= 0 {
        packedRange = 0..<count
        return
      }
      guard errno == EINTR else { throw .cannotRead(file: file, errno: errno) }
    }
  }
}
