internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVIndex

extension StoreCore {
  func openNamespace(
    _ identity: NamespaceIdentity,
    _ limits: NamespaceLimits
  ) throws(StoreError) -> NamespaceUse {
    let use = try openNamespace(identity)
    try setLimits(use.core, limits)
    return use
  }

  private func openNamespace(_ identity: NamespaceIdentity) throws(StoreError) -> NamespaceUse {
    if let argument = identity.firstInvalidArgument() { throw .invalidArgument(argument) }
    let record = identity.encoded(saltKey: catalog.meta.saltKey)
    let rootKey = unsafe record.withUnsafeBytes { xxh3Key($0) }
    let layout = SlotLayout(
      regionByteCounts: identity.regionByteCounts,
      wordsPerBlock: identity.wordsPerBlock,
      extraByteCountMax: identity.extraByteCountMax
    )
    guard layout.slotByteCount * 4 <= effectiveHostBytes else {
      throw .invalidArgument(.hostTooSmall)
    }
    let isInline = identity.payloadByteCountMax <= Int(clamping: catalog.meta.inlinePayloadBytesMax)
    guard isInline || layout.slotByteCount <= slotBounds.disk else {
      throw .invalidArgument(.capacityTooSmall)
    }
    let new = NamespaceRow(
      rootKey: rootKey,
      identityRecord: record,
      slotByteCount: isInline ? 0 : UInt32(layout.slotByteCount),
      headerByteCount: UInt32(layout.headerByteCount),
      wordsPerBlock: UInt32(identity.wordsPerBlock)
    )
    while true {
      let (row, held) = try findOrCreate(new)
      defer { if let held { namespaceHolds?.release(held) } }
      guard row.identityRecord == record else { throw .identityCollision }
      // It may be removed, being empty, before it is held.
      if let use = try use(row, identity) { return use }
    }
  }

  /// What calls need of a namespace that is in the catalog, one for all of them; notes a use of it.
  func adopt(_ row: NamespaceRow, _ identity: NamespaceIdentity) -> NamespaceCore {
    let chain = KeyChain(
      rootKey: row.rootKey,
      identityMode: identity.identityMode,
      wordsPerBlock: identity.wordsPerBlock,
      keyBitCount: configuration.keyBitCount
    )
    let core = NamespaceCore(
      id: row.id,
      identity: identity,
      record: row.identityRecord,
      chain: chain,
      layout: SlotLayout(
        regionByteCounts: identity.regionByteCounts,
        wordsPerBlock: identity.wordsPerBlock,
        extraByteCountMax: identity.extraByteCountMax
      ),
      isInline: row.slotByteCount == 0
    )
    core.expiry.update(row)
    return state.withLock { state in
      // Another one of this identity is of before it left and came back.
      let known = state.namespaces.namespace(rootKey: row.rootKey)
      let namespace = known?.id == row.id ? known ?? core : core
      if namespace === core {
        state.tree.addNamespace(core)
        state.namespaces.add(core, rootKey: row.rootKey)
      }
      state.namespaces.noteUse(of: row.id)
      return namespace
    }
  }

  /// The row, and the number of a namespace that was made for it and is held.
  private func findOrCreate(
    _ namespace: NamespaceRow
  ) throws(StoreError) -> (NamespaceRow, held: NamespaceID?) {
    let find: () throws(StoreError) -> NamespaceRow? = { () throws(StoreError) in
      try self.catalogRead { (transaction) throws(CatalogError) in
        guard let id = try transaction.namespaceID(rootKey: namespace.rootKey) else { return nil }
        return try transaction.namespace(id)
      }
    }
    if let row = try find() { return (row, nil) }
    guard let writer else { throw .readOnly }
    let made = Monitor((id: NamespaceID?.none, isAwaited: true))
    do throws(StoreError) {
      _ = try writer.perform(deadline: writerDeadline) { [self] () throws(StoreError) in
        let id = try namespaceSweeper.create(
          namespace,
          makeCatalogRoom: writer.batches.makeCatalogRoom
        )
        let isAwaited = made.withLock { made in
          made.id = id
          return made.isAwaited
        }
        if !isAwaited, let id { namespaceHolds?.release(id) }
        return 0
      }
    } catch {
      // The writer may come to it later.
      let id = made.withLock { made in
        made.isAwaited = false
        return made.id
      }
      if let id { namespaceHolds?.release(id) }
      throw error
    }
    let held = made.withLock { $0.id }
    if let row = try find() { return (row, held) }
    if let held { namespaceHolds?.release(held) }
    // It was there, and has left since.
    return try findOrCreate(namespace)
  }
}
