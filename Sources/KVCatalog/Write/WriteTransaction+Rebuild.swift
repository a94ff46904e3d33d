package import KVCore

/// What a repair writes into a fresh catalog beside `publish`: numbers that are given already.
extension WriteTransaction {
  /// A namespace under the number that its slots name.
  package func adoptNamespace(_ namespace: NamespaceRow) throws(CatalogError) {
    let next = counters.namespace
    counters.namespace = namespace.id.rawValue
    guard try createNamespace(namespace) == namespace.id else { throw .identityCollision }
    counters.namespace = max(next, counters.namespace)
  }

  /// A slot file that is there.
  package func adoptSlotFile(
    tier: Tier,
    file: UInt32,
    slotByteCount: UInt32,
    slotCount: UInt32
  ) throws(CatalogError) {
    let next = counters.slotFile
    counters.slotFile = file
    _ = try createSlotFile(tier: tier, slotByteCount: slotByteCount, slotCount: slotCount)
    counters.slotFile = max(next, counters.slotFile)
  }

  /// Reserves a slot for an owner, so that its block can be published; false when it is taken.
  package func adoptSlot(_ slot: SlotAddress, owner: OwnerID) throws(CatalogError) -> Bool {
    let key = SlotFileKey(tier: slot.tier, file: slot.file)
    let reservation = SlotRowKey(tier: slot.tier, file: slot.file, owner: owner)
    guard try loadSlotFile(key), let state = slotFileStates[key], slot.slot < state.row.slotCount,
      !state.used[Int(slot.slot)]
    else { return false }
    try loadReservation(reservation)
    slotFileStates[key]?.use(Int(slot.slot))
    reservationStates[reservation]?[Int(slot.slot)] = true
    changedReservations.insert(reservation)
    return true
  }

  /// Numbers below these are not given again.
  package func raiseCounters(to numbers: GivenNumbers) {
    counters.generation = max(counters.generation, numbers.generation)
    counters.event = max(counters.event, numbers.event)
    counters.owner = max(counters.owner, numbers.owner)
    counters.namespace = max(counters.namespace, numbers.namespace)
  }
}
