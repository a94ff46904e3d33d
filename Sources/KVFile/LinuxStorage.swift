internal import CLinux
internal import Glibc

/// The real file system.
package struct LinuxStorage: Storage {
  package init() {}

  package func openFile(
    _ path: String,
    mode: OpenMode,
    direct: Bool
  ) throws(FileError) -> any StorageFile {
    try LinuxFile(path, mode: mode, direct: direct)
  }

  package func makeDirectory(_ path: String) throws(FileError) {
    guard unsafe mkdir(path, 0o700) != 0, lastErrno != EEXIST else { return }
    throw FileError(.makeDirectory, .directory, errno: lastErrno)
  }

  package func remove(_ path: String) throws(FileError) {
    guard unsafe Glibc.remove(path) == 0 else { throw FileError(.remove, errno: lastErrno) }
  }

  package func rename(_ path: String, to newPath: String) throws(FileError) {
    guard unsafe Glibc.rename(path, newPath) == 0 else {
      throw FileError(.rename, errno: lastErrno)
    }
  }

  package func syncDirectory(_ path: String) throws(FileError) {
    let descriptor: FileDescriptor
    do { descriptor = try FileDescriptor.open(path, mode: .readOnly) } catch {
      throw FileError(.sync, .directory, errno: error.errno)
    }
    guard fsync(descriptor.rawValue) == 0 else {
      throw FileError(.sync, .directory, errno: lastErrno)
    }
  }

  package func freeByteCount(_ path: String) throws(FileError) -> UInt64 {
    var status = statvfs()
    guard unsafe statvfs(path, &status) == 0 else {
      throw FileError(.status, .directory, errno: lastErrno)
    }
    let (product, overflow) = UInt64(status.f_bavail)
      .multipliedReportingOverflow(by: UInt64(status.f_frsize))
    return overflow ? .max : product
  }

  package func fileExists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

  package func list(_ path: String) throws(FileError) -> [String] {
    guard let directory = unsafe opendir(path) else {
      throw FileError(.list, .directory, errno: lastErrno)
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
