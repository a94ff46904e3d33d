internal import CZstd

// Unsafe: wraps a context of libzstd; owned, freed once.

/// Decodes a zstd stream piece by piece, frames one after the other.
@safe package struct ZstdStreamDecoder: ~Copyable {
  /// What libzstd says is wrong.
  package struct Fault: Error, Equatable {
    package let text: String
  }

  private let context: OpaquePointer
  /// A frame has begun and not ended.
  package private(set) var isInsideFrame = false
  /// The target was full before all that is decoded was put out.
  package private(set) var holdsOutput = false

  /// A decoder at the beginning of a stream; throws without memory.
  ///
  /// Windows up to 2^27 bytes are taken, as `zstd -d` does.
  package init() throws(Fault) {
    guard let context = unsafe ZSTD_createDCtx() else { throw Fault(text: "no memory") }
    unsafe self.context = context
  }

  deinit { unsafe ZSTD_freeDCtx(context) }

  /// Decodes from `source` into `target` until one of them is used up.
  ///
  /// With `holdsOutput` there is more to come without any source.
  ///
  /// - Returns: bytes taken from `source`, bytes put into `target`.
  package mutating func decode(
    _ source: UnsafeRawBufferPointer,
    into target: UnsafeMutableRawBufferPointer
  ) throws(Fault) -> (taken: Int, put: Int) {
    var input = unsafe ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: 0)
    var output = unsafe ZSTD_outBuffer(dst: target.baseAddress, size: target.count, pos: 0)
    while unsafe output.pos < output.size && (input.pos < input.size || holdsOutput) {
      let before = unsafe (input.pos, output.pos)
      let hint = unsafe ZSTD_decompressStream(context, &output, &input)
      if ZSTD_isError(hint) != 0 {
        throw Fault(text: unsafe String(cString: ZSTD_getErrorName(hint)))
      }
      isInsideFrame = hint != 0
      holdsOutput = unsafe hint != 0 && output.pos == output.size
      if unsafe before == (input.pos, output.pos) { break }
    }
    return unsafe (input.pos, output.pos)
  }
}
