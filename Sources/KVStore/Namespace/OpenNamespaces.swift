internal import KVCore

/// The namespaces that handles of this process have opened, and those that they closed as long as the index holds some of their blocks.
struct OpenNamespaces {
  private struct Entry {
    let core: NamespaceCore
    let rootKey: BlockKey
    /// Of this process's `NamespaceUse`s.
    var useCount = 0
    /// Ends of uses that are to be told to other processes once nothing of the namespace is on its way.
    var endedCount = 0
    var isQueued = false
  }

  private var entries: [NamespaceID: Entry] = [:]
  private var idsByRootKey: [BlockKey: NamespaceID] = [:]
  /// Those without a use, and those with ended ones, the one that waits longest first.
  private var queue: ArraySlice<NamespaceID> = []
  /// Some block of one that is not here any more may end by itself.
  private var haveLimitedLives = false

  func namespace(rootKey: BlockKey) -> NamespaceCore? {
    idsByRootKey[rootKey].flatMap { entries[$0]?.core }
  }

  func namespace(_ id: NamespaceID) -> NamespaceCore? { entries[id]?.core }

  var all: some Sequence<NamespaceCore> { entries.values.lazy.map(\.core) }

  var count: Int { entries.count }

  /// Whether blocks of some namespace that was opened may come to an end by themselves.
  var mayExpire: Bool { haveLimitedLives || all.contains { $0.expiry.mayExpire.value } }

  /// Adds a namespace; another one of this identity has left the store.
  mutating func add(_ namespace: NamespaceCore, rootKey: BlockKey) {
    entries[namespace.id] = Entry(core: namespace, rootKey: rootKey)
    idsByRootKey[rootKey] = namespace.id
    enqueue(namespace.id)
  }

  mutating func noteUse(of id: NamespaceID) { entries[id]?.useCount += 1 }

  mutating func noteEnd(ofUseOf id: NamespaceID) {
    entries[id]?.useCount -= 1
    entries[id]?.endedCount += 1
    enqueue(id)
  }

  private mutating func enqueue(_ id: NamespaceID) {
    guard let entry = entries[id], !entry.isQueued else { return }
    entries[id]?.isQueued = true
    queue.append(id)
  }

  /// Looks at some of those that nobody uses: forgets what the index holds nothing of.
  ///
  /// - Parameters:
  ///   - limit: at how many.
  ///   - isBusy: whether something of it is on its way into the catalog.
  ///   - isEmpty: whether the index holds nothing of it.
  ///   - forget: called for each that leaves.
  /// - Returns: how many uses have ended of which.
  mutating func tidy(
    limit: Int,
    isBusy: (NamespaceID) -> Bool,
    isEmpty: (NamespaceID) -> Bool,
    forget: (NamespaceID) -> Void
  ) -> [(id: NamespaceID, count: Int)] {
    var ended: [(id: NamespaceID, count: Int)] = []
    for _ in 0..<min(limit, queue.count) {
      guard let id = queue.popFirst(), var entry = entries[id] else { continue }
      entry.isQueued = false
      defer { if entries[id] != nil { entries[id] = entry } }
      if isBusy(id) {
        entry.isQueued = true
        queue.append(id)
        continue
      }
      if entry.endedCount > 0 { ended.append((id, entry.endedCount)) }
      entry.endedCount = 0
      guard entry.useCount == 0 else { continue }
      if isEmpty(id) {
        forget(id)
        remove(id, entry)
      } else {
        entry.isQueued = true
        queue.append(id)
      }
    }
    return ended
  }

  private mutating func remove(_ id: NamespaceID, _ entry: Entry) {
    if entry.core.expiry.mayExpire.value { haveLimitedLives = true }
    entries[id] = nil
    if idsByRootKey[entry.rootKey] == id { idsByRootKey[entry.rootKey] = nil }
  }
}
