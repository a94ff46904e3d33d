internal import KVCore

/// The namespaces that handles of this process have opened.
struct OpenNamespaces {
  private var byRootKey: [BlockKey: NamespaceCore] = [:]

  func namespace(rootKey: BlockKey) -> NamespaceCore? { byRootKey[rootKey] }

  func namespace(_ id: NamespaceID) -> NamespaceCore? { byRootKey.values.first { $0.id == id } }

  var all: some Sequence<NamespaceCore> { byRootKey.values }

  mutating func add(_ namespace: NamespaceCore, rootKey: BlockKey) {
    byRootKey[rootKey] = namespace
  }
}
