internal import KVCatalog
public import KVCore
public import KVStore

extension StoreInspector {
  /// What is known of a prompt and the remote tier of one process.
  public struct RemoteAnswer: Sendable {
    /// The process.
    public var owner: Owner
    /// What it says of its remote tier.
    public var report: RemoteReport
    /// The last look-up on the prompt's path; nil when there was none among those that are remembered.
    public var lookUp: RemoteLookUp?
  }

  /// Whether the processes that have a remote tier asked it for a prompt; `words` are its token ids, or the digests as words.
  ///
  /// A look-up counts when the first chunk that it asked about is one of the prompt's, however either goes on.
  public func remoteAnswers(
    for words: [UInt32],
    in namespace: NamespaceID
  ) throws(StoreError) -> [RemoteAnswer] {
    let owners = owners().filter { $0.remote != nil }
    guard !owners.isEmpty else { return [] }
    let keys = try blockKeys(of: words, in: namespace)
    return owners.compactMap { owner in
      guard let report = owner.remote else { return nil }
      // Those under way come first, then the newest.
      let lookUp = report.lookUps.first { lookUp in
        lookUp.namespace == namespace && keys.indices.contains(lookUp.blockCount - 1)
          && keys[lookUp.blockCount - 1] == lookUp.blockKey
      }
      return RemoteAnswer(owner: owner, report: report, lookUp: lookUp)
    }
  }

  private func blockKeys(
    of words: [UInt32],
    in namespace: NamespaceID
  ) throws(StoreError) -> [BlockKey] {
    let keyBitCount = core.configuration.keyBitCount
    let target = try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.namespace(namespace).flatMap { ExplainTarget($0, keyBitCount: keyBitCount) }
    }
    guard let target else { throw .invalidArgument(.namespace) }
    return try Prompt.with(words) { (prompt) throws(StoreError) in target.blockKeys(of: prompt) }
  }
}
