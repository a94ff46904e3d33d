/// Decodes frames, from bytes that may be anything; for one thread at a time.
package struct FrameDecoder: ~Copyable {
  private let zstd: ZstdDecompressor
  private let scratch = ScratchMemory()

  /// Nil when memory is short.
  package init?() {
    guard let zstd = ZstdDecompressor() else { return nil }
    self.zstd = zstd
  }

  /// Decodes the frames that `stored` begins with until `target` is full; returns the bytes they took.
  ///
  /// Nil when the frames are damaged, or do not end where `target` does; what `target` holds then is undefined. Nothing is ever written
  /// outside of it.
  package borrowing func decode(
    _ stored: UnsafeRawBufferPointer,
    into target: UnsafeMutableRawBufferPointer
  ) -> Int? {
    var read = 0
    var written = 0
    while written < target.count {
      let rest = unsafe UnsafeRawBufferPointer(rebasing: stored[read...])
      guard let header = unsafe FrameHeader(rest), header.rawByteCount <= target.count - written
      else {
        return nil
      }
      let body = unsafe UnsafeRawBufferPointer(
        rebasing: rest[FrameHeader.byteCount..<FrameHeader.byteCount + header.storedByteCount]
      )
      let room = unsafe UnsafeMutableRawBufferPointer(
        rebasing: target[written..<written + header.rawByteCount]
      )
      guard unsafe decode(header, body, room) else { return nil }
      read += FrameHeader.byteCount + header.storedByteCount
      written += header.rawByteCount
    }
    return read
  }

  private borrowing func decode(
    _ header: FrameHeader,
    _ body: UnsafeRawBufferPointer,
    _ target: UnsafeMutableRawBufferPointer
  ) -> Bool {
    switch header.method {
    case .raw:
      unsafe target.copyMemory(from: body)
      return true
    case .zstd:
      return unsafe zstd.decompress(body, into: target)
    case .shifted:
      return unsafe decodeShifted(header, body, target)
    }
  }

  private borrowing func decodeShifted(
    _ header: FrameHeader,
    _ body: UnsafeRawBufferPointer,
    _ target: UnsafeMutableRawBufferPointer
  ) -> Bool {
    let symbolsEnd = header.shiftCount + header.elementCount
    // A row without channels is joined in pieces with shifts of zero, which lie behind the symbols.
    let channels = header.rowByteCount > 0 ? header.channelCount : 4096
    let memory = unsafe scratch.reserve(symbolsEnd + channels)
    let coded = unsafe UnsafeRawBufferPointer(rebasing: body[0..<body.count - header.restByteCount])
    guard
      unsafe zstd.decompress(
        coded,
        into: UnsafeMutableRawBufferPointer(rebasing: memory[0..<symbolsEnd])
      ),
      let base = unsafe memory.baseAddress?.assumingMemoryBound(to: UInt8.self),
      let elements = target.baseAddress, let bodyBase = body.baseAddress
    else { return false }
    if header.rowByteCount == 0 { unsafe (base + symbolsEnd).update(repeating: 0, count: channels) }
    let unitBits = UInt8(header.elementType.shiftUnitBits)
    for index in 0..<header.shiftCount { unsafe base[index] = unsafe base[index] << unitBits }
    let symbols = unsafe UnsafePointer(base + header.shiftCount)
    // Without a rest the pointer is not followed.
    let rest = unsafe (bodyBase + coded.count).assumingMemoryBound(to: UInt8.self)
    let segmentElements = header.segmentByteCount / header.elementType.byteCount
    var start = 0
    var segment = 0
    while start < header.elementCount {
      let end = min(start + segmentElements, header.elementCount)
      let shifts = unsafe UnsafePointer(
        header.rowByteCount > 0 ? base + segment * channels : base + symbolsEnd
      )
      unsafe Self.join(header, symbols, shifts, channels, rest, start..<end, elements)
      start = end
      segment += 1
    }
    let tail = unsafe UnsafeRawBufferPointer(rebasing: body.suffix(header.tailByteCount))
    unsafe UnsafeMutableRawBufferPointer(rebasing: target.suffix(header.tailByteCount)).copyMemory(
      from: tail
    )
    return true
  }

  /// Joins the rows of one segment.
  private static func join(
    _ header: FrameHeader,
    _ symbols: UnsafePointer<UInt8>,
    _ shifts: UnsafePointer<UInt8>,
    _ channels: Int,
    _ rest: UnsafePointer<UInt8>,
    _ range: Range<Int>,
    _ elements: UnsafeMutableRawPointer
  ) {
    let size = header.elementType.byteCount
    let hasRest = size > 1
    var start = range.lowerBound
    while start < range.upperBound {
      unsafe ElementPlanes.join(
        header.elementType,
        symbols: symbols + start,
        shifts: shifts,
        rest: hasRest ? rest + start : rest,
        planeByteCount: header.elementCount,
        count: min(channels, range.upperBound - start),
        elements + start * size
      )
      start += channels
    }
  }
}
