package import KVCore

/// Numbers that must be given once only, and what a repair must know of removals.
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

  /// Every namespace that there ever was has a number below this.
  package var namespaceNumberEnd: UInt32 { counters.namespace }

  /// The numbers are written.
  package func noteNumbers(_ numbers: GivenNumbers) throws(CatalogError) {
    try put(.meta, .meta(.noted), numbers.encoded)
  }

  private func notedNumbers() throws(CatalogError) -> GivenNumbers {
    guard let value = unsafe try getChecked(.meta, .meta(.noted)) else { return GivenNumbers() }
    guard let numbers = unsafe GivenNumbers(value) else { throw .corrupt(.meta) }
    return numbers
  }
}
