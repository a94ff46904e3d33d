package import KVCore

/// Blocks go from one durable tier to another.
extension WriteTransaction {
  /// Removes the coldest blocks of one tier, and what is below them in whatever tier.
  package func removeColdest(
    pool: UInt32,
    in tier: Tier,
    blockCount: Int,
    isProtected: (NamespaceID, RunID, UInt32) -> Bool
  ) throws(CatalogError) -> RemovedSummary {
    try settle()
    var removed = RemovedSummary()
    var resume: StampOrder?
    let blocks = try coldest(
      pool: pool,
      in: tier,
      blockCount: blockCount,
      resume: &resume,
      isProtected: isProtected
    )
    for block in blocks where try containsBlock(block) {
      removed.add(try removeSubtree(block.namespace, at: block.position, reason: .evicted))
    }
    return removed
  }

  /// Lets a block's row name another place, and frees the slot that it named before.
  ///
  /// The new slot's bytes are durable already and the owner holds it reserved; the old slot may be overwritten once this is committed and
  /// synced. False, and nothing is changed, when the block is not at `old` any more or the reservation is gone.
  package func move(
    _ namespace: NamespaceID,
    _ at: BlockPosition,
    from old: BlockPlace,
    to new: BlockPlace,
    owner: OwnerID
  ) throws(CatalogError) -> Bool {
    guard let oldSlot = old.slotAddress, let newSlot = new.slotAddress else {
      throw .invalidArgument
    }
    guard let view = try rowView(namespace, at), view.placeCount == 1, view.place == old,
      try takeReservation(newSlot, owner: owner)
    else { return false }
    var edit = BlockRowEdit(view)
    edit.setPlace(new)
    try put(.runs, .block(namespace, at), edit.body)
    try freeSlot(oldSlot)
    try changeAccounting(namespace) { accounting in
      accounting.storedByteCount += UInt64(new.storedByteCount)
      accounting.storedByteCount -= min(
        accounting.storedByteCount,
        UInt64(old.storedByteCount)
      )
    }
    note(
      CatalogEvent(
        sequence: 0,
        kind: .moved,
        reason: .none,
        tier: new.tier,
        namespace: namespace,
        run: at.run,
        firstPosition: at.position,
        blockCount: 1,
        timeNanoseconds: timeNanoseconds,
        owner: owner
      )
    )
    return true
  }
}
