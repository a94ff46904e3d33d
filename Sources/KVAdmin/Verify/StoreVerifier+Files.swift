internal import KVCatalog
internal import KVCore
internal import KVFile
internal import KVStore
internal import KVTiers

/// What lies in the folder beside the catalog: slot files, identity records, leases and lock files.
extension StoreVerifier {
  mutating func checkFiles() throws(StoreError) {
    try checkSlotFiles()
    try checkIdentities()
    try countLeftOvers()
  }

  /// A tier's folder, by the name that findings give it.
  private func tierFolder(_ name: String) -> (any Storage)? {
    name == "archive" ? core.archive.files : try? core.folder.subfolder(name)
  }

  private func slotFileRows() throws(StoreError) -> [SlotFileRow] {
    try core.catalogRead { (transaction) throws(CatalogError) in try transaction.slotFiles() }
  }

  private mutating func checkSlotFiles() throws(StoreError) {
    var names: Set<String> = []
    for directory in ["slots", "archive"] {
      for name in (try? tierFolder(directory)?.list(".")) ?? [] {
        names.insert(directory + "/" + name)
      }
    }
    let rows = try slotFileRows()
    for row in rows {
      let name = Self.fileName(row)
      let wanted = UInt64(row.slotByteCount) * UInt64(row.slotCount)
      let found = byteCount(name)
      guard found != wanted else { continue }
      // A file that goes is removed after its row: only one that still has its row is missed.
      guard try slotFileRows().contains(where: { $0.tier == row.tier && $0.file == row.file })
      else { continue }
      audit.findings.add(
        .slotFile,
        name,
        found.map { "has \($0) bytes, not \(wanted)" } ?? "is missing"
      )
    }
    // A file that comes is made before its row is committed: looked at again at the end.
    let known = Set((try slotFileRows() + rows).map(Self.fileName))
    result.leftOver.slotFileCount =
      names.filter { name in
        let stray = DiskTier.strayFile(String(name.drop { $0 != "/" }.dropFirst()))
        return stray != nil && stray?.kind != .setAside && !known.contains(name)
      }.count
  }

  private static func fileName(_ row: SlotFileRow) -> String {
    (row.tier == .archive ? "archive/" : "slots/")
      + DiskTier.name(of: SlotFileID(tier: row.tier, file: row.file))
  }

  /// nil when the file cannot be opened.
  private func byteCount(_ name: String) -> UInt64? {
    let parts = name.split(separator: "/", maxSplits: 1).map(String.init)
    guard parts.count == 2,
      let file = try? tierFolder(parts[0])?.openFile(parts[1], mode: .readOnly, direct: false)
    else { return nil }
    defer { file.close() }
    return try? file.byteCount()
  }

  /// Each namespace has its record beside the slot files: without it they could not be read alone.
  private mutating func checkIdentities() throws(StoreError) {
    let rows = try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.namespaceIDs()
    }
    let known: Set<BlockKey>
    do throws(FileError) {
      let file = try IdentityFile.read(core.folder.files, storeUUID: core.storeUUID)
      known = Set(file.identities.map(\.rootKey))
      if file.store == nil, !rows.isEmpty {
        audit.findings.add(.identityRecord, "identities.kvs", "has no record of the store")
      }
    } catch {
      return audit.findings.add(
        .unreadable,
        "identities.kvs",
        "cannot be read: error \(error.errno)"
      )
    }
    for id in rows {
      let row = try? core.catalogRead { (transaction) throws(CatalogError) in
        try transaction.namespace(id)
      }
      guard let rootKey = (row ?? nil)?.rootKey, !known.contains(rootKey) else { continue }
      audit.findings.add(
        .identityRecord,
        "identities.kvs",
        "has no record of namespace \(id.rawValue)"
      )
    }
  }

  private mutating func countLeftOvers() throws(StoreError) {
    result.erasePendingSlotCount = Int(clamping: core.erasePendingSlotCount)
    let owners = core.ownerFiles.owners()
    result.leftOver.ownerFileCount = owners.dead.count
    let living = owners.living
    var reservations: [ReservationRow] = []
    do throws(CatalogError) {
      reservations = try core.catalog.read { (transaction) throws(CatalogError) in
        try transaction.reservations()
      }
    } catch {
      // A damaged row is a finding of the walk.
      guard error.isDamage else { throw StoreError(error) }
    }
    result.leftOver.reservedSlotCount =
      reservations.filter { !living.contains($0.owner) && $0.owner != .eraser }.reduce(0) {
        $0 + $1.slots.count
      }
    result.leftOver.leaseCount =
      core.sharedMemory.leaseOwnersOnDisk()
      .count { !living.contains($0) }
  }
}
