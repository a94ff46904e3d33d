import KVCore

/// The generations below which removals of a time are final: what repair reads in `identities.kvs`.
///
/// A process may hold generations that it reserved before another process's removal. What it publishes after that must not have
/// one of them, or a repair would take the block for removed.
///
/// Row `floors` of `meta`: u32 namespace, u64 its floor, u64 that of all others.
struct RemovalFloors {
  /// The namespace of the last removal that was marked, and its floor.
  var namespace = NamespaceID(rawValue: 0)
  var last: UInt64 = 0
  /// None of another namespace is above this.
  var others: UInt64 = 0

  init() {}

  init?(_ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let namespace = reader.read(UInt32.self), let last = reader.read(UInt64.self),
      let others = reader.read(UInt64.self)
    else { return nil }
    self.namespace = NamespaceID(rawValue: namespace)
    self.last = last
    self.others = others
  }

  mutating func note(_ namespace: NamespaceID, _ floor: UInt64) {
    if namespace != self.namespace { others = max(others, last) }
    self.namespace = namespace
    last = max(last, floor)
  }

  func floor(of namespace: NamespaceID) -> UInt64 {
    namespace == self.namespace ? last : others
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 20)
    writer.append(namespace.rawValue)
    writer.append(last)
    writer.append(others)
    return writer.bytes
  }
}
