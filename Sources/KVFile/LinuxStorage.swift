internal import CLinux
internal import Glibc

/// The real file system.
package struct LinuxStorage: Storage {
  package let folder: OpenFolder?

  package init() { folder = nil }

  private init(_ folder: OpenFolder) { self.folder = folder }

  package func openFolder(_ path: String) throws(FileError) -> any Storage {
    LinuxStorage(try OpenFolder(path, in: folder))
  }

  package func openFile(
    _ path: String,
    mode: OpenMode,
    direct: Bool
  ) throws(FileError) -> any StorageFile {
    try LinuxFile(path, in: folder, mode: mode, direct: direct)
  }

  package func makeDirectory(_ path: String) throws(FileError) {
    guard unsafe mkdirat(folder.number, path, 0o700) != 0, lastErrno != EEXIST else { return }
    throw FileError(.makeDirectory, .directory, errno: lastErrno)
  }

  package func remove(_ path: String) throws(FileError) {
    guard unsafe unlinkat(folder.number, path, 0) != 0 else { return }
    guard lastErrno == EISDIR, unsafe unlinkat(folder.number, path, AT_REMOVEDIR) == 0 else {
      throw FileError(.remove, errno: lastErrno)
    }
  }

  package func rename(_ path: String, to newPath: String) throws(FileError) {
    guard unsafe renameat(folder.number, path, folder.number, newPath) == 0 else {
      throw FileError(.rename, errno: lastErrno)
    }
  }

  package func link(_ path: String, to newPath: String) throws(FileError) {
    guard unsafe linkat(folder.number, path, folder.number, newPath, 0) == 0 else {
      throw FileError(.rename, errno: lastErrno)
    }
  }

  package func syncDirectory(_ path: String) throws(FileError) {
    let descriptor: FileDescriptor
    do { descriptor = try FileDescriptor.openFolder(path, in: folder) } catch {
      throw FileError(.sync, .directory, errno: error.errno)
    }
    guard fsync(descriptor.rawValue) == 0 else {
      throw FileError(.sync, .directory, errno: lastErrno)
    }
  }

  package func freeByteCount(_ path: String) throws(FileError) -> UInt64 {
    let descriptor = try FileDescriptor.openFolder(path, in: folder)
    var status = statvfs()
    guard unsafe fstatvfs(descriptor.rawValue, &status) == 0 else {
      throw FileError(.status, .directory, errno: lastErrno)
    }
    let (product, overflow) = UInt64(status.f_bavail)
      .multipliedReportingOverflow(by: UInt64(status.f_frsize))
    return overflow ? .max : product
  }

  package func fileExists(_ path: String) throws(FileError) -> Bool {
    if unsafe faccessat(folder.number, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0 { return true }
    guard lastErrno == ENOENT || lastErrno == ENOTDIR else {
      throw FileError(.status, errno: lastErrno)
    }
    return false
  }

  package func list(_ path: String) throws(FileError) -> [String] {
    let descriptor: FileDescriptor
    do { descriptor = try FileDescriptor.openFolder(path, in: folder) } catch {
      throw FileError(.list, .directory, errno: error.errno)
    }
    // `closedir` closes what `fdopendir` took.
    let number = fcntl(descriptor.rawValue, F_DUPFD_CLOEXEC, 0)
    guard number >= 0, let directory = unsafe fdopendir(number) else {
      let code = lastErrno
      if number >= 0 { close(number) }
      throw FileError(.list, .directory, errno: code)
    }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    while true {
      // readdir tells its end from an error by errno only.
      Glibc.errno = 0
      guard let entry = unsafe readdir(directory) else {
        if lastErrno != 0 { throw FileError(.list, .directory, errno: lastErrno) }
        return names
      }
      let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != ".", name != ".." { names.append(name) }
    }
  }
}
