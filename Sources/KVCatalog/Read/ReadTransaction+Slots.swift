package import KVCore

/// Reads of slot files and reservations.
extension ReadTransaction {
  /// All slot files, by tier and number.
  package func slotFiles() throws(CatalogError) -> [SlotFileRow] {
    try settle()
    return try storedSlotFiles()
  }

  func storedSlotFiles() throws(CatalogError) -> [SlotFileRow] {
    var files: [SlotFileRow] = []
    for key in try slotKeys() where key.owner == .file {
      guard let value = unsafe try get(.slots, .slots(key.tier, key.file, .file)) else { continue }
      // The bitmap may be long, so the checksum is left to who reads it.
      guard let row = unsafe SlotFileRow(tier: key.tier, file: key.file, rowBody(value)),
        // More than any disk holds is damage, and adding such sizes up would trap.
        UInt64(row.slotByteCount) * UInt64(row.slotCount) < 1 << 48
      else { throw .corrupt(.slotFile) }
      files.append(row)
    }
    return files
  }

  /// The used slots of a slot file, those reserved included; nil when there is no such file.
  package func usedSlots(_ tier: Tier, _ file: UInt32) throws(CatalogError) -> [UInt32]? {
    try settle()
    guard let value = unsafe try getChecked(.slots, .slots(tier, file, .file)) else { return nil }
    return unsafe SlotFileRow.bitmap(value).slots
  }

  /// All reservations, by slot file and owner.
  package func reservations() throws(CatalogError) -> [ReservationRow] {
    try settle()
    var rows: [ReservationRow] = []
    for key in try slotKeys() where key.owner != .file {
      guard
        let value = unsafe try getChecked(.slots, .slots(key.tier, key.file, key.owner))
      else { continue }
      let slots = unsafe SlotBitmap(value).slots
      rows.append(
        ReservationRow(
          owner: key.owner,
          slots: slots.map { SlotAddress(tier: key.tier, file: key.file, slot: $0) }
        )
      )
    }
    return rows
  }

  /// The processes that hold slots reserved.
  package func ownersWithReservations() throws(CatalogError) -> Set<OwnerID> {
    try settle()
    return Set(try slotKeys().map(\.owner)).subtracting([.file, .eraser])
  }

  func slotKeys() throws(CatalogError) -> [SlotRowKey] {
    var keys: [SlotRowKey] = []
    var cursor = try cursor(.slots)
    var isThere = try cursor.first()
    while isThere {
      if let key = unsafe SlotRowKey(cursor.key) { keys.append(key) }
      isThere = try cursor.next()
    }
    return keys
  }
}
