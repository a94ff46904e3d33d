internal import KVCatalog
public import KVCore
internal import KVStore

extension StoreInspector {
  /// Keys of a namespace's blocks that begin with these hexadecimal digits, at most `limit`; nil where they are no digits.
  public func blockKeys(
    _ namespace: NamespaceID,
    beginningWith digits: String,
    limit: Int
  ) throws(StoreError) -> [BlockKey]? {
    let missing = 32 - digits.utf8.count
    guard missing >= 0,
      let first = BlockKey(hexadecimal: digits + String(repeating: "0", count: missing)),
      let last = BlockKey(hexadecimal: digits + String(repeating: "f", count: missing))
    else { return nil }
    return try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.blockKeys(namespace, from: first, through: last, limit: limit)
    }
  }
}
