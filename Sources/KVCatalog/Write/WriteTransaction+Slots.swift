package import KVCore

/// Slot files: which slots are used, and which of those are reserved by whom.
extension WriteTransaction {
  /// Makes a slot file; the caller has preallocated nothing yet.
  ///
  /// Returns its number.
  package func createSlotFile(
    tier: Tier,
    slotByteCount: UInt32,
    slotCount: UInt32
  ) throws(CatalogError) -> UInt32 {
    guard slotByteCount > 0, slotCount > 0 else { throw .invalidArgument }
    let file = counters.slotFile
    counters.slotFile += 1
    slotFileStates[SlotFileKey(tier: tier, file: file)] = SlotFileState(
      SlotFileRow(tier: tier, file: file, slotByteCount: slotByteCount, slotCount: slotCount)
    )
    return file
  }

  /// Forgets a slot file; false when slots of it are in use.
  package func removeSlotFile(tier: Tier, file: UInt32) throws(CatalogError) -> Bool {
    try settle()
    let key = SlotFileKey(tier: tier, file: file)
    guard try loadSlotFile(key), slotFileStates[key]?.row.usedCount == 0 else { return false }
    slotFileStates[key] = nil
    return try delete(.slots, .slots(tier, file, .file))
  }

  /// Lets no slot of a file be given out any more.
  package func beginEmptying(tier: Tier, file: UInt32) throws(CatalogError) {
    try setState(SlotFileRow.beingEmptied, of: SlotFileKey(tier: tier, file: file))
  }

  /// Takes a file with free slots into use again that was being emptied; false when there is none.
  package func takeBackSlotFile(tier: Tier, slotByteCount: Int) throws(CatalogError) -> Bool {
    let file = try slotFiles().first {
      $0.tier == tier && Int($0.slotByteCount) == slotByteCount && $0.isBeingEmptied
        && $0.usedCount < $0.slotCount
    }
    guard let file else { return false }
    try setState(SlotFileRow.inUse, of: SlotFileKey(tier: tier, file: file.file))
    return true
  }

  private func setState(_ state: UInt32, of key: SlotFileKey) throws(CatalogError) {
    guard try loadSlotFile(key), slotFileStates[key]?.row.state != state else { return }
    slotFileStates[key]?.row.state = state
    slotFileStates[key]?.isChanged = true
  }

  /// Reserves free slots for an owner, neighbours first; fewer than `count` when there are no more.
  package func reserveSlots(
    tier: Tier,
    slotByteCount: UInt32,
    count: Int,
    owner: OwnerID
  ) throws(CatalogError) -> [SlotAddress] {
    guard owner != .file else { throw .invalidArgument }
    let slotClass = SlotClass(tier: tier, slotByteCount: slotByteCount)
    let hint = slotHints[slotClass] ?? SlotHint(file: 0, slot: 0)
    // Files of this transaction are in memory only.
    try settleSlots()
    let files = try storedSlotFiles().filter {
      $0.tier == tier && $0.slotByteCount == slotByteCount && $0.state == SlotFileRow.inUse
        && $0.usedCount < $0.slotCount
    }
    // Next fit: from where the last reservation ended around to there, so that the blocks of a chain lie side by side.
    let later = files.filter { $0.file >= hint.file }
    let earlier = files.filter { $0.file <= hint.file }
    var reserved: [SlotAddress] = []
    for (index, file) in (later + earlier).enumerated() {
      guard reserved.count < count else { break }
      let isHinted = file.file == hint.file
      let isFirstPass = index < later.count
      let hintSlot = min(hint.slot, Int(file.slotCount))
      let range =
        isHinted
        ? (isFirstPass ? hintSlot..<Int(file.slotCount) : 0..<hintSlot)
        : 0..<Int(file.slotCount)
      try reserve(
        in: SlotFileKey(tier: tier, file: file.file),
        range,
        upTo: count,
        owner: owner,
        &reserved
      )
    }
    if let last = reserved.last {
      slotHints[slotClass] = SlotHint(file: last.file, slot: Int(last.slot) + 1)
    }
    return reserved
  }

  private func reserve(
    in key: SlotFileKey,
    _ range: Range<Int>,
    upTo count: Int,
    owner: OwnerID,
    _ reserved: inout [SlotAddress]
  ) throws(CatalogError) {
    let reservation = SlotRowKey(tier: key.tier, file: key.file, owner: owner)
    guard try loadSlotFile(key), var state = slotFileStates.removeValue(forKey: key) else { return }
    defer { slotFileStates[key] = state }
    guard state.used.bytes.count * 8 >= range.upperBound else { return }
    try loadReservation(reservation)
    var slot = range.lowerBound
    while reserved.count < count,
      let free = state.used.firstClear(in: slot..<range.upperBound)
    {
      state.use(free)
      reservationStates[reservation]?[free] = true
      changedReservations.insert(reservation)
      reserved.append(SlotAddress(tier: key.tier, file: key.file, slot: UInt32(free)))
      slot = free + 1
    }
  }

  /// Gives reserved slots back; those that the owner does not hold are left alone.
  package func releaseReservation(
    _ slots: [SlotAddress],
    owner: OwnerID
  ) throws(CatalogError) {
    for slot in slots where try takeReservation(slot, owner: owner) { try freeSlot(slot) }
  }

  /// Frees all that a dead owner holds reserved.
  ///
  /// Returns how many slots.
  @discardableResult
  package func freeReservations(ofOwner owner: OwnerID) throws(CatalogError) -> Int {
    let held = try reservations().filter { $0.owner == owner }.flatMap(\.slots)
    try releaseReservation(held, owner: owner)
    return held.count
  }

  /// Ends the reservation of a slot, which stays used; false when the owner does not hold it.
  func takeReservation(_ slot: SlotAddress, owner: OwnerID) throws(CatalogError) -> Bool {
    let key = SlotRowKey(tier: slot.tier, file: slot.file, owner: owner)
    guard owner != .file else { return false }
    try loadReservation(key)
    guard reservationStates[key]?[Int(slot.slot)] == true else { return false }
    reservationStates[key]?[Int(slot.slot)] = false
    changedReservations.insert(key)
    return true
  }

  /// Marks a slot as free.
  func freeSlot(_ slot: SlotAddress) throws(CatalogError) {
    let key = SlotFileKey(tier: slot.tier, file: slot.file)
    guard try loadSlotFile(key), slotFileStates[key]?.used[Int(slot.slot)] == true else { return }
    slotFileStates[key]?.free(Int(slot.slot))
  }

  func settleSlots() throws(CatalogError) {
    for (key, state) in slotFileStates where state.isChanged {
      try put(.slots, .slots(key.tier, key.file, .file), state.encoded)
      slotFileStates[key]?.isChanged = false
    }
    for key in changedReservations {
      guard let bitmap = reservationStates[key] else { continue }
      let row = TableKey.slots(key.tier, key.file, key.owner)
      if bitmap.isEmpty {
        try delete(.slots, row)
      } else {
        try put(.slots, row, bitmap.bytes)
      }
    }
    changedReservations = []
  }

  /// Brings a slot file into memory; false when there is none.
  func loadSlotFile(_ key: SlotFileKey) throws(CatalogError) -> Bool {
    if slotFileStates[key] != nil { return true }
    guard let value = unsafe try getChecked(.slots, .slots(key.tier, key.file, .file)) else {
      return false
    }
    guard let state = unsafe SlotFileState(key, value), state.row.usedCount <= state.row.slotCount
    else { throw .corrupt(.slotFile) }
    slotFileStates[key] = state
    return true
  }

  func loadReservation(_ key: SlotRowKey) throws(CatalogError) {
    guard reservationStates[key] == nil else { return }
    if let value = unsafe try getChecked(.slots, .slots(key.tier, key.file, key.owner)) {
      reservationStates[key] = unsafe SlotBitmap(value)
    } else if try loadSlotFile(SlotFileKey(tier: key.tier, file: key.file)),
      let state = slotFileStates[SlotFileKey(tier: key.tier, file: key.file)]
    {
      reservationStates[key] = SlotBitmap(slotCount: Int(state.row.slotCount))
    }
  }
}

/// Slots that are alike.
struct SlotClass: Hashable {
  var tier: Tier
  var slotByteCount: UInt32
}

/// Where a reservation ended.
struct SlotHint {
  var file: UInt32
  var slot: Int
}
