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

extension StoreInspector {
  /// The block of this key and all below it; 0 when there is none.
  public func blockCount(
    from key: BlockKey,
    in namespace: NamespaceID
  ) throws(StoreError) -> Int {
    let first = try core.catalogRead { (transaction) throws(CatalogError) in
      try transaction.find(namespace, key)
    }
    guard let first else { return 0 }
    var count = 0
    var waiting = [first]
    while let at = waiting.popLast() {
      // A run in pieces of 1,000 rows, as the others.
      var next: BlockPosition? = at
      while let from = next {
        next = try core.catalogRead { (transaction) throws(CatalogError) in
          var seen: [BlockPosition] = []
          try transaction.forEachRow(namespace, from.run, from: from.position) { position, _ in
            seen.append(BlockPosition(run: from.run, position: position))
            return seen.count < 1000
          }
          count += seen.count
          for position in seen {
            waiting += try transaction.children(namespace, position, limit: .max).map {
              BlockPosition(run: $0, position: 0)
            }
          }
          guard seen.count == 1000, let last = seen.last else { return nil }
          return BlockPosition(run: last.run, position: last.position + 1)
        }
      }
    }
    return count
  }
}
