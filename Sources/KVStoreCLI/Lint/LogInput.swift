import Glibc
import KVCodec
import KVRequests

// Unsafe: reads into buffers that it owns; calls zlib through functions that were looked up in it.

/// The lines of a log: plain, gzip- or zstd-compressed (told by its first bytes), a file or the standard input.
@safe final class LogInput {
  let name: String
  private let descriptor: Int32
  private var packed: [UInt8]
  private var packedRange = 0..<0
  private var text: [UInt8] = []
  private var unread = 0
  private var isAtEnd = false
  private var zstd: ZstdStreamDecoder?
  private var gzip: GzipDecoder?
  /// Where the log breaks off, and why.
  private(set) var fault: String?
  /// Bytes read from the file so far, and its size where it has one.
  private(set) var readByteCount = 0
  let fileByteCount: Int?
  /// A line that has no end yet is left for later: somebody is writing it.
  var waitsForLineEnd = false

  private static let chunkByteCount = 1 << 20
  static let lineByteCountMax = JSONDocument.byteCountMax

  /// Opens a log; "-" is the standard input.
  init(_ path: String) throws {
    name = path == "-" ? "stdin" : path
    descriptor = path == "-" ? dup(0) : unsafe open(path, O_RDONLY | O_CLOEXEC)
    packed = [UInt8](repeating: 0, count: Self.chunkByteCount)
    guard descriptor >= 0 else { throw CommandFailure("cannot open \(path): \(errorText(errno))") }
    var status = stat()
    let isFile = unsafe fstat(descriptor, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    if status.st_mode & S_IFMT == S_IFDIR {
      throw CommandFailure("\(path) is a folder: give the files in it, as in \(path)/*.jsonl")
    }
    fileByteCount = isFile ? Int(status.st_size) : nil
    try readPacked()
    if packedRange.count >= 4, packed[0..<4].elementsEqual([0x28, 0xB5, 0x2F, 0xFD]) {
      do { zstd = try ZstdStreamDecoder() } catch { throw CommandFailure("\(name): \(error.text)") }
    } else if packedRange.count >= 2, packed[0..<2].elementsEqual([0x1F, 0x8B]) {
      gzip = try GzipDecoder()
    }
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  var isCompressed: Bool { zstd != nil || gzip != nil }

  /// The next line without its line break; nil at the end, and where the log breaks off.
  ///
  /// A line that is too long comes as an empty one that says so.
  func line() -> (bytes: [UInt8], isTooLong: Bool)? {
    var searched = unread
    var isTooLong = false
    while true {
      if let end = lineEnd(from: searched) {
        defer { unread = end + 1 }
        return (isTooLong ? [] : Array(text[unread..<end]), isTooLong)
      }
      searched = text.count
      if isAtEnd {
        if waitsForLineEnd { return nil }
        guard unread < text.count else { return isTooLong ? ([], true) : nil }
        defer { unread = text.count }
        return (isTooLong ? [] : Array(text[unread...]), isTooLong)
      }
      if text.count - unread > Self.lineByteCountMax {
        isTooLong = true
        text.removeAll(keepingCapacity: true)
        unread = 0
        searched = 0
      }
      let before = unread
      fill()
      searched -= before - unread
    }
  }

  /// All that is left, as one text; nil where it is too long.
  func rest() -> [UInt8]? {
    while !isAtEnd, text.count - unread <= Self.lineByteCountMax { fill() }
    guard isAtEnd else { return nil }
    defer { unread = text.count }
    return Array(text[unread...])
  }

  /// Looks whether a plain file has grown.
  func continueAtEnd() {
    isAtEnd = false
  }

  /// Whether the file was cut below what was read of it, or another one has its name now.
  func isReplaced(at path: String) -> Bool {
    var (mine, there) = (stat(), stat())
    guard unsafe fstat(descriptor, &mine) == 0, unsafe stat(path, &there) == 0 else { return false }
    return mine.st_ino != there.st_ino || mine.st_dev != there.st_dev
      || Int(mine.st_size) < readByteCount
  }

  private func lineEnd(from start: Int) -> Int? {
    unsafe text.withUnsafeBytes { buffer -> Int? in
      guard start < buffer.count, let base = buffer.baseAddress,
        let found = unsafe memchr(base + start, 0x0A, buffer.count - start)
      else { return nil }
      return unsafe UnsafeRawPointer(found) - base
    }
  }

  private func fill() {
    if unread > 0 {
      text.removeSubrange(0..<unread)
      unread = 0
    }
    do {
      if zstd != nil {
        try decodeZstd()
      } else if gzip != nil {
        try decodeGzip()
      } else {
        if packedRange.isEmpty { try readPacked() }
        if packedRange.isEmpty { isAtEnd = true }
        text += packed[packedRange]
        packedRange = 0..<0
      }
    } catch {
      fault = "\(error)"
      isAtEnd = true
    }
  }

  private func decodeZstd() throws {
    var target = [UInt8](repeating: 0, count: Self.chunkByteCount)
    while true {
      if packedRange.isEmpty, zstd?.holdsOutput != true {
        try readPacked()
        if packedRange.isEmpty {
          if zstd?.isInsideFrame == true { fault = "the compressed file ends too early" }
          isAtEnd = true
          return
        }
      }
      do {
        let range = packedRange
        let result = try unsafe packed.withUnsafeBytes { source in
          try unsafe target.withUnsafeMutableBytes { target in
            try unsafe zstd?.decode(UnsafeRawBufferPointer(rebasing: source[range]), into: target)
              ?? (taken: 0, put: 0)
          }
        }
        packedRange = packedRange.lowerBound + result.taken..<packedRange.upperBound
        if result.put > 0 {
          text += target[0..<result.put]
          return
        }
      } catch let error as ZstdStreamDecoder.Fault {
        throw CommandFailure("it is damaged: \(error.text)")
      }
    }
  }

  private func decodeGzip() throws {
    while true {
      if packedRange.isEmpty {
        try readPacked()
        if packedRange.isEmpty {
          if gzip?.isInside == true { fault = "the compressed file ends too early" }
          isAtEnd = true
          return
        }
      }
      let (taken, put) = try gzip?.decode(packed[packedRange]) ?? (0, [])
      packedRange = packedRange.lowerBound + taken..<packedRange.upperBound
      if !put.isEmpty {
        text += put
        return
      }
    }
  }

  private func readPacked() throws {
    while true {
      let count = unsafe packed.withUnsafeMutableBytes {
        unsafe read(descriptor, $0.baseAddress, $0.count)
      }
      if count >= 0 {
        packedRange = 0..<count
        readByteCount += count
        return
      }
      guard errno == EINTR else { throw CommandFailure("cannot read \(name): \(errorText(errno))") }
    }
  }
}

/// Decodes gzip with the system's zlib, which is looked for when it is needed: the command does not depend on it.
@safe final class GzipDecoder {
  /// `z_stream` of zlib 1, whose layout is part of its interface: 112 bytes on 64-bit systems.
  @safe private struct Stream {
    var nextIn: UnsafeRawPointer?
    var availableIn: UInt32 = 0
    var totalIn: UInt = 0
    var nextOut: UnsafeMutableRawPointer?
    var availableOut: UInt32 = 0
    var totalOut: UInt = 0
    var message: UnsafePointer<CChar>?
    var state: OpaquePointer?
    var allocate: OpaquePointer?
    var free: OpaquePointer?
    var opaque: OpaquePointer?
    var dataType: Int32 = 0
    var adler: UInt = 0
    var reserved: UInt = 0
  }

  private typealias Initialise =
    @convention(c) (UnsafeMutableRawPointer, Int32, UnsafePointer<CChar>, Int32) -> Int32
  private typealias Inflate = @convention(c) (UnsafeMutableRawPointer, Int32) -> Int32
  private typealias End = @convention(c) (UnsafeMutableRawPointer) -> Int32

  private let stream: UnsafeMutablePointer<Stream>
  private let inflate: Inflate
  private let reset: End
  private let finish: End
  private(set) var isInside = false
  private var target = [UInt8](repeating: 0, count: 1 << 20)

  init() throws {
    guard let library = unsafe dlopen("libz.so.1", RTLD_NOW),
      let initialise = unsafe dlsym(library, "inflateInit2_"),
      let inflate = unsafe dlsym(library, "inflate"),
      let reset = unsafe dlsym(library, "inflateReset"),
      let finish = unsafe dlsym(library, "inflateEnd")
    else {
      throw CommandFailure(
        "there is no zlib here to read gzip with (package zlib1g): use gzip -dc LOG | kvstore lint -"
      )
    }
    unsafe self.inflate = unsafeBitCast(inflate, to: Inflate.self)
    unsafe self.reset = unsafeBitCast(reset, to: End.self)
    unsafe self.finish = unsafeBitCast(finish, to: End.self)
    unsafe stream = .allocate(capacity: 1)
    unsafe stream.initialize(to: Stream())
    // 15: the largest window; 16: a gzip header.
    let status = unsafe unsafeBitCast(initialise, to: Initialise.self)(
      UnsafeMutableRawPointer(stream),
      15 + 16,
      "1",
      Int32(MemoryLayout<Stream>.size)
    )
    guard status == 0 else {
      unsafe stream.deallocate()
      throw CommandFailure("zlib cannot start (status \(status))")
    }
  }

  deinit {
    _ = unsafe finish(UnsafeMutableRawPointer(stream))
    unsafe stream.deallocate()
  }

  /// Decodes from `source` until it or the room for output is used up; files may follow one another.
  func decode(_ source: ArraySlice<UInt8>) throws -> (taken: Int, put: [UInt8]) {
    let status = unsafe source.withUnsafeBytes { input in
      unsafe target.withUnsafeMutableBytes { output in
        unsafe stream.pointee.nextIn = input.baseAddress
        unsafe stream.pointee.availableIn = UInt32(input.count)
        unsafe stream.pointee.nextOut = output.baseAddress
        unsafe stream.pointee.availableOut = UInt32(output.count)
        return unsafe inflate(UnsafeMutableRawPointer(stream), 0)
      }
    }
    let taken = source.count - Int(unsafe stream.pointee.availableIn)
    let put = Array(target[0..<target.count - Int(unsafe stream.pointee.availableOut)])
    switch status {
    case 0, -5: isInside = true
    case 1:
      isInside = false
      _ = unsafe reset(UnsafeMutableRawPointer(stream))
    default: throw CommandFailure("it is damaged: zlib status \(status)")
    }
    return (taken, put)
  }
}
