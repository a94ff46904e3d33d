extension PayloadFormat {
  /// Row lengths in elements that are tried: KV heads times head size of common models, and of one head.
  private static let rows = [
    64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 576, 640, 768, 1024, 1280, 1536, 2048, 4096,
  ]
  /// Bytes that are looked at.
  private static let sampleByteCount = 128 << 10
  /// Bytes of a tensor while rows are tried: small enough for one tensor, large enough to tell rows apart.
  private static let trialByteCount = 16 << 10

  /// The format whose shifts save most on the first bytes of a payload; for namespaces that do not name their row.
  ///
  /// Takes as long as encoding some megabytes: once for a namespace, not for each block.
  package static func detect(
    _ payload: UnsafeRawBufferPointer,
    _ type: ElementType
  ) -> PayloadFormat {
    var format = PayloadFormat(elementType: type, rowByteCount: 0)
    guard type != .opaque, var sample = unsafe Sample(payload, type) else { return format }
    var best = 0.0
    for row in rows.map(type.rowByteCount(elementCount:)) where 8 * row <= sample.byteCount {
      let trial = max(8 * row, (trialByteCount + row - 1) / row * row)
      let saved = sample.savedBitCount(rowByteCount: row, tensorByteCount: trial)
      if saved > best { (best, format.rowByteCount) = (saved, row) }
    }
    let row = format.rowByteCount
    guard row > 0 else { return format }
    // How many rows make a tensor is tried out, since shifts also cost what they take apart within a bin.
    guard let encoder = FrameEncoder() else { return format }
    let sampleBytes = unsafe UnsafeRawBufferPointer(rebasing: payload[0..<sample.byteCount])
    let memory = ScratchMemory()
    let target = unsafe memory.reserve(sample.byteCount + FrameEncoder.overheadByteCount)
    var smallest = Int.max
    var rowCount = 8
    while rowCount * row <= sample.byteCount {
      let tensor = rowCount * row
      let count = unsafe encoder.encode(sampleBytes, format, segmentByteCount: tensor, into: target)
      if let count, count < smallest { (smallest, format.tensorByteCount) = (count, tensor) }
      rowCount *= 2
    }
    return format
  }

  /// The symbols of a payload's first bytes.
  private struct Sample {
    let byteCount: Int
    private let type: ElementType
    private let symbols: ScratchMemory
    private var shifts: [UInt8] = []

    init?(_ payload: UnsafeRawBufferPointer, _ type: ElementType) {
      let count = min(payload.count, sampleByteCount) / type.byteCount
      guard count > 0, let elements = payload.baseAddress else { return nil }
      byteCount = count * type.byteCount
      self.type = type
      symbols = ScratchMemory()
      let memory = unsafe symbols.reserve(byteCount)
      guard let base = unsafe memory.baseAddress?.assumingMemoryBound(to: UInt8.self) else {
        return nil
      }
      unsafe ElementPlanes.split(type, elements, count: count, symbols: base, rest: base + count)
    }

    /// Bits that these rows and tensors would save.
    mutating func savedBitCount(rowByteCount: Int, tensorByteCount: Int) -> Double {
      guard let base = unsafe symbols.bytes.baseAddress?.assumingMemoryBound(to: UInt8.self) else {
        return 0
      }
      let channels = rowByteCount / type.byteCount
      let step = tensorByteCount / type.byteCount
      let count = byteCount / type.byteCount
      if shifts.count < channels { shifts = Array(repeating: 0, count: channels) }
      var chooser = ChannelShifts(type)
      unsafe shifts.withUnsafeMutableBufferPointer { shifts in
        guard let shifts = shifts.baseAddress else { return }
        for start in stride(from: 0, to: count, by: step) {
          unsafe chooser.choose(
            base + start,
            count: min(step, count - start),
            channelCount: channels,
            shifts
          )
        }
      }
      return chooser.savedBitCount
    }
  }
}
