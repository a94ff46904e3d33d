internal import Glibc
internal import KVCatalog
internal import KVCore
internal import KVFile

/// Makes a store where there is none.
enum NewStore {
  /// What may lie in a folder in which a store is made: leftovers of an open that was killed, and a mount point's own.
  private static let ownNames: Set<String> = [
    "slots", "archive", "owners", "leases", "memory", "opening.lock", "repair.lock",
    "identities.kvs", "catalog.mdb-lock",
    "catalog.new",
    "catalog.new-lock", "identities.kvs.new", "lost+found",
  ]

  /// Also what a repair made that was killed before there was a catalog again.
  private static func isOwn(_ name: String) -> Bool {
    if ownNames.contains(name) { return true }
    let number = name.utf8.dropFirst("repair-".utf8.count)
    return name.hasPrefix("repair-") && !number.isEmpty
      && number.allSatisfy { $0 == UInt8(ascii: "-") || (48...57).contains($0) }
  }

  /// Opens the folder, and makes it first when there is none.
  static func prepareFolder(_ configuration: StoreConfiguration) throws(StoreError) -> StoreFolder {
    do throws(FileError) {
      guard !configuration.readOnly else { return try StoreFolder(configuration) }
      try LinuxStorage().makeDirectory(configuration.path)
      let folder = try StoreFolder(configuration)
      // A store is never laid over somebody's files.
      let names = Set(try folder.files.list("."))
      guard names.contains(StoreFolder.catalogName) || names.allSatisfy(isOwn) else {
        throw FileError(.list, errno: ENOTDIR)
      }
      try folder.files.makeDirectory("slots")
      try folder.files.makeDirectory("owners")
      return folder
    } catch {
      if error.errno == ENOTDIR { throw .notAStore }
      throw StoreError(error, .createFolder)
    }
  }

  /// A store that lost its catalog is not an empty folder: a new one would overwrite slot files that a repair can read.
  static func checkNothingIsLost(_ folder: StoreFolder) throws(StoreError) {
    let known: IdentityFile
    do throws(FileError) {
      known = try IdentityFile.read(folder.files, storeUUID: nil)
    } catch {
      throw StoreError(error, .identities)
    }
    guard known.identities.isEmpty else { throw .corrupt(.catalogMissing) }
  }

  /// Makes the catalog under another name first: whenever this process dies, there is a whole catalog or none.
  static func createCatalog(
    _ configuration: StoreConfiguration,
    _ folder: StoreFolder
  ) throws(StoreError) {
    let files = folder.files
    let name = "catalog.new"
    var options: CatalogOptions
    do throws(FileError) {
      for leftover in [name, name + "-lock"] where try files.fileExists(leftover) {
        try files.remove(leftover)
      }
      options = try folder.catalogOptions(name, creates: true)
    } catch {
      throw StoreError(error, .openCatalog)
    }
    do throws(CatalogError) {
      options.mapByteCount = configuration.effectiveCatalogBytes
      options.lock = .none
      try Catalog(options, create: try newMeta(configuration)).close()
    } catch {
      throw StoreError(error, .openCatalog)
    }
    do throws(FileError) {
      // The folder's own name, before anything in it counts.
      try syncParent(of: folder)
      try files.rename(name, to: StoreFolder.catalogName)
      try files.syncDirectory(".")
    } catch {
      throw StoreError(error, .createFolder)
    }
  }

  private static func syncParent(of folder: StoreFolder) throws(FileError) {
    do throws(FileError) {
      try folder.files.syncDirectory("..")
    } catch {
      // A parent that we may not read is not ours: whoever made the folder there answers for its name.
      guard error.errno == EACCES || error.errno == EPERM else { throw error }
    }
  }

  private static func newMeta(_ configuration: StoreConfiguration) throws(CatalogError) -> StoreMeta
  {
    do throws(FileError) {
      return StoreMeta(
        storeUUID: try randomBytes(count: 16),
        createdNanoseconds: configuration.clock.realTimeNanoseconds(),
        saltKey: try randomBytes(count: 32),
        capacityBytes: UInt64(configuration.capacityBytes),
        catalogBytes: UInt64(configuration.effectiveCatalogBytes),
        inlinePayloadBytesMax: UInt64(configuration.inlinePayloadBytesMax),
        slotFileBytes: UInt64(min(1 << 30, max(8 << 20, configuration.capacityBytes / 64)))
      )
    } catch {
      throw .io(errno: error.errno)
    }
  }
}
