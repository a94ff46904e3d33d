internal import CZstd

/// A zstd compression context; for one thread at a time.
@safe package struct ZstdCompressor: ~Copyable {
  private let context: OpaquePointer

  /// A context for a level of the library, 1 to 22 or negative; nil when memory is short.
  package init?(level: Int) {
    guard let context = unsafe ZSTD_createCCtx() else { return nil }
    unsafe self.context = context
    _ = unsafe ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, Int32(clamping: level))
  }

  /// A context that Huffman-codes and looks for no matches.
  ///
  /// Noise has none, and those that are found by chance cost more than they save (docs/decisions/0003-lossless-codec.md).
  static func literalsOnly() -> ZstdCompressor? {
    guard let compressor = ZstdCompressor(level: -5000) else { return nil }
    let code = unsafe ZSTD_CCtx_setParameter(
      compressor.context,
      kv_zstd_literal_compression_mode,
      kv_zstd_literal_compression_on
    )
    // A library that does not know the parameter stores literals as they are at negative levels.
    if ZSTD_isError(code) != 0 { return ZstdCompressor(level: 1) }
    return compressor
  }

  deinit { unsafe ZSTD_freeCCtx(context) }

  /// Compresses into one frame; nil when it does not fit.
  package borrowing func compress(
    _ source: UnsafeRawBufferPointer,
    into target: UnsafeMutableRawBufferPointer
  ) -> Int? {
    let count = unsafe ZSTD_compress2(
      context,
      target.baseAddress,
      target.count,
      source.baseAddress,
      source.count
    )
    return ZSTD_isError(count) == 0 ? count : nil
  }

  /// Room that `byteCount` bytes may need.
  package static func bound(_ byteCount: Int) -> Int { ZSTD_compressBound(byteCount) }
}

/// A zstd decompression context; for one thread at a time.
@safe package struct ZstdDecompressor: ~Copyable {
  private let context: OpaquePointer

  /// Nil when memory is short.
  package init?() {
    guard let context = unsafe ZSTD_createDCtx() else { return nil }
    unsafe self.context = context
  }

  deinit { unsafe ZSTD_freeDCtx(context) }

  /// Decompresses all frames in `source`; false unless they fill `target` to the byte.
  ///
  /// Never writes beyond `target`, whatever the bytes are.
  package borrowing func decompress(
    _ source: UnsafeRawBufferPointer,
    into target: UnsafeMutableRawBufferPointer
  ) -> Bool {
    let count = unsafe ZSTD_decompressDCtx(
      context,
      target.baseAddress,
      target.count,
      source.baseAddress,
      source.count
    )
    return ZSTD_isError(count) == 0 && count == target.count
  }
}
