internal import Glibc
package import KVCatalog
package import KVCore
package import KVFile

/// A store's folder, open: from here on nothing depends on its path or on the working directory.
package final class StoreFolder: Sendable {
  /// Paths in it begin at the folder.
  package let files: any Storage
  /// Takes any path.
  package let all: any Storage
  package let handle: OpenFolder
  /// For LMDB where there is no /proc; without symbolic links.
  let absolutePath: String
  /// Where the kernel says that it lies, and the root directory that it says so from.
  private let place: Monitor<(path: String?, root: FileIdentity?)>

  package static let catalogName = "catalog.mdb"

  /// Opens the folder of a configuration.
  package init(_ configuration: StoreConfiguration) throws(FileError) {
    all = configuration.storage
    files = try configuration.storage.openFolder(configuration.path)
    guard let handle = files.folder else { throw FileError(.open, .directory, errno: ENOTDIR) }
    self.handle = handle
    absolutePath = realPath(configuration.path) ?? configuration.path
    place = Monitor((handle.currentPath, OpenFolder.identity(ofPath: "/")))
  }

  /// A path to it that stays right as long as it is open here.
  var stablePath: String { String(handle.path(of: "", fallback: absolutePath).dropLast()) }

  /// A folder in it; nil when there is none.
  package func subfolder(_ name: String) throws(FileError) -> (any Storage)? {
    guard try files.fileExists(name) else { return nil }
    return try files.openFolder(name)
  }

  /// Opens what a maintenance tool was pointed at.
  package static func existing(
    _ configuration: StoreConfiguration
  ) throws(StoreError) -> StoreFolder {
    do throws(FileError) { return try StoreFolder(configuration) } catch {
      throw error.isNotFound || error.errno == ENOTDIR ? .notAStore : StoreError(error, .folder)
    }
  }

  // MARK: The catalog

  /// What LMDB is opened with: it takes paths only, so its files are opened here first, which checks what they are.
  ///
  /// What LMDB opened is compared with that (`CatalogOptions.identity`). With `creates` there is no file yet, and there is
  /// afterwards: empty, which LMDB fills.
  package func catalogOptions(
    _ name: String = catalogName,
    isReadOnly: Bool = false,
    creates: Bool = false
  ) throws(FileError) -> CatalogOptions {
    let catalog = try FileDescriptor.open(
      name,
      in: handle,
      mode: creates ? .createNew : isReadOnly ? .readOnly : .existing
    )
    var options = CatalogOptions(path: handle.path(of: name, fallback: absolutePath))
    options.identity = try catalog.identity()
    options.folder = handle
    options.isReadOnly = isReadOnly
    return options
  }

  // MARK: What becomes of it

  /// Whether somebody removed the folder, or moved it away: what is stored there is not found again where it is looked for.
  func isGone(catalog: FileIdentity?) -> Bool {
    if handle.isRemoved || handle.identity(of: Self.catalogName) != catalog { return true }
    return place.withLock { place in
      guard let before = place.path, let now = handle.currentPath, now != before else {
        return false
      }
      // Another root (chroot) sees the same folder at another path.
      let root = OpenFolder.identity(ofPath: "/")
      guard root == place.root else {
        place = (now, root)
        return false
      }
      return true
    }
  }
}

/// A path without symbolic links; nil when it leads nowhere.
package func realPath(_ path: String) -> String? {
  guard let resolved = unsafe realpath(path, nil) else { return nil }
  defer { unsafe free(resolved) }
  return unsafe String(cString: resolved)
}
