import Glibc

/// Tells a file from another one that took its place.
struct FileStamp: Hashable, Sendable {
  var path: String
  var device: UInt64 = 0
  var inode: UInt64 = 0
  var byteCount: Int = 0
  var modified: Int = 0

  init?(_ path: String) {
    self.path = path
    var status = stat()
    guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    byteCount = Int(status.st_size)
    modified = status.st_mtim.tv_sec * 1_000_000_000 + status.st_mtim.tv_nsec
  }
}
