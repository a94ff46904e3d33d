/// Makes frames; for one thread at a time.
package struct FrameEncoder: ~Copyable {
  /// Bytes that a frame takes beyond its contents, which are at most the raw bytes.
  package static var overheadByteCount: Int { FrameHeader.byteCount }

  private let literals: ZstdCompressor
  private let general: ZstdCompressor
  private let symbols = ScratchMemory()
  private let compressed = ScratchMemory()

  /// Nil when memory is short.
  package init?() {
    guard let literals = ZstdCompressor.literalsOnly(), let general = ZstdCompressor(level: 1)
    else { return nil }
    self.literals = literals
    self.general = general
  }

  /// Encodes `raw` as one frame into `target`; returns the frame's bytes.
  ///
  /// Nil when there is nothing to encode, or no room for all of it and the overhead.
  ///
  /// After `segmentByteCount`, a multiple of the row, the channels are others: the end of a region.
  package borrowing func encode(
    _ raw: UnsafeRawBufferPointer,
    _ format: PayloadFormat,
    segmentByteCount: Int,
    into target: UnsafeMutableRawBufferPointer
  ) -> Int? {
    guard raw.count > 0, target.count >= raw.count + FrameHeader.byteCount else { return nil }
    let body = unsafe UnsafeMutableRawBufferPointer(rebasing: target[FrameHeader.byteCount...])
    if let header = unsafe shifted(raw, format, segmentByteCount, body) ?? zstd(raw, format, body) {
      unsafe header.encode(into: target)
      return FrameHeader.byteCount + header.storedByteCount
    }
    let header = FrameHeader(
      method: .raw,
      elementType: format.elementType,
      rawByteCount: raw.count,
      storedByteCount: raw.count
    )
    unsafe header.encode(into: target)
    unsafe body.copyMemory(from: raw)
    return FrameHeader.byteCount + raw.count
  }

  /// zstd on the bytes; nil when that does not make them fewer.
  private borrowing func zstd(
    _ raw: UnsafeRawBufferPointer,
    _ format: PayloadFormat,
    _ body: UnsafeMutableRawBufferPointer
  ) -> FrameHeader? {
    let room = unsafe UnsafeMutableRawBufferPointer(rebasing: body[0..<raw.count - 1])
    guard let count = unsafe general.compress(raw, into: room) else { return nil }
    return FrameHeader(
      method: .zstd,
      elementType: format.elementType,
      rawByteCount: raw.count,
      storedByteCount: count
    )
  }

  /// The transform and zstd on what it makes; nil when that does not make the bytes fewer.
  private borrowing func shifted(
    _ raw: UnsafeRawBufferPointer,
    _ format: PayloadFormat,
    _ segmentByteCount: Int,
    _ body: UnsafeMutableRawBufferPointer
  ) -> FrameHeader? {
    guard format.elementType != .opaque, raw.count >= format.elementType.byteCount else {
      return nil
    }
    var header = FrameHeader(
      method: .shifted,
      elementType: format.elementType,
      rawByteCount: raw.count,
      storedByteCount: 0,
      segmentByteCount: raw.count
    )
    let row = format.channelCount > 0 ? format.rowByteCount : 0
    // Of fewer rows the shifts cost more than they save.
    if row > 0, 8 * row <= raw.count, segmentByteCount > 0, segmentByteCount % row == 0 {
      header.rowByteCount = row
      header.segmentByteCount = min(segmentByteCount, (raw.count + row - 1) / row * row)
    }
    // The rest first: where it goes is known only when the symbols are compressed, so it waits behind them.
    let memory = unsafe symbols.reserve(
      header.shiftCount + header.elementCount + header.restByteCount
    )
    let shiftBytes = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[0..<header.shiftCount])
    let symbolBytes = unsafe UnsafeMutableRawBufferPointer(
      rebasing: memory[header.shiftCount...].prefix(header.elementCount)
    )
    let rest = unsafe UnsafeMutableRawBufferPointer(
      rebasing: memory[(header.shiftCount + header.elementCount)...]
    )
    unsafe split(raw, header, symbolBytes, rest)
    let shiftsHelp = unsafe header.rowByteCount > 0 && shift(header, shiftBytes, symbolBytes)
    if !shiftsHelp {
      header.rowByteCount = 0
      header.segmentByteCount = raw.count
    }
    var stored = 0
    if shiftsHelp {
      guard let count = unsafe compress(UnsafeRawBufferPointer(shiftBytes), body, at: 0) else {
        return nil
      }
      stored += count
    }
    guard let count = unsafe compress(UnsafeRawBufferPointer(symbolBytes), body, at: stored) else {
      return nil
    }
    stored += count
    guard stored + rest.count < raw.count else { return nil }
    unsafe UnsafeMutableRawBufferPointer(rebasing: body[stored...]).copyMemory(
      from: UnsafeRawBufferPointer(rest)
    )
    header.storedByteCount = stored + rest.count
    return header
  }

  private borrowing func split(
    _ raw: UnsafeRawBufferPointer,
    _ header: FrameHeader,
    _ symbols: UnsafeMutableRawBufferPointer,
    _ rest: UnsafeMutableRawBufferPointer
  ) {
    guard let elements = raw.baseAddress, let target = symbols.baseAddress else { return }
    // Types of one byte have no rest, and their memory may be empty.
    let restBase = unsafe rest.baseAddress ?? target
    unsafe ElementPlanes.split(
      header.elementType,
      elements,
      count: header.elementCount,
      symbols: target.assumingMemoryBound(to: UInt8.self),
      rest: restBase.assumingMemoryBound(to: UInt8.self)
    )
    let tail = unsafe UnsafeRawBufferPointer(rebasing: raw.suffix(header.tailByteCount))
    unsafe UnsafeMutableRawBufferPointer(rebasing: rest.suffix(header.tailByteCount)).copyMemory(
      from: tail
    )
  }

  /// Chooses the shifts and subtracts them; false, and nothing is changed, when they would not help.
  private borrowing func shift(
    _ header: FrameHeader,
    _ shifts: UnsafeMutableRawBufferPointer,
    _ symbols: UnsafeMutableRawBufferPointer
  ) -> Bool {
    guard let shifts = unsafe shifts.baseAddress?.assumingMemoryBound(to: UInt8.self),
      let symbols = unsafe symbols.baseAddress?.assumingMemoryBound(to: UInt8.self)
    else { return false }
    var chooser = ChannelShifts(header.elementType)
    let channels = header.channelCount
    let segmentElements = header.segmentByteCount / header.elementType.byteCount
    for segment in 0..<header.segmentCount {
      let start = segment * segmentElements
      unsafe chooser.choose(
        symbols + start,
        count: min(segmentElements, header.elementCount - start),
        channelCount: channels,
        shifts + segment * channels
      )
    }
    guard chooser.savedBitCount > 0 else { return false }
    let unitBits = UInt8(header.elementType.shiftUnitBits)
    for segment in 0..<header.segmentCount {
      let end = min((segment + 1) * segmentElements, header.elementCount)
      let itsShifts = unsafe shifts + segment * channels
      var start = segment * segmentElements
      while start < end {
        let row = unsafe symbols + start
        for channel in 0..<min(channels, end - start) {
          unsafe row[channel] &-= itsShifts[channel] << unitBits
        }
        start += channels
      }
    }
    return true
  }

  private borrowing func compress(
    _ source: UnsafeRawBufferPointer,
    _ body: UnsafeMutableRawBufferPointer,
    at offset: Int
  ) -> Int? {
    guard offset < body.count else { return nil }
    return unsafe literals.compress(
      source,
      into: UnsafeMutableRawBufferPointer(rebasing: body[offset...])
    )
  }
}
