internal import Glibc
internal import KVCatalog
package import KVCore

/// Who uses a namespace, in this process and for others to see.
extension StoreCore {
  /// Namespaces that this process keeps in memory.
  package var openNamespaceCount: Int { state.withLock { $0.namespaces.count } }

  /// So long an open waits while somebody removes the namespace of its identity.
  private static let removalNanoseconds: UInt64 = 1_000_000_000
  private static let tidyCount = 4

  /// A use of the namespace of this row, which is still there; nil when it has left meanwhile.
  ///
  /// Held first and looked at then: whoever removes it takes it alone before.
  func use(
    _ row: NamespaceRow,
    _ identity: NamespaceIdentity
  ) throws(StoreError) -> NamespaceUse? {
    let deadline = KVCore.deadline(after: Self.removalNanoseconds)
    while let holds = namespaceHolds, !holds.hold(row.id) {
      guard monotonicNanoseconds() < deadline else { throw .busy }
      usleep(1000)
    }
    var isThere = false
    defer { if !isThere { namespaceHolds?.release(row.id) } }
    let now = try catalogRead { (transaction) throws(CatalogError) in
      try transaction.namespace(row.id)
    }
    guard now?.rootKey == row.rootKey else { return nil }
    isThere = true
    return NamespaceUse(held: adopt(row, identity), self)
  }

  /// One more use by who has one.
  func use(again core: NamespaceCore) -> NamespaceUse {
    _ = namespaceHolds?.hold(core.id)
    state.withLock { $0.namespaces.noteUse(of: core.id) }
    return NamespaceUse(held: core, self)
  }

  func endUse(of core: NamespaceCore) {
    // The locks are the parent's.
    guard !isForked else { return }
    state.withLock { $0.namespaces.noteEnd(ofUseOf: core.id) }
    tidyNamespaces()
  }

  /// Removes all namespaces that hold nothing and that nobody uses; returns how many.
  package func removeEmptyNamespaces() throws(StoreError) -> Int {
    guard let writer else { throw .readOnly }
    // Uses that have ended are told first.
    for _ in 0..<(state.withLock { $0.namespaces.count } / Self.tidyCount + 1) { tidyNamespaces() }
    return try writer.perform(deadline: writerDeadline) { [self] () throws(StoreError) in
      try namespaceSweeper.sweep()
    }
  }

  /// Forgets some namespaces that nobody uses and of which nothing is in memory.
  func tidyNamespaces() {
    let ended = state.withLock { state in
      let (tree, partials) = (state.tree, state.partials)
      return state.namespaces.tidy(
        limit: Self.tidyCount,
        isBusy: { tree.hasPending($0) || partials.hasAny(of: $0) },
        isEmpty: tree.isEmpty,
        forget: tree.forget
      )
    }
    for (id, count) in ended { for _ in 0..<count { namespaceHolds?.release(id) } }
  }
}
