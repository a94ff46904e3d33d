package import KVCore

extension ReadTransaction {
  /// Keys of a namespace's blocks between two, in their order, at most `limit`.
  package func blockKeys(
    _ namespace: NamespaceID,
    from first: BlockKey,
    through last: BlockKey,
    limit: Int
  ) throws(CatalogError) -> [BlockKey] {
    var keys: [BlockKey] = []
    var cursor = try cursor(.keys)
    var isThere = try cursor.seek(.blockKey(namespace, first))
    while isThere, keys.count < limit, let found = unsafe keysKey(cursor.key),
      found.namespace == namespace,
      (found.blockKey.high, found.blockKey.low) <= (last.high, last.low)
    {
      keys.append(found.blockKey)
      isThere = try cursor.next()
    }
    return keys
  }
}
