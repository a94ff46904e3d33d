internal import KVCore
internal import KVIndex

extension StoreCore {
  /// Notes that a prefix was used that ends with the block `key` at `head`.
  ///
  /// No block key is computed: the index had the one of the end, and those of new blocks come with them.
  func noteUse(
    _ namespace: NamespaceCore,
    _ target: LeaseTable.Target,
    _ key: BlockKey,
    blockCount: Int,
    isRequest: Bool
  ) {
    guard let writer else { return }
    guard density != nil else { return writer.enqueueTouch(namespace, target) }
    let use = NotedUse(
      key: key.low,
      blockCount: blockCount,
      timeMilliseconds: time.milliseconds(),
      isRequest: isRequest
    )
    writer.enqueueTouch(namespace, target, use: .noted(use))
  }

  /// The lower halves of the keys of all blocks down to this one, as far as the index has them; empty if it has not.
  ///
  /// Asked for only where no path ended before.
  func pathKeys(_ namespace: NamespaceCore, to target: LeaseTable.Target) -> [UInt64] {
    guard case .published(let position) = target else { return [] }
    return state.withLock { state in
      let path = state.tree.path(namespace.id, to: position)
      var keys: [UInt64] = []
      keys.reserveCapacity(path.reduce(0) { $0 + Int($1.blockCount) })
      state.tree.forEachBlock(of: path) { _, entry in
        keys.append(entry.blockKey.low)
        return true
      }
      return keys
    }
  }
}
