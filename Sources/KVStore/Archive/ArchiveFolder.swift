internal import Glibc
internal import KVCore
internal import KVFile

/// Where the archive's slot files lie: `archive` in the store's folder.
///
/// On another path it is a symbolic link to a folder there that bears the store's UUID, so that every tool finds it, several stores may share a
/// disk, and one that is not mounted is never mistaken for an empty archive.
enum ArchiveFolder {
  /// The folders of the durable tiers.
  static func directories(_ folder: String) -> [Tier: String] {
    [.disk: folder + "/slots", .archive: folder + "/archive"]
  }

  /// Makes the folder if the configuration wants one; false when nothing can be moved there: none is wanted, or its disk is away.
  static func prepare(
    _ configuration: StoreConfiguration,
    storeUUID: [UInt8]
  ) throws(StoreError) -> Bool {
    guard configuration.archiveBytes > 0, !configuration.readOnly else { return false }
    let storage = configuration.storage
    let path = configuration.path + "/archive"
    do throws(FileError) {
      if configuration.archivePath.isEmpty {
        // One that exists is fine, and so is a link.
        if !storage.fileExists(path) {
          try storage.makeDirectory(path)
          try storage.syncDirectory(configuration.path)
        }
        return storage.fileExists(path)
      }
      let uuid = storeUUID.map { hexadecimalText(UInt64($0), digitCount: 2) }.joined()
      if let target = linkTarget(path) {
        guard storage.fileExists(path) else { return false }
        guard let wanted = realPath(configuration.archivePath), target == wanted + "/" + uuid else {
          throw FileError(.open, .directory, errno: ELOOP)
        }
        return true
      }
      guard !storage.fileExists(path) else { throw FileError(.open, .directory, errno: ELOOP) }
      try storage.makeDirectory(configuration.archivePath)
      guard let real = realPath(configuration.archivePath) else {
        throw FileError(.open, .directory, errno: ENOENT)
      }
      try storage.makeDirectory(real + "/" + uuid)
      try storage.syncDirectory(real)
      guard unsafe symlink(real + "/" + uuid, path) == 0 else {
        throw FileError(.makeDirectory, .directory, errno: errno)
      }
      try storage.syncDirectory(configuration.path)
      return true
    } catch {
      throw error.errno == ELOOP ? .invalidArgument(.archivePath) : StoreError(error, .createFolder)
    }
  }

  /// Where a symbolic link leads; nil when there is none.
  private static func linkTarget(_ path: String) -> String? {
    var bytes = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let count = unsafe bytes.withUnsafeMutableBytes { bytes in
      guard let base = bytes.baseAddress else { return 0 }
      return unsafe readlink(path, base.assumingMemoryBound(to: CChar.self), bytes.count)
    }
    return count > 0 ? String(decoding: bytes.prefix(count), as: UTF8.self) : nil
  }

  private static func realPath(_ path: String) -> String? {
    guard let resolved = unsafe realpath(path, nil) else { return nil }
    defer { unsafe free(resolved) }
    return unsafe String(cString: resolved)
  }
}
