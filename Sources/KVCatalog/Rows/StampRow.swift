package import KVCore

/// The order of victims: lowest priority first, then the oldest stamp.
package struct StampOrder: Sendable, Hashable, Comparable {
  package var priority: UInt8
  package var stamp: UInt64

  package init(priority: UInt8, stamp: UInt64) {
    self.priority = priority
    self.stamp = stamp
  }

  /// Before every stamp: the counter begins at 1.
  static let first = StampOrder(priority: 0, stamp: 0)

  package static func < (a: StampOrder, b: StampOrder) -> Bool {
    (a.priority, a.stamp) < (b.priority, b.stamp)
  }
}

/// A row of `ends`: u64 stamp, u8 priority.
extension StampOrder {
  static let byteCount = 9

  init?(_ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let stamp = reader.read(UInt64.self), let priority = reader.read(UInt8.self) else {
      return nil
    }
    self.init(priority: priority, stamp: stamp)
  }

  func encode(into body: UnsafeMutableRawBufferPointer) {
    var writer = unsafe RawWriter(body)
    writer.write(stamp)
    writer.write(priority)
  }
}

/// A stamp and the path end that has it.
///
/// A row of `stamps`: u32 namespace, then the position.
package struct StampRow: Sendable, Equatable {
  package var pool: UInt32
  package var order: StampOrder
  package var stamp: UInt64 { order.stamp }
  package var namespace: NamespaceID
  package var end: BlockPosition
}

extension StampRow {
  init?(pool: UInt32, order: StampOrder, _ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let namespace = reader.read(UInt32.self), let end = reader.readPosition() else {
      return nil
    }
    self.init(pool: pool, order: order, namespace: NamespaceID(rawValue: namespace), end: end)
  }
}

/// A block as the end of a path.
struct PathEnd: Hashable {
  var namespace: NamespaceID
  var at: BlockPosition

  /// Bytes of a row of `stamps`.
  static let byteCount = 4 + BlockPosition.byteCount

  func encode(into body: UnsafeMutableRawBufferPointer) {
    var writer = unsafe RawWriter(body)
    writer.write(namespace.rawValue)
    writer.write(at)
  }
}
