import Glibc
import KVCodec

/// A codec as the bench sees it: whole blocks in, whole blocks out.
protocol BlockCodec {
  var name: String { get }
  /// Too slow to be repeated.
  var isSlow: Bool { get }
  /// Room that encoding a block needs.
  func bound(_ byteCount: Int) -> Int
  /// Bytes that the encoded block takes in `target`; nil when it would not become smaller.
  func encode(_ block: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) -> Int?
  /// Whether all of `target` was decoded.
  func decode(_ stored: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) -> Bool
}

/// The store's own.
final class StoreCodec: BlockCodec {
  let name = "kvstore"
  let isSlow = false
  private let format: PayloadFormat
  private let encoder: PayloadEncoder
  private let decoder: FrameDecoder

  init(_ format: PayloadFormat) throws {
    guard let encoder = PayloadEncoder(), let decoder = FrameDecoder() else {
      throw CommandFailure("memory is short")
    }
    self.format = format
    self.encoder = encoder
    self.decoder = decoder
  }

  func bound(_ byteCount: Int) -> Int { PayloadEncoder.bound([byteCount]) }

  func encode(_ block: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) -> Int? {
    unsafe encoder.encode(block, regionByteCounts: [block.count], format, into: target)?
      .reduce(0, +)
  }

  func decode(
    _ stored: UnsafeRawBufferPointer,
    into target: UnsafeMutableRawBufferPointer
  ) -> Bool {
    unsafe decoder.decode(stored, into: target) == stored.count
  }
}

/// zstd on the bytes as they are.
final class PlainZstd: BlockCodec {
  let name: String
  let isSlow: Bool
  private let compressor: ZstdCompressor
  private let decompressor: ZstdDecompressor

  init(level: Int) throws {
    guard let compressor = ZstdCompressor(level: level), let decompressor = ZstdDecompressor()
    else { throw CommandFailure("memory is short") }
    name = "zstd -\(level)"
    isSlow = level > 9
    self.compressor = compressor
    self.decompressor = decompressor
  }

  func bound(_ byteCount: Int) -> Int { ZstdCompressor.bound(byteCount) }

  func encode(_ block: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) -> Int? {
    let count = unsafe compressor.compress(block, into: target)
    return count.flatMap { $0 < block.count ? $0 : nil }
  }

  func decode(
    _ stored: UnsafeRawBufferPointer,
    into target: UnsafeMutableRawBufferPointer
  ) -> Bool {
    unsafe decompressor.decompress(stored, into: target)
  }
}

/// lz4 on the bytes as they are, from the system's library if it is there: only this measurement wants it.
///
/// Unsafe: functions that were found by name; they stay, since the library is never closed.
@safe final class LZ4: BlockCodec {
  let name = "lz4"
  let isSlow = false
  private typealias Function =
    @convention(c) (
      UnsafePointer<CChar>?, UnsafeMutablePointer<CChar>?, Int32, Int32
    ) -> Int32
  private let compress: Function
  private let decompress: Function

  init?() {
    guard let library = unsafe dlopen("liblz4.so.1", RTLD_NOW),
      let compress = unsafe dlsym(library, "LZ4_compress_default"),
      let decompress = unsafe dlsym(library, "LZ4_decompress_safe")
    else { return nil }
    // Both have this signature in every version of the library with this name.
    unsafe self.compress = unsafeBitCast(compress, to: Function.self)
    unsafe self.decompress = unsafeBitCast(decompress, to: Function.self)
  }

  func bound(_ byteCount: Int) -> Int { byteCount + byteCount / 255 + 16 }

  func encode(_ block: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer) -> Int? {
    let count = unsafe compress(
      block.baseAddress?.assumingMemoryBound(to: CChar.self),
      target.baseAddress?.assumingMemoryBound(to: CChar.self),
      Int32(clamping: block.count),
      Int32(clamping: target.count)
    )
    return count > 0 && Int(count) < block.count ? Int(count) : nil
  }

  func decode(
    _ stored: UnsafeRawBufferPointer,
    into target: UnsafeMutableRawBufferPointer
  ) -> Bool {
    let count = unsafe decompress(
      stored.baseAddress?.assumingMemoryBound(to: CChar.self),
      target.baseAddress?.assumingMemoryBound(to: CChar.self),
      Int32(clamping: stored.count),
      Int32(clamping: target.count)
    )
    return Int(count) == target.count
  }
}
