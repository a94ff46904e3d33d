internal import KVCatalog
public import KVCore
internal import KVFile
public import KVStore

/// What `Store.growCatalog` did.
public struct CatalogGrowth: Sendable, Equatable {
  /// Bytes that the catalog could grow to before.
  public var catalogBytesBefore: Int
  /// Bytes that it may grow to now.
  public var catalogBytes: Int
  /// Bytes of slot files; they and the catalog share the store's capacity.
  public var slotBytes: Int
  /// The least capacity that holds both.
  public var capacityBytesNeeded: Int
}

extension Store {
  /// Lets the catalog of a store that nobody has open grow to `catalogBytes`.
  ///
  /// A catalog that is full evicts rows although there may be room for their payload; how large it gets is decided when a store is made,
  /// and afterwards changed by this alone. The catalog's bytes are part of the capacity: with slot files that fill the rest, a larger
  /// catalog needs a larger capacity, here and whenever the store is opened.
  ///
  /// - Parameters:
  ///   - configuration: path and clock; `capacityBytes` is what the store will be opened with.
  ///   - catalogBytes: the new size, rounded down to whole pages.
  /// - Returns: the sizes before and after.
  /// - Throws: `StoreError`: `.locked(.inUse)` while a process has the store open, `.invalidArgument(.catalogSize)` when the size is not
  ///   larger than before or not at most 15/16 of the capacity, `.full` when it and the slot files are more than the capacity.
  public static func growCatalog(
    _ configuration: StoreConfiguration,
    to catalogBytes: Int
  ) throws(StoreError) -> CatalogGrowth {
    try configuration.validate()
    let wanted = catalogBytes & ~4095
    guard wanted > 0, wanted <= configuration.capacityBytes / 16 * 15 else {
      throw .invalidArgument(.catalogSize)
    }
    let folder = try StoreFolder.existing(configuration)
    let locks = try RepairLocks(folder)
    defer { withExtendedLifetime(locks) {} }
    var options: CatalogOptions
    do throws(FileError) { options = try folder.catalogOptions() } catch {
      throw StoreError(error, .openCatalog)
    }
    let memory = try SharedMemory.enter(folder, isReadOnly: false, configuration.clock)
    defer { memory.leave() }
    let growth = try sizes(memory, options, wanted, configuration.capacityBytes)
    guard wanted > growth.catalogBytesBefore else { throw .invalidArgument(.catalogSize) }
    guard growth.capacityBytesNeeded <= configuration.capacityBytes else { throw .full }
    options.durability = .synced
    options.lock = memory.catalogLock
    let meta: StoreMeta
    do throws(CatalogError) {
      meta = try Catalog.grow(
        options,
        toMapByteCount: wanted,
        capacityBytes: UInt64(configuration.capacityBytes)
      )
    } catch {
      throw StoreError(error, .openCatalog)
    }
    try noteForRepair(folder, meta)
    return growth
  }

  /// Notes the capacity of a store that nobody has open: commands, and who opens it with no other, keep to it.
  ///
  /// A store that holds more is brought into it by who opens it next.
  ///
  /// - Parameters:
  ///   - configuration: path and clock.
  ///   - capacityBytes: at most 15/16 of it are the catalog's.
  /// - Returns: the capacity that was noted before.
  /// - Throws: `StoreError`: `.locked(.inUse)` while a process has the store open, `.invalidArgument(.capacityTooSmall)` when the catalog
  ///   has no place in it.
  public static func setCapacity(
    _ configuration: StoreConfiguration,
    to capacityBytes: Int
  ) throws(StoreError) -> Int {
    let folder = try StoreFolder.existing(configuration)
    let locks = try RepairLocks(folder)
    defer { withExtendedLifetime(locks) {} }
    var options: CatalogOptions
    do throws(FileError) { options = try folder.catalogOptions() } catch {
      throw StoreError(error, .openCatalog)
    }
    let before = try recordedCapacity(configuration)
    let memory = try SharedMemory.enter(folder, isReadOnly: false, configuration.clock)
    defer { memory.leave() }
    let catalogBytes = try sizes(memory, options, 0, capacityBytes).catalogBytesBefore
    guard capacityBytes >= StoreConfiguration.capacityBytesMin,
      catalogBytes <= capacityBytes / 16 * 15,
      catalogBytes + StoreCore.smallFilesByteCount(capacityBytes) < capacityBytes
    else { throw .invalidArgument(.capacityTooSmall) }
    options.durability = .synced
    options.lock = memory.catalogLock
    let meta: StoreMeta
    do throws(CatalogError) {
      meta = try Catalog.setCapacity(
        options,
        mapByteCount: catalogBytes,
        capacityBytes: UInt64(capacityBytes)
      )
    } catch {
      throw StoreError(error, .openCatalog)
    }
    try noteForRepair(folder, meta)
    return before
  }

  /// The capacity that the store was made with, that its catalog was last grown for, or that was set.
  package static func recordedCapacity(
    _ configuration: StoreConfiguration
  ) throws(StoreError) -> Int {
    let folder: StoreFolder
    let options: CatalogOptions
    do throws(FileError) {
      folder = try StoreFolder(configuration)
      options = try folder.catalogOptions(isReadOnly: true)
    } catch {
      throw StoreError(error, .openCatalog)
    }
    let memory = try SharedMemory.enter(folder, isReadOnly: true, configuration.clock)
    defer { memory.leave() }
    let catalog = try memory.openCatalog(options)
    defer { catalog.close() }
    return Int(clamping: catalog.meta.capacityBytes)
  }

  /// The sizes as they are and would be.
  private static func sizes(
    _ memory: SharedMemory,
    _ options: CatalogOptions,
    _ wanted: Int,
    _ capacityBytes: Int
  ) throws(StoreError) -> CatalogGrowth {
    let catalog = try memory.openCatalog(options)
    defer { catalog.close() }
    do throws(CatalogError) {
      let slotBytes = try catalog.read { (transaction) throws(CatalogError) in
        try transaction.slotFiles().reduce(0) { $0 + Int($1.slotByteCount) * Int($1.slotCount) }
      }
      return CatalogGrowth(
        catalogBytesBefore: try catalog.mapByteCount(),
        catalogBytes: wanted,
        slotBytes: slotBytes,
        capacityBytesNeeded: slotBytes + wanted + StoreCore.smallFilesByteCount(capacityBytes)
      )
    } catch {
      throw StoreError(error, .openCatalog)
    }
  }

  /// A repair makes its catalog of the size that `identities.kvs` says when the catalog itself is lost.
  private static func noteForRepair(
    _ folder: StoreFolder,
    _ meta: StoreMeta
  ) throws(StoreError) {
    do throws(FileError) {
      let file = try IdentityFile.read(folder.files, storeUUID: meta.storeUUID)
      try IdentityFile.rewrite(
        folder.files,
        meta: meta,
        identities: file.identities,
        removals: file.removals,
        numbers: file.numbers
      )
    } catch {
      throw StoreError(error, .identities)
    }
  }
}
