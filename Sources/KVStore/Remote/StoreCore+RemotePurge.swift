internal import KVCatalog
internal import KVCore
internal import KVFile
internal import KVRemote

/// Purges reach the remote tier: queued durably before anything of the store is removed.
extension StoreCore {
  /// All of a namespace, with the sections beside it; one whose salt this process does not know has no names that it could find there.
  func queueRemotePurge(
    _ row: NamespaceRow,
    sections: [NamespaceRow]
  ) throws(StoreError) {
    guard let remote else { return }
    let owner = state.withLock { $0.namespaces.namespace(row.id)?.identity }
    for row in [row] + sections {
      if let namespace = remoteNamespace(row, owner: owner) {
        try queue(.all(namespace.prefix), remote)
      }
    }
  }

  /// Blocks by their keys, of a namespace and of the sections beside it; of those whose keys are others there, all.
  func queueRemotePurge(
    _ namespace: NamespaceCore,
    _ keys: [NamespaceID: Set<BlockKey>],
    _ transaction: ReadTransaction
  ) throws(StoreError) {
    guard let remote else { return }
    for (id, keys) in keys where !keys.isEmpty {
      let row: NamespaceRow?
      do throws(CatalogError) { row = try transaction.namespace(id) } catch {
        throw StoreError(error)
      }
      guard let row, let known = remoteNamespace(row, owner: namespace.identity) else { continue }
      let isSame = known.chain.rootKey == row.rootKey
      try queue(isSame ? .names(keys.map(known.chunkName)) : .all(known.prefix), remote)
    }
  }

  /// Begins with what is queued, once it has left here.
  func startRemotePurges() {
    if let remote { remote.purges.start(remote) }
  }

  private func queue(_ purge: RemotePurges.Purge, _ remote: RemoteTier) throws(StoreError) {
    do throws(FileError) { try remote.purges.add(purge) } catch {
      throw StoreError(error, .folder)
    }
  }

  /// Of a namespace that need not be open in this process; the salt of sections is that of their owner, if it is known.
  private func remoteNamespace(
    _ row: NamespaceRow,
    owner: NamespaceIdentity?
  ) -> RemoteNamespace? {
    guard let remote else { return nil }
    if let open = state.withLock({ $0.namespaces.namespace(row.id) }),
      let known = remote.namespace(open, keyBitCount: configuration.keyBitCount)
    {
      return known
    }
    guard var identity = NamespaceIdentity(record: row.identityRecord) else { return nil }
    if NamespaceIdentity.recordHasSalt(row.identityRecord) {
      guard identity.sideSection != nil, let owner else { return nil }
      identity.salt = owner.salt
    }
    return RemoteNamespace(
      identity,
      key: remote.key,
      owner: owner,
      keyBitCount: configuration.keyBitCount,
      blocksPerChunk: configuration.remote.blocksPerChunk
    )
  }
}
