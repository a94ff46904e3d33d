internal import KVCatalog
internal import KVCore
internal import KVFile
internal import KVRemote

/// Purges reach the remote tier: queued durably before anything of the store is removed.
extension StoreCore {
  /// All of a namespace; one whose salt this process does not know has no names that it could find there.
  func queueRemotePurge(_ row: NamespaceRow) throws(StoreError) {
    guard let remote, let namespace = remoteNamespace(row) else { return }
    try queue(.all(namespace.prefix), remote)
  }

  /// Blocks of a namespace by their keys; of one whose keys are others there, all.
  func queueRemotePurge(_ namespace: NamespaceCore, _ keys: Set<BlockKey>) throws(StoreError) {
    guard let remote, !keys.isEmpty,
      let known = remote.namespace(namespace, keyBitCount: configuration.keyBitCount)
    else { return }
    let isSame = known.chain.rootKey == namespace.chain.rootKey
    try queue(isSame ? .names(keys.map(known.chunkName)) : .all(known.prefix), remote)
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

  private func remoteNamespace(_ row: NamespaceRow) -> RemoteNamespace? {
    guard let remote else { return nil }
    if let open = state.withLock({ $0.namespaces.namespace(row.id) }),
      let known = remote.namespace(open, keyBitCount: configuration.keyBitCount)
    {
      return known
    }
    guard !NamespaceIdentity.recordHasSalt(row.identityRecord),
      let identity = NamespaceIdentity(record: row.identityRecord), identity.sideSection == nil
    else { return nil }
    return RemoteNamespace(identity, key: remote.key, keyBitCount: configuration.keyBitCount)
  }
}
