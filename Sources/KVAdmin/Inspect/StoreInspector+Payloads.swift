internal import KVCatalog
internal import KVCodec
public import KVCore
internal import KVStore

extension StoreInspector {
  /// The payloads of a prompt's leading blocks that are stored, behind the first `first` of them; empty where one lies in a slot file.
  public func inlinePayloads(
    of words: [UInt32],
    in namespace: NamespaceID,
    from first: Int = 0
  ) throws(StoreError) -> [[UInt8]] {
    let blocks = try prefix(of: words, in: namespace).blocks
    var payloads: [[UInt8]] = []
    var next = first
    while next < blocks.count {
      let batch = blocks[next..<min(next + 500, blocks.count)]
      payloads += try core.catalogRead { (transaction) throws(CatalogError) -> [[UInt8]] in
        var found: [[UInt8]] = []
        for block in batch {
          let payload = unsafe try transaction.inlinePayload(namespace, block.position) { stored in
            guard let header = unsafe SlotHeaderView(stored) else { return [UInt8]() }
            return unsafe Array(stored[header.usedByteCount...])
          }
          found.append(payload ?? [])
        }
        return found
      }
      next += batch.count
    }
    return payloads
  }
}
