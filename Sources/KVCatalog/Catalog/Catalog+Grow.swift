/// A larger map for a catalog that is full.
extension Catalog {
  /// Raises the bytes that the catalog of a store may grow to, durably; nobody else may have it open.
  ///
  /// LMDB takes the map size that an environment is opened with over the one in its file when it is larger, and writes it there with
  /// the next commit: so both that and our own record of it are there, or neither.
  package static func grow(
    _ options: CatalogOptions,
    toMapByteCount mapByteCount: Int,
    capacityBytes: UInt64
  ) throws(CatalogError) -> StoreMeta {
    var options = options
    options.mapByteCount = mapByteCount
    let catalog = try Catalog(options)
    defer { catalog.close() }
    var meta = catalog.meta
    meta.catalogBytes = UInt64(mapByteCount)
    meta.capacityBytes = max(meta.capacityBytes, capacityBytes)
    // At no time: the store's clock stays where it is.
    try catalog.write(timeNanoseconds: 0) { (transaction) throws(CatalogError) in
      try transaction.putConfig(meta)
    }
    return meta
  }
}
