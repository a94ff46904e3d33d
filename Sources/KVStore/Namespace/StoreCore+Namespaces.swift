internal import KVCatalog
internal import KVCodec
internal import KVCore
internal import KVIndex

extension StoreCore {
  func openNamespace(
    _ identity: NamespaceIdentity,
    _ limits: NamespaceLimits
  ) throws(StoreError) -> NamespaceCore {
    let namespace = try openNamespace(identity)
    try setLimits(namespace, limits)
    return namespace
  }

  private func openNamespace(_ identity: NamespaceIdentity) throws(StoreError) -> NamespaceCore {
    if let argument = identity.firstInvalidArgument() { throw .invalidArgument(argument) }
    let record = identity.encoded(saltKey: catalog.meta.saltKey)
    let rootKey = unsafe record.withUnsafeBytes { xxh3Key($0) }
    if let known = state.withLock({ $0.namespaces.namespace(rootKey: rootKey) }) {
      guard known.record == record else { throw .identityCollision }
      return known
    }
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
    let row = try findOrCreate(
      NamespaceRow(
        rootKey: rootKey,
        identityRecord: record,
        slotByteCount: isInline ? 0 : UInt32(layout.slotByteCount),
        headerByteCount: UInt32(layout.headerByteCount),
        wordsPerBlock: UInt32(identity.wordsPerBlock)
      )
    )
    guard row.identityRecord == record else { throw .identityCollision }
    return adopt(row, identity)
  }

  /// What calls need of a namespace that is in the catalog; one for all of them.
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
      if let other = state.namespaces.namespace(rootKey: row.rootKey) { return other }
      state.tree.addNamespace(core)
      state.namespaces.add(core, rootKey: row.rootKey)
      return core
    }
  }

  private func findOrCreate(_ namespace: NamespaceRow) throws(StoreError) -> NamespaceRow {
    let find: () throws(StoreError) -> NamespaceRow? = { () throws(StoreError) in
      try self.catalogRead { (transaction) throws(CatalogError) in
        guard let id = try transaction.namespaceID(rootKey: namespace.rootKey) else { return nil }
        return try transaction.namespace(id)
      }
    }
    if let row = try find() { return row }
    guard let writer else { throw .readOnly }
    _ = try writer.perform(deadline: writerDeadline) { [self] () throws(StoreError) in
      try catalogWriter.commit { (transaction) throws(CatalogError) in
        let id = try transaction.createNamespace(namespace)
        // Before the row is durable, so that slot files can always be read without the catalog.
        try identities.append([.identity(.init(id: id, record: namespace.identityRecord))])
      }
      return 0
    }
    guard let row = try find() else { throw .full }
    return row
  }
}
