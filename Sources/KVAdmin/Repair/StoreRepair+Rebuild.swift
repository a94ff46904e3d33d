internal import Glibc
internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVFile
internal import KVStore
internal import KVTiers

/// From the roots down into the new catalog, and that into place.
extension StoreRepair {
  /// A block that is to be looked at, below one that is intact.
  private struct Waiting {
    let id: BlockID
    let parentKey: BlockKey
    /// Older contents were removed, with this block or one above it.
    let generationFloor: UInt64
    let depth: UInt32
    /// Of the blocks before it.
    let prefix: PrefixDigest
  }

  /// Blocks that one commit publishes.
  private static let batchCount = 512

  mutating func rebuild(
    _ tier: DiskTier,
    _ progress: (MaintenanceProgress) -> Void
  ) throws(StoreError) {
    let aside = isDryRun ? nil : try makeAside()
    var catalog: NewCatalog?
    if let aside, let meta {
      catalog = try NewCatalog(folder, aside + "/catalog.new", meta, configuration)
      try catalog?.begin(
        namespaces: namespaceRows(),
        slotFiles: slotFiles,
        numbers: numbers
      )
    }
    var batch: [NewCatalog.Block] = []
    var visited: Set<BlockID> = []
    let total = candidates.count
    var prefixes = SectionOwners(namespaces.values)
    var orphanCount = 0
    // Sections come after the blocks that they belong to.
    let inOrder = namespaces.values.sorted {
      ($0.identity.sideSection == nil ? 0 : 1, $0.row.id)
        < ($1.identity.sideSection == nil ? 0 : 1, $1.row.id)
    }
    for namespace in inOrder {
      let rootKey = namespace.row.rootKey
      let floors = floors(of: rootKey)
      let owner = prefixes.owner(namespace)
      var waiting = expand(rootKey, rootKey, floors.whole, depth: 0, PrefixDigest())
      while let next = waiting.popLast() {
        guard visited.insert(next.id).inserted else { continue }
        let floor = max(next.generationFloor, floors.below[next.id.blockKey] ?? 0)
        guard let verified = verify(next, namespace, floor, tier) else { continue }
        guard prefixes.hasBlock(of: verified, namespace) else {
          orphanCount += 1
          continue
        }
        let prefix = owner.map { prefixes.note(verified, after: next.prefix, namespace, $0) }
        result.blockCount += 1
        result.payloadByteCount += UInt64(verified.payloadByteCount)
        if verified.inlinePayload != nil { result.inlineBlockCount += 1 }
        if catalog != nil { batch.append(verified) }
        waiting += expand(
          rootKey,
          next.id.blockKey,
          floor,
          depth: next.depth + 1,
          prefix ?? next.prefix
        )
        if batch.count >= Self.batchCount {
          try catalog?.publish(batch, namespaces)
          batch = []
        }
        progress(
          MaintenanceProgress(
            activity: "verifying blocks",
            doneCount: result.blockCount,
            totalCount: total
          )
        )
      }
    }
    result.orphanCount = orphanCount + candidates.keys.count { !visited.contains($0) }
    result.namespaceCount = namespaceRows().count
    result.slotFilesSetAside = unusableSlotFiles.count
    guard let catalog, let aside else { return }
    try catalog.publish(batch, namespaces)
    let rows = namespaceRows().map { ($0.id, $0.rootKey) }
    result.kept.pinCount = try catalog.finish(
      portable,
      rootKeys: Dictionary(rows) { first, _ in first }
    )
    try putInPlace(aside)
    result.keptAside = configuration.path + "/" + aside
  }

  /// One namespace for each number: where two records have the same one, the one that has blocks.
  private func namespaceRows() -> [NamespaceRow] {
    var chosen: [NamespaceID: NamespaceRow] = [:]
    for namespace in namespaces.values {
      let hasBlocks =
        children[
          BlockID(
            rootKey: namespace.row.rootKey,
            blockKey: namespace.row.rootKey
          )
        ] != nil
      if chosen[namespace.row.id] == nil || hasBlocks { chosen[namespace.row.id] = namespace.row }
    }
    return chosen.values.sorted { $0.id < $1.id }
  }

  private func floors(of rootKey: BlockKey) -> (whole: UInt64, below: [BlockKey: UInt64]) {
    var whole: UInt64 = 0
    var below: [BlockKey: UInt64] = [:]
    for removal in removals where removal.rootKey == rootKey {
      if let top = removal.top {
        below[top] = max(below[top] ?? 0, removal.generationFloor)
      } else {
        whole = max(whole, removal.generationFloor)
      }
    }
    return (whole, below)
  }

  private func expand(
    _ rootKey: BlockKey,
    _ parentKey: BlockKey,
    _ floor: UInt64,
    depth: UInt32,
    _ prefix: PrefixDigest
  ) -> [Waiting] {
    (children[BlockID(rootKey: rootKey, blockKey: parentKey)] ?? []).map {
      Waiting(
        id: BlockID(rootKey: rootKey, blockKey: $0),
        parentKey: parentKey,
        generationFloor: floor,
        depth: depth,
        prefix: prefix
      )
    }
  }

  // MARK: Verifying

  /// The newest copy of a block that is what it says.
  private mutating func verify(
    _ waiting: Waiting,
    _ namespace: RepairNamespace,
    _ floor: UInt64,
    _ tier: DiskTier
  ) -> NewCatalog.Block? {
    let copies = (candidates[waiting.id] ?? []).sorted { $0.generation > $1.generation }
    for (index, copy) in copies.enumerated() {
      guard copy.generation >= floor else {
        result.removedCount += copies.count - index
        return nil
      }
      if let verified = verify(copy, waiting, namespace, tier) {
        result.supersededCount += copies.count - index - 1
        return verified
      }
      result.damagedCount += 1
    }
    return nil
  }

  private func verify(
    _ copy: RepairCandidate,
    _ waiting: Waiting,
    _ namespace: RepairNamespace,
    _ tier: DiskTier
  ) -> NewCatalog.Block? {
    switch copy.source {
    case .slot(let address):
      let slotByteCount =
        address.tier == .archive
        ? archiveSlotSizes[address.file] ?? 0 : Int(namespace.row.slotByteCount)
      guard slotByteCount > 0, let buffer = try? AlignedBuffer(byteCount: slotByteCount) else {
        return nil
      }
      let request = unsafe ReadRequest(
        address: address,
        slotByteCount: slotByteCount,
        offset: 0,
        buffer: buffer.bytes
      )
      guard tier.startReads([request]).wait(0) == nil else { return nil }
      return unsafe verify(buffer.readOnly, copy, waiting, namespace)
    case .inline(let range):
      guard let oldCatalog else { return nil }
      let bytes = unsafe UnsafeRawBufferPointer(rebasing: oldCatalog.readOnly[range])
      return unsafe verify(bytes, copy, waiting, namespace)
    }
  }

  private func verify(
    _ bytes: UnsafeRawBufferPointer,
    _ copy: RepairCandidate,
    _ waiting: Waiting,
    _ namespace: RepairNamespace
  ) -> NewCatalog.Block? {
    var isInline = false
    var address = SlotAddress(tier: .disk, file: 0, slot: 0)
    switch copy.source {
    case .slot(let slot): address = slot
    case .inline: isInline = true
    }
    let headerByteCount = Int(namespace.row.headerByteCount)
    let headerBytes = unsafe UnsafeRawBufferPointer(rebasing: bytes.prefix(headerByteCount))
    guard let header = unsafe SlotHeaderView(headerBytes), header.blockKey == copy.blockKey,
      header.generation.rawValue == copy.generation, header.parentKey == waiting.parentKey,
      chainedKey(header, namespace) == header.blockKey,
      header.extraByteCount <= namespace.identity.extraByteCountMax,
      unsafe SlotCheck.payloadProblem(
        header,
        bytes,
        from: isInline ? header.usedByteCount : headerByteCount
      ) == nil, regionsFit(header, namespace),
      unsafe address.tier != .archive || decodes(bytes, header, namespace)
    else { return nil }
    return unsafe NewCatalog.Block(
      rootKey: waiting.id.rootKey,
      blockKey: waiting.id.blockKey,
      parentKey: waiting.parentKey,
      place: BlockPlace(
        tier: address.tier,
        codec: header.codec,
        isInline: isInline,
        file: address.file,
        slot: address.slot,
        storedByteCount: UInt32(header.storedByteCount),
        generation: header.generation,
        headerChecksum: header.checksum
      ),
      words: Array(header.words),
      extra: Array(header.extra),
      payloadByteCount: UInt32(header.payloadByteCount),
      blockExpiry: header.blockExpiry,
      createdSeconds: UInt32(truncatingIfNeeded: header.created / 1_000_000_000),
      priority: header.priority,
      inlinePayload: isInline ? Array(bytes) : nil
    )
  }

  private func decodes(
    _ bytes: UnsafeRawBufferPointer,
    _ header: SlotHeaderView,
    _ namespace: RepairNamespace
  ) -> Bool {
    guard let check = SlotCheck(storeUUID: meta?.storeUUID ?? [], namespace: namespace.row) else {
      return false
    }
    return coders.withDecoder { decoder in
      unsafe check.decodes(bytes, payloadByteCount: header.payloadByteCount, decoder)
    } ?? false
  }

  private func chainedKey(_ header: SlotHeaderView, _ namespace: RepairNamespace) -> BlockKey? {
    guard let words = unsafe header.words.baseAddress else { return nil }
    return unsafe namespace.chain.key(after: header.parentKey, words: words, extra: header.extra)
  }

  private func regionsFit(_ header: SlotHeaderView, _ namespace: RepairNamespace) -> Bool {
    let identity = namespace.identity
    var sum = 0
    for (index, byteCount) in identity.regionByteCounts.enumerated() {
      let region = header.region(index)
      let raw = Int(region.rawByteCount)
      guard identity.regionsAreVariable ? raw <= byteCount : raw == byteCount else { return false }
      sum += raw
    }
    return sum == header.payloadByteCount
  }

  // MARK: Into place

  private func makeAside() throws(StoreError) -> String {
    let seconds = configuration.clock.realTimeNanoseconds() / 1_000_000_000
    do throws(FileError) {
      var name = "repair-\(seconds)"
      var number = 1
      while try files.fileExists(name) {
        number += 1
        name = "repair-\(seconds)-\(number)"
      }
      try files.makeDirectory(name)
      return name
    } catch {
      throw StoreError(error, .createFolder)
    }
  }

  /// The old catalog gets a second name aside, then the new one takes its name: at no time is there none.
  private func putInPlace(_ aside: String) throws(StoreError) {
    let name = StoreFolder.catalogName
    guard let meta else { return }
    do throws(FileError) {
      if try files.fileExists(name) {
        do throws(FileError) { try files.link(name, to: aside + "/" + name) } catch {
          // No second names on this file system: then there is a moment without.
          try files.rename(name, to: aside + "/" + name)
        }
      }
      let names = namespaces.values.map {
        IdentityFile.Identity(id: $0.row.id, record: $0.row.identityRecord)
      }
      try IdentityFile.rewrite(
        files,
        meta: meta,
        identities: names.sorted { $0.id < $1.id },
        removals: removals,
        numbers: numbers
      )
      try files.rename(aside + "/catalog.new", to: name)
      try files.syncDirectory(".")
      // What is left means nothing any more: nobody has the store open.
      for leftover in [name + "-lock", "leases"] where try files.fileExists(leftover) {
        try files.remove(leftover)
      }
      for name in unusableSlotFiles where name.hasPrefix("02") {
        try files.rename("slots/" + name, to: aside + "/" + name)
      }
      // The archive may be on another file system: its files stay, and are set aside there when the store is opened.
      if let slots = try folder.subfolder("slots") { try slots.syncDirectory(".") }
      try files.syncDirectory(aside)
    } catch {
      throw StoreError(error, .openCatalog)
    }
  }
}
