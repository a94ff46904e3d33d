package import KVCore

/// A prefix that stays until a time, whoever opens the store.
///
/// A row of `pins`: u32 namespace, u32 owner, u64 end, u32 count, then as many positions.
package struct PinRow: Sendable, Equatable {
  package var id: UInt64
  package var namespace: NamespaceID
  package var owner: OwnerID
  /// Unix time; exactly then it still holds.
  package var endNanoseconds: UInt64
  /// Where the path of its last block leaves each run, the last first.
  package var path: [BlockPosition]

  /// Whether it is over, or holds nothing.
  package func hasEnded(at now: UInt64) -> Bool { endNanoseconds < now || path.isEmpty }

  init?(id: UInt64, _ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let namespace = reader.read(UInt32.self), let owner = reader.read(UInt32.self),
      let end = reader.read(UInt64.self), let count = reader.read(UInt32.self)
    else { return nil }
    self.id = id
    self.namespace = NamespaceID(rawValue: namespace)
    self.owner = OwnerID(rawValue: owner)
    endNanoseconds = end
    path = []
    for _ in 0..<count {
      guard let at = reader.readPosition() else { return nil }
      path.append(at)
    }
  }

  init(
    id: UInt64,
    namespace: NamespaceID,
    owner: OwnerID,
    endNanoseconds: UInt64,
    path: [BlockPosition]
  ) {
    self.id = id
    self.namespace = namespace
    self.owner = owner
    self.endNanoseconds = endNanoseconds
    self.path = path
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 20 + 12 * path.count)
    writer.append(namespace.rawValue)
    writer.append(owner.rawValue)
    writer.append(endNanoseconds)
    writer.append(UInt32(path.count))
    for at in path { writer.append(at) }
    return writer.bytes
  }
}
