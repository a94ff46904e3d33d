public import KVCore
public import KVStore

extension StoreInspector {
  /// Why a prompt is stored in a namespace only up to where it is, for the store's owner.
  ///
  /// `words` are the token ids, or the digests as words.
  public func explain(
    _ namespace: NamespaceID,
    _ words: [UInt32],
    _ options: ExplainOptions = .thorough
  ) throws(StoreError) -> Explanation {
    var options = options
    options.sameSaltOnly = false
    return try Prompt.with(words) { (prompt) throws(StoreError) in
      try core.explain(namespace, prompt, options)
    }
  }
}
