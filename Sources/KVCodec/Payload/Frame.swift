internal import KVCore

/// The beginning of a frame (docs/file-format.md, "Frames"): says all that is needed to decode it.
///
/// Little-endian: u8 method, u8 element type, u16 0, u32 rawByteCount, u32 storedByteCount (without this header), u32
/// segmentByteCount, u32 rowByteCount.
struct FrameHeader: Equatable {
  enum Method: UInt8 {
    /// The bytes as they are.
    case raw = 0
    /// zstd on the bytes.
    case zstd = 1
    /// zstd on the channels' shifts and the shifted symbols; behind them the rest as it is.
    case shifted = 2
  }

  static let byteCount = 20

  var method: Method
  var elementType: ElementType
  var rawByteCount: Int
  var storedByteCount: Int
  /// Each segment has its own shifts; only with `shifted`.
  var segmentByteCount = 0
  /// 0: no channels, no shifts.
  var rowByteCount = 0

  /// Symbols of the whole frame.
  var elementCount: Int { rawByteCount / elementType.byteCount }
  /// Bytes behind the last whole element.
  var tailByteCount: Int { rawByteCount % elementType.byteCount }
  var channelCount: Int { rowByteCount / elementType.byteCount }
  /// Only with channels: a segment holds a row or more then.
  var segmentCount: Int {
    let elements = segmentByteCount / elementType.byteCount
    return (elementCount + elements - 1) / elements
  }
  /// Shifts of all segments.
  var shiftCount: Int { rowByteCount == 0 ? 0 : segmentCount * channelCount }
  /// Bytes that lie raw behind the zstd frames.
  var restByteCount: Int { elementCount * (elementType.byteCount - 1) + tailByteCount }

  func encode(into bytes: UnsafeMutableRawBufferPointer) {
    var writer = ByteWriter(capacity: Self.byteCount)
    writer.append(method.rawValue)
    writer.append(elementType.rawValue)
    writer.append(UInt16(0))
    for value in [rawByteCount, storedByteCount, segmentByteCount, rowByteCount] {
      writer.append(UInt32(truncatingIfNeeded: value))
    }
    unsafe bytes.copyBytes(from: writer.bytes)
  }
}

extension FrameHeader {
  /// Reads a header from bytes that may be anything; nil unless what it says is possible.
  init?(_ bytes: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(bytes)
    guard let method = reader.read(UInt8.self).flatMap(Method.init(rawValue:)),
      let elementType = reader.read(UInt8.self).flatMap(ElementType.init(rawValue:)),
      reader.read(UInt16.self) == 0,
      let raw = reader.read(UInt32.self), let stored = reader.read(UInt32.self),
      let segment = reader.read(UInt32.self), let row = reader.read(UInt32.self)
    else { return nil }
    self.init(
      method: method,
      elementType: elementType,
      rawByteCount: Int(raw),
      storedByteCount: Int(stored),
      segmentByteCount: Int(segment),
      rowByteCount: Int(row)
    )
    guard rawByteCount > 0, storedByteCount <= reader.remainingByteCount else { return nil }
    switch method {
    case .raw:
      guard storedByteCount == rawByteCount, segment == 0, row == 0 else { return nil }
    case .zstd:
      guard storedByteCount < rawByteCount, segment == 0, row == 0 else { return nil }
    case .shifted:
      // A row is not longer than the frame, and a segment ends where a row does: so the shifts need no more room than
      // the frame and one row do.
      guard storedByteCount < rawByteCount, storedByteCount > restByteCount,
        segmentByteCount > 0, segmentByteCount < rawByteCount + max(rowByteCount, 1),
        rowByteCount <= rawByteCount, rowByteCount % elementType.byteCount == 0,
        rowByteCount == 0
          ? segmentByteCount == rawByteCount : segmentByteCount % rowByteCount == 0
      else { return nil }
    }
  }
}
