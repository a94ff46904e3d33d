internal import Glibc

/// Bytes that are still to be sent: small ones of our own between large ones of the caller's, which are not copied.
///
/// Unsafe: lent pieces are valid until they were sent or the connection is closed.
struct OutputQueue {
  @safe private enum Segment {
    case own(Range<Int>)
    case lent(UnsafeRawBufferPointer)

    var byteCount: Int {
      switch self {
      case .own(let range): range.count
      case .lent(let bytes): bytes.count
      }
    }
  }

  private var own: [UInt8] = []
  private var segments: [Segment] = []
  private var firstIndex = 0
  /// So many bytes of the first segment were sent.
  private var firstSentByteCount = 0
  private(set) var byteCount = 0

  var isEmpty: Bool { byteCount == 0 }

  mutating func append(_ bytes: [UInt8]) {
    guard !bytes.isEmpty else { return }
    let start = own.count
    own.append(contentsOf: bytes)
    byteCount += bytes.count
    if case .own(let range)? = segments.last, segments.count > firstIndex {
      segments[segments.count - 1] = .own(range.lowerBound..<own.count)
    } else {
      segments.append(.own(start..<own.count))
    }
  }

  mutating func append(_ request: Request) {
    append(request.head)
    unsafe request.pieces.forEach { piece in
      guard unsafe !piece.isEmpty else { return }
      unsafe segments.append(.lent(piece))
      byteCount += piece.count
    }
    append(request.tail)
  }

  /// Offers the next bytes, in at most `partCountMax` parts; those that `send` says it sent are gone.
  ///
  /// - Returns: what `send` answered.
  mutating func send(_ send: (UnsafeMutableBufferPointer<iovec>) -> Int) -> Int {
    let partCountMax = 64
    let sentByteCount = unsafe own.withUnsafeBytes { own in
      unsafe withUnsafeTemporaryAllocation(of: iovec.self, capacity: partCountMax) { parts in
        var count = 0
        var skippedByteCount = firstSentByteCount
        for segment in segments[firstIndex...].prefix(partCountMax) {
          let bytes: UnsafeRawBufferPointer
          switch segment {
          case .own(let range): unsafe bytes = UnsafeRawBufferPointer(rebasing: own[range])
          case .lent(let lent): unsafe bytes = lent
          }
          let rest = unsafe UnsafeRawBufferPointer(rebasing: bytes[skippedByteCount...])
          unsafe parts.initializeElement(
            at: count,
            to: iovec(
              iov_base: UnsafeMutableRawPointer(mutating: rest.baseAddress),
              iov_len: rest.count
            )
          )
          skippedByteCount = 0
          count += 1
        }
        return unsafe send(UnsafeMutableBufferPointer(rebasing: parts[..<count]))
      }
    }
    if sentByteCount > 0 { remove(sentByteCount) }
    return sentByteCount
  }

  private mutating func remove(_ count: Int) {
    byteCount -= count
    var rest = count
    while rest > 0, firstIndex < segments.count {
      let missing = segments[firstIndex].byteCount - firstSentByteCount
      if rest < missing {
        firstSentByteCount += rest
        return
      }
      rest -= missing
      firstSentByteCount = 0
      firstIndex += 1
    }
    if firstIndex == segments.count {
      segments.removeAll(keepingCapacity: true)
      own.removeAll(keepingCapacity: own.capacity < 1 << 20)
      firstIndex = 0
    }
  }
}
