package import KVCore

/// Numbers that are never given twice in the life of a store, not even after its catalog was lost.
package struct GivenNumbers: Sendable, Equatable {
  /// Every number that was given is below these.
  package var owner: UInt32
  package var event: UInt64
  package var generation: UInt64

  package init(owner: UInt32 = 0, event: UInt64 = 0, generation: UInt64 = 0) {
    self.owner = owner
    self.event = event
    self.generation = generation
  }

  /// Larger by as much; sums of a catalog's counters and of what is added to them here do not overflow.
  func advanced(by more: GivenNumbers) -> GivenNumbers {
    GivenNumbers(
      owner: owner + more.owner,
      event: event + more.event,
      generation: generation + more.generation
    )
  }

  /// What neither of the two is above.
  package func joined(with other: GivenNumbers) -> GivenNumbers {
    GivenNumbers(
      owner: max(owner, other.owner),
      event: max(event, other.event),
      generation: max(generation, other.generation)
    )
  }
}

/// The generations below which removals of a time are final: what repair reads in `identities.kvs`.
///
/// A process may hold generations that it reserved before another process's removal. What it publishes after that must not have
/// one of them, or a repair would take the block for removed.
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

extension WriteTransaction {
  // MARK: Removals that a repair must know of

  /// The generation below which contents are gone that a removal marks now.
  ///
  /// From this commit on no block of the namespace is published below it.
  package func markRemoval(in namespace: NamespaceID) throws(CatalogError) -> Generation {
    var floors = try removalFloors()
    floors.note(namespace, counters.generation)
    try put(.meta, .meta(.floors), floors.encoded)
    return Generation(rawValue: counters.generation)
  }

  /// Blocks of the namespace are published and moved with this generation or a later one.
  package func generationFloor(of namespace: NamespaceID) throws(CatalogError) -> Generation {
    Generation(rawValue: try removalFloors().floor(of: namespace))
  }

  private func removalFloors() throws(CatalogError) -> RemovalFloors {
    guard let value = unsafe try getChecked(.meta, .meta(.floors)) else { return RemovalFloors() }
    guard let floors = unsafe RemovalFloors(value) else { throw .corrupt(.meta) }
    return floors
  }

  // MARK: Numbers that outlive the catalog

  /// So far beyond what was given numbers are noted, and noted again when so many are left.
  private static let ahead = GivenNumbers(owner: 1 << 12, event: 1 << 22, generation: 1 << 26)
  private static let margin = GivenNumbers(owner: 1 << 11, event: 1 << 20, generation: 1 << 24)

  /// What is to be written outside the catalog before this commits, and whether it can wait; nil while what was noted will do.
  ///
  /// A store without a namespace holds nothing that a repair could find.
  package func numbersToNote() throws(CatalogError) -> (numbers: GivenNumbers, canWait: Bool)? {
    guard counters.namespace > 1 else { return nil }
    let noted = try notedNumbers()
    let given = GivenNumbers(
      owner: counters.owner,
      event: counters.event + UInt64(pendingEvents.count),
      generation: counters.generation
    )
    guard given.advanced(by: Self.margin).joined(with: noted) != noted else { return nil }
    // A store from before this was noted has no less than it had.
    let canWait = noted == GivenNumbers() || given.joined(with: noted) == noted
    return (given.advanced(by: Self.ahead), canWait)
  }

  /// The numbers are written.
  package func noteNumbers(_ numbers: GivenNumbers) throws(CatalogError) {
    var writer = ByteWriter(capacity: 20)
    writer.append(numbers.owner)
    writer.append(numbers.event)
    writer.append(numbers.generation)
    try put(.meta, .meta(.noted), writer.bytes)
  }

  private func notedNumbers() throws(CatalogError) -> GivenNumbers {
    guard let value = unsafe try getChecked(.meta, .meta(.noted)) else { return GivenNumbers() }
    var reader = unsafe ByteReader(value)
    guard let owner = reader.read(UInt32.self), let event = reader.read(UInt64.self),
      let generation = reader.read(UInt64.self)
    else { throw .corrupt(.meta) }
    return GivenNumbers(owner: owner, event: event, generation: generation)
  }
}
