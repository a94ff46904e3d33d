internal import CLinux
internal import Glibc
package import KVCore

/// A folder that is open: the names in it mean the same files whatever becomes of its path and of the working directory.
package final class OpenFolder: Sendable {
  private let descriptor: FileDescriptor
  private let owner: uid_t
  /// What tells it from every other folder while it is open.
  package let identity: FileIdentity

  /// Opens the folder at `path`, which with another folder is a name in it, and then no symbolic link.
  package init(_ path: String, in folder: OpenFolder? = nil) throws(FileError) {
    descriptor = try FileDescriptor.openFolder(path, in: folder)
    let status = try descriptor.status(.open)
    try folder?.checkOwner(status, isWritten: false)
    owner = status.st_uid
    identity = FileIdentity(status)
  }

  var number: Int32 { descriptor.rawValue }

  /// Throws unless a file in it belongs to the folder's owner, to this user or to root.
  ///
  /// Somebody else's may be put here to have it overwritten, or to have its contents believed; the superuser, to whom all files are
  /// open, works for the store's owner. A second name (a hard link) may be that of somebody else's file.
  func checkOwner(_ status: stat, isWritten: Bool) throws(FileError) {
    if status.st_uid == owner { return }
    let user = geteuid()
    guard user == 0 || [0, user].contains(status.st_uid), !isWritten || status.st_nlink <= 1 else {
      throw .foreignOwner
    }
  }

  /// A path to a name in it, for those who only take paths: through the descriptor where there is a /proc, else `fallback`.
  package func path(of name: String, fallback: String) -> String {
    let folder = "/proc/self/fd/\(number)"
    return Self.identity(ofPath: folder) == identity
      ? folder + "/" + name : fallback + "/" + name
  }

  /// Which file a path leads to; nil where it leads nowhere.
  package static func identity(ofPath path: String) -> FileIdentity? {
    var status = stat()
    return unsafe stat(path, &status) == 0 ? FileIdentity(status) : nil
  }

  /// Which file has a name in it.
  package func identity(of name: String) -> FileIdentity? {
    var status = stat()
    return unsafe fstatat(number, name, &status, AT_SYMLINK_NOFOLLOW) == 0
      ? FileIdentity(status) : nil
  }

  /// How long a file in it is, without opening it; nil where there is none.
  package func byteCount(of name: String) -> UInt64? {
    var status = stat()
    return unsafe fstatat(number, name, &status, AT_SYMLINK_NOFOLLOW) == 0
      ? UInt64(clamping: status.st_size) : nil
  }

  /// Where the folder lies by what the kernel says now; nil where it does not say.
  package var currentPath: String? {
    unsafe Self.target { unsafe readlink("/proc/self/fd/\(number)", $0, $1) }
  }

  // MARK: Symbolic links

  /// Where a symbolic link leads; nil when the name is none.
  package func linkTarget(_ name: String) throws(FileError) -> String? {
    unsafe Self.target { unsafe readlinkat(number, name, $0, $1) }
  }

  private static func target(
    _ read: (UnsafeMutablePointer<CChar>, Int) -> Int
  ) -> String? {
    let count = Int(PATH_MAX)
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      initialized = unsafe buffer.withMemoryRebound(to: CChar.self) { buffer in
        unsafe buffer.baseAddress.map { unsafe max(0, read($0, count)) } ?? 0
      }
    }
    return bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self)
  }

  /// Makes a symbolic link.
  package func makeLink(_ name: String, to target: String) throws(FileError) {
    guard unsafe symlinkat(target, number, name) == 0 else {
      throw FileError(.makeDirectory, .directory, errno: lastErrno)
    }
  }

  /// Lets two names in it change places at once, whatever they are.
  package func exchange(_ name: String, with other: String) throws(FileError) {
    try unsafe check(clinux_exchange(number, name, other), .rename, .directory)
  }

  /// Removes an empty folder.
  package func removeFolder(_ name: String) throws(FileError) {
    guard unsafe unlinkat(number, name, AT_REMOVEDIR) == 0 else {
      throw FileError(.remove, .directory, errno: lastErrno)
    }
  }

  /// Throws unless a link was made by this user or root, or leads to a folder of who made it, the folder's owner.
  package func checkLink(_ name: String, to target: OpenFolder?) throws(FileError) {
    var status = stat()
    guard unsafe fstatat(number, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else {
      throw FileError(.status, errno: lastErrno)
    }
    let isTrusted = [0, geteuid()].contains(status.st_uid)
    guard isTrusted || status.st_uid == owner && target?.owner == owner else {
      throw .foreignOwner
    }
  }

  /// Whether it was removed.
  package var isRemoved: Bool {
    do throws(FileError) { return try descriptor.status().st_nlink == 0 } catch { return false }
  }

  /// When and as which inode the folder was made: a copy of it differs, also on another file system.
  package func birth() throws(FileError) -> (inode: UInt64, nanoseconds: UInt64) {
    var nanoseconds: UInt64 = 0
    try unsafe check(clinux_birth_time(number, &nanoseconds), .status, .directory)
    return (identity.inode, nanoseconds)
  }
}

extension Optional where Wrapped == OpenFolder {
  /// What `openat` takes: without a folder paths begin at the working directory.
  var number: Int32 { self?.number ?? AT_FDCWD }
}
