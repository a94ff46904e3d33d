internal import KVCore

/// Numbers that are never given twice in the life of a store, not even after its catalog was lost.
///
/// Row `noted` of `meta`: u32 owner, u64 event, u64 generation. A namespace's number is in its own record of `identities.kvs`, and in
/// the record of numbers there once its own has left.
package struct GivenNumbers: Sendable, Equatable {
  /// Every number that was given is below these.
  package var owner: UInt32
  package var event: UInt64
  package var generation: UInt64
  package var namespace: UInt32

  package init(
    owner: UInt32 = 0,
    event: UInt64 = 0,
    generation: UInt64 = 0,
    namespace: UInt32 = 0
  ) {
    self.owner = owner
    self.event = event
    self.generation = generation
    self.namespace = namespace
  }

  /// Larger by as much; sums of a catalog's counters and of what is added to them here do not overflow.
  func advanced(by more: GivenNumbers) -> GivenNumbers {
    GivenNumbers(
      owner: owner + more.owner,
      event: event + more.event,
      generation: generation + more.generation,
      namespace: max(namespace, more.namespace)
    )
  }

  /// What neither of the two is above.
  package func joined(with other: GivenNumbers) -> GivenNumbers {
    GivenNumbers(
      owner: max(owner, other.owner),
      event: max(event, other.event),
      generation: max(generation, other.generation),
      namespace: max(namespace, other.namespace)
    )
  }

  init?(_ body: UnsafeRawBufferPointer) {
    var reader = unsafe ByteReader(body)
    guard let owner = reader.read(UInt32.self), let event = reader.read(UInt64.self),
      let generation = reader.read(UInt64.self)
    else { return nil }
    self.init(owner: owner, event: event, generation: generation)
  }

  var encoded: [UInt8] {
    var writer = ByteWriter(capacity: 20)
    writer.append(owner)
    writer.append(event)
    writer.append(generation)
    return writer.bytes
  }
}
