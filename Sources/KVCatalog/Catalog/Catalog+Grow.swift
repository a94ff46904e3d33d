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
    try setSizes(options, mapByteCount: mapByteCount) { max($0, capacityBytes) }
  }

  /// Notes another capacity; the map stays as large as it is.
  package static func setCapacity(
    _ options: CatalogOptions,
    mapByteCount: Int,
    capacityBytes: UInt64
  ) throws(CatalogError) -> StoreMeta {
    try setSizes(options, mapByteCount: mapByteCount) { _ in capacityBytes }
  }

  private static func setSizes(
    _ options: CatalogOptions,
    mapByteCount: Int,
    capacity: (UInt64) -> UInt64
  ) throws(CatalogError) -> StoreMeta {
    var options = options
    options.mapByteCount = mapByteCount
    let catalog = try Catalog(options)
    defer { catalog.close() }
    var meta = catalog.meta
    meta.catalogBytes = UInt64(mapByteCount)
    meta.capacityBytes = capacity(meta.capacityBytes)
    // At no time: the store's clock stays where it is.
    try catalog.write(timeNanoseconds: 0) { (transaction) throws(CatalogError) in
      try transaction.putConfig(meta)
    }
    return meta
  }
}
