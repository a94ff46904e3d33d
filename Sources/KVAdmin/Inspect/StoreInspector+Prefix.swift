internal import KVCatalog
public import KVCore
internal import KVStore

extension StoreInspector {
  /// A stored block of a prompt.
  public struct PrefixBlock: Sendable {
    /// Its key.
    public var blockKey: BlockKey
    /// Where it stands.
    public var position: BlockPosition
    /// The tier of its first place.
    public var tier: Tier
    /// Payload bytes.
    public var payloadByteCount: Int
    /// Unix seconds.
    public var createdSeconds: UInt32
  }

  /// The stored front of a prompt.
  public struct StoredPrefix: Sendable {
    /// Full blocks of the prompt.
    public var blockCount: Int
    /// The leading ones that are stored.
    public var blocks: [PrefixBlock]
  }

  /// The leading blocks of a prompt that are stored; `words` are its token ids, or the digests as words.
  public func prefix(
    of words: [UInt32],
    in namespace: NamespaceID
  ) throws(StoreError) -> StoredPrefix {
    let keyBitCount = core.configuration.keyBitCount
    return try Prompt.with(words) { (prompt) throws(StoreError) in
      let found = try core.catalogRead { (transaction) throws(CatalogError) -> StoredPrefix? in
        guard let row = try transaction.namespace(namespace),
          let target = ExplainTarget(row, keyBitCount: keyBitCount)
        else { return nil }
        var prefix = StoredPrefix(blockCount: target.blockCount(of: prompt), blocks: [])
        _ = try transaction.walk(target, prompt, core.time) { position, row in
          prefix.blocks.append(
            PrefixBlock(
              blockKey: row.blockKey,
              position: position,
              tier: row.place.tier,
              payloadByteCount: Int(row.payloadByteCount),
              createdSeconds: row.createdSeconds
            )
          )
        }
        return prefix
      }
      guard let found else { throw .invalidArgument(.namespace) }
      return found
    }
  }
}
