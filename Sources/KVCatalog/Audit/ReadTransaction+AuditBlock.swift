package import KVCore

/// One block of a `CatalogAudit` against all that belongs to it, and the sums at the end.
extension ReadTransaction {
  func auditBlock(
    key: UnsafeRawBufferPointer,
    value: UnsafeRawBufferPointer,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    guard key.count == 16, let (namespace, at) = unsafe keyIntegers(key) else {
      return audit.findings.add(.malformed, "runs", "a key of \(key.count) bytes")
    }
    let place = "runs: \(described(namespace, at))"
    guard let row = unsafe RowView(value: value) else {
      audit.damagedNamespaces.insert(namespace)
      return audit.findings.add(.malformed, place, "the row's lengths do not fit together")
    }
    guard let space = try auditedNamespace(namespace, &audit) else {
      audit.damagedNamespaces.insert(namespace)
      return audit.findings.add(.dangling, place, "the namespace is missing")
    }
    if row.wordByteCount != Int(space.row.wordsPerBlock) * 4 {
      audit.findings.add(.malformed, place, "\(row.wordByteCount / 4) words")
    }
    if let counters = try auditedCounters(&audit), at.run.rawValue >= counters.run {
      audit.findings.add(.contradiction, place, "the run was never given")
    }
    let parent = try auditParent(namespace, at, row, place, &audit)
    var parentKey: BlockKey?
    if let parent { parentKey = try self.parentKey(namespace, parent, space) }
    try auditKeys(namespace, at, row, parentKey: parentKey, space, place, &audit)
    if try isLeaf(namespace, at), try stampIfSound(namespace, at) == nil {
      audit.findings.add(.missing, place, "the leaf has no stamp")
    }
    try auditExpiry(namespace, at, row, space.row, place, &audit)
    for blockPlace in row.places {
      try auditPlace(blockPlace, namespace, at, space, place, &audit)
    }
  }

  /// The block before, when it is there.
  private func auditParent(
    _ namespace: NamespaceID,
    _ at: BlockPosition,
    _ row: RowView,
    _ place: String,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) -> BlockPosition? {
    if at.position > 0 {
      let before = BlockPosition(run: at.run, position: at.position - 1)
      if row.parent != nil { audit.findings.add(.malformed, place, "names a parent within a run") }
      if try containsRow(namespace, before) { return before }
      audit.findings.add(.missing, place, "there is a hole before it")
      return nil
    }
    guard let parent = row.parent else {
      audit.findings.add(.malformed, place, "names no parent")
      return nil
    }
    if try !contains(.children, .child(namespace, parent, at.run)) {
      audit.findings.add(.missing, place, "table children has no entry for its run")
    }
    if parent == .root { return parent }
    if try containsRow(namespace, parent) { return parent }
    audit.findings.add(.missing, place, "its parent is missing: \(described(namespace, parent))")
    return nil
  }

  private func parentKey(
    _ namespace: NamespaceID,
    _ parent: BlockPosition,
    _ space: AuditStepCache.Namespace
  ) throws(CatalogError) -> BlockKey? {
    // A parent whose row is damaged is a finding of its own.
    parent == .root ? space.row.rootKey : try rowIfSound(namespace, parent)?.blockKey
  }

  private func auditKeys(
    _ namespace: NamespaceID,
    _ at: BlockPosition,
    _ row: RowView,
    parentKey: BlockKey?,
    _ space: AuditStepCache.Namespace,
    _ place: String,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    if let parentKey, let chain = space.chain, row.wordByteCount == chain.wordsPerBlock * 4,
      let words = unsafe row.words.baseAddress
    {
      let key = unsafe chain.key(after: parentKey, words: words, extra: row.extra)
      if key != row.blockKey {
        audit.findings.add(.keyChain, place, "the key does not follow from parent and words")
      }
    }
    if try keyTarget(namespace, row.blockKey) != at {
      audit.findings.add(.contradiction, place, "table keys does not lead here from its key")
    }
    unsafe audit.add(
      AuditedBlock(
        namespace: namespace,
        at: at,
        blockKey: row.blockKey,
        parentKey: parentKey,
        words: Array(row.words),
        extra: Array(row.extra),
        payloadByteCount: row.payloadByteCount,
        places: row.places
      )
    )
  }

  private func auditPlace(
    _ blockPlace: BlockPlace,
    _ namespace: NamespaceID,
    _ at: BlockPosition,
    _ space: AuditStepCache.Namespace,
    _ place: String,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) {
    if audit.checksContents, let counters = try auditedCounters(&audit),
      blockPlace.generation.rawValue >= counters.generation
    {
      audit.findings.add(.contradiction, place, "the generation was never given")
    }
    guard let slot = blockPlace.slotAddress else {
      if try !contains(.payloads, .block(namespace, at)) {
        audit.findings.add(.missing, place, "table payloads has no payload for it")
      }
      return
    }
    let fileKey = SlotFileKey(tier: slot.tier, file: slot.file)
    guard let file = try auditedSlotFile(fileKey, &audit), slot.slot < file.slotCount else {
      return audit.findings.add(.dangling, place, "\(slot.described) is not in the catalog")
    }
    if slot.tier == .disk, file.slotByteCount != space.row.slotByteCount {
      audit.findings.add(.contradiction, place, "\(slot.described) has another slot size")
    }
    if !file.used[Int(slot.slot)] {
      audit.findings.add(.contradiction, place, "\(slot.described) is marked as free")
    }
    if file.reserved.contains(where: { $0[Int(slot.slot)] }) {
      audit.findings.add(.contradiction, place, "\(slot.described) is reserved by an owner")
    }
    audit.claim(slot, slotCount: Int(file.slotCount))
  }

  // MARK: The whole

  /// Compares what tables hold together, in one snapshot; reads no rows but a few for each namespace and slot file.
  ///
  /// When nothing was committed since the audit began, sums must fit to the byte.
  package func auditTotals(_ audit: inout CatalogAudit) throws(CatalogError) {
    audit.beginStep(try snapshotID())
    let namespaces = try namespaces()
    var blockCount: UInt64 = 0
    for namespace in namespaces {
      let said = try storedAccounting(namespace.id)
      blockCount += said.blockCount
      let found = audit.sums[namespace.id] ?? Accounting()
      guard !audit.sawCommits, !audit.damagedNamespaces.contains(namespace.id), said != found else {
        continue
      }
      audit.findings.add(
        .accounting,
        "namespaces: namespace \(namespace.id.rawValue)",
        "said to hold \(said.blockCount) blocks and \(said.payloadByteCount) bytes, holds "
          + "\(found.blockCount) and \(found.payloadByteCount)"
      )
    }
    let counts = try (
      runs: entryCount(.runs), keys: entryCount(.keys), stamps: entryCount(.stamps),
      ends: entryCount(.ends)
    )
    if blockCount != counts.runs {
      audit.findings.add(
        .accounting,
        "namespaces",
        "said to hold \(blockCount) blocks together, table runs has \(counts.runs)"
      )
    }
    if counts.keys != counts.runs + namespaces.count {
      audit.findings.add(
        .accounting,
        "keys",
        "\(counts.keys) entries for \(counts.runs) blocks and \(namespaces.count) namespaces"
      )
    }
    // Those of namespaces with a quota are there twice.
    let hasSecondStamps = namespaces.contains { $0.quotaPool != nil }
    let isCertain = !hasSecondStamps || !audit.sawCommits
    if isCertain, counts.stamps != counts.ends + (hasSecondStamps ? audit.secondStampCount : 0) {
      audit.findings.add(.accounting, "ends", "\(counts.ends) entries for \(counts.stamps) stamps")
    }
  }

  /// Slots that are used, reserved by nobody and claimed by no block that the audit met, at most `limit` of them.
  ///
  /// Certain only when nothing was committed meanwhile.
  package func slotsWithoutBlock(
    _ audit: inout CatalogAudit,
    limit: Int
  ) throws(CatalogError) -> [SlotAddress] {
    audit.beginStep(try snapshotID())
    var slots: [SlotAddress] = []
    for row in try storedSlotFiles() {
      let key = SlotFileKey(tier: row.tier, file: row.file)
      guard let file = try auditedSlotFile(key, &audit) else { continue }
      let claimed = audit.claims[key]
      for slot in file.used.slots where slots.count < limit {
        if claimed?[Int(slot)] == true || file.reserved.contains(where: { $0[Int(slot)] }) {
          continue
        }
        slots.append(SlotAddress(tier: row.tier, file: row.file, slot: slot))
      }
    }
    return slots
  }

  /// Whether a slot is used, not reserved, and the block with this key is not what it holds.
  package func isSlotOfNobody(
    _ slot: SlotAddress,
    heldBy block: (namespace: NamespaceID, blockKey: BlockKey)?
  ) throws(CatalogError) -> Bool {
    var audit = CatalogAudit(findingCountMax: 0)
    let key = SlotFileKey(tier: slot.tier, file: slot.file)
    guard let file = try auditedSlotFile(key, &audit), file.used[Int(slot.slot)],
      !file.reserved.contains(where: { $0[Int(slot.slot)] })
    else { return false }
    guard let block, let at = try find(block.namespace, block.blockKey),
      let row = try rowIfSound(block.namespace, at)
    else { return true }
    return !row.places.contains { $0.slotAddress == slot }
  }

  /// The blocks whose rows claim one of these slots, from a position of table `runs` on; nil = the table is through.
  package func claimants(
    of slots: Set<SlotAddress>,
    after last: (NamespaceID, BlockPosition)?,
    rowCountMax: Int,
    _ body: (NamespaceID, BlockPosition, SlotAddress) -> Void
  ) throws(CatalogError) -> (NamespaceID, BlockPosition)? {
    var cursor = try cursor(.runs)
    var isThere: Bool
    if let last {
      let next = BlockPosition(run: last.1.run, position: last.1.position &+ 1)
      isThere = try cursor.seek(.block(last.0, next))
    } else {
      isThere = try cursor.first()
    }
    var count = 0
    var end = last
    while isThere, count < rowCountMax {
      count += 1
      guard let (namespace, at) = unsafe keyIntegers(cursor.key) else { return nil }
      end = (namespace, at)
      if unsafe checksumMatches(.runs, key: cursor.key, value: cursor.value),
        let row = unsafe RowView(value: cursor.value)
      {
        for case let slot? in row.places.map(\.slotAddress) where slots.contains(slot) {
          body(namespace, at, slot)
        }
      }
      isThere = try cursor.next()
    }
    return isThere ? end : nil
  }

  // MARK: Look-ups within a step

  func auditedCounters(_ audit: inout CatalogAudit) throws(CatalogError) -> Counters? {
    if let counters = audit.step.counters { return counters }
    guard
      let value = unsafe try sound({ () throws(CatalogError) in
        unsafe try getChecked(.meta, .meta(.counters))
      })
    else { return nil }
    audit.step.counters = unsafe Counters(value)
    return audit.step.counters
  }

  func auditedNamespace(
    _ id: NamespaceID,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) -> AuditStepCache.Namespace? {
    if let known = audit.step.namespaces[id] { return known }
    let row = try sound { () throws(CatalogError) in try namespace(id) }
    let found = row.map { row in
      let identity = audit.checksContents ? NamespaceIdentity(record: row.identityRecord) : nil
      return AuditStepCache.Namespace(
        row: row,
        chain: identity.map { identity in
          KeyChain(
            rootKey: row.rootKey,
            identityMode: identity.identityMode,
            wordsPerBlock: Int(row.wordsPerBlock),
            keyBitCount: audit.keyBitCount
          )
        }
      )
    }
    audit.step.namespaces[id] = .some(found)
    return found
  }

  func auditedSlotFile(
    _ key: SlotFileKey,
    _ audit: inout CatalogAudit
  ) throws(CatalogError) -> AuditStepCache.SlotFile? {
    if let known = audit.step.slotFiles[key] { return known }
    var found: AuditStepCache.SlotFile?
    let value = unsafe try sound { () throws(CatalogError) in
      unsafe try getChecked(.slots, .slots(key.tier, key.file, .file))
    }
    if let value = unsafe value {
      if let state = unsafe SlotFileState(key, value) {
        var reserved: [SlotBitmap] = []
        for row in try slotKeys()
        where row.tier == key.tier && row.file == key.file && row.owner != .file {
          let bits = unsafe try sound { () throws(CatalogError) in
            unsafe try getChecked(.slots, .slots(row.tier, row.file, row.owner))
          }
          if let bits = unsafe bits { unsafe reserved.append(SlotBitmap(bits)) }
        }
        found = AuditStepCache.SlotFile(
          slotByteCount: state.row.slotByteCount,
          slotCount: state.row.slotCount,
          used: state.used,
          reserved: reserved
        )
      }
    }
    audit.step.slotFiles[key] = .some(found)
    return found
  }

  /// nil where a checksum fails: that is a finding of the row itself, and not of all that lead to it.
  private func sound<R>(
    _ body: () throws(CatalogError) -> R?
  ) throws(CatalogError) -> R? {
    do throws(CatalogError) {
      return try body()
    } catch {
      if case .corrupt(let part) = error, part != .page { return nil }
      throw error
    }
  }

  func rowIfSound(_ namespace: NamespaceID, _ at: BlockPosition) throws(CatalogError) -> RowView? {
    try sound { () throws(CatalogError) in try rowView(namespace, at) }
  }

  func stampIfSound(
    _ namespace: NamespaceID,
    _ at: BlockPosition
  ) throws(CatalogError) -> StampOrder? {
    // A damaged row of `ends` counts as a stamp, so that it is reported once.
    do throws(CatalogError) {
      return try storedStamp(namespace, at)
    } catch {
      if case .corrupt(let part) = error, part != .page { return .first }
      throw error
    }
  }
}
