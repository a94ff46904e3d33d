internal import CLinux
internal import Glibc
package import KVCore

/// An open file of the kernel; closed at the end of its life, never twice.
package struct FileDescriptor: ~Copyable, Sendable {
  package let rawValue: Int32

  /// Takes over a descriptor that nobody else closes.
  package init(owning rawValue: Int32) { self.rawValue = rawValue }

  deinit { close(rawValue) }

  /// Opens a regular file; the descriptor is not inherited over `exec`, a file that is created has mode 0600.
  ///
  /// With a folder, `path` is a name in it, and the file is one of the folder's owner or of this user. A symbolic link is not
  /// followed, and what is no regular file (a FIFO would hang, a device would do something) is refused.
  package static func open(
    _ path: String,
    in folder: OpenFolder? = nil,
    mode: OpenMode,
    direct: Bool = false
  ) throws(FileError) -> FileDescriptor {
    var flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | mode.flags
    if direct { flags |= clinux_o_direct() }
    let descriptor = try open(path, in: folder, flags: flags)
    let status = try descriptor.status(.open)
    guard status.st_mode & S_IFMT == S_IFREG else { throw .wrongKind }
    try folder?.checkOwner(status, isWritten: mode != .readOnly)
    return descriptor
  }

  /// Opens a folder; one in a folder is no symbolic link.
  static func openFolder(_ path: String, in folder: OpenFolder?) throws(FileError) -> FileDescriptor
  {
    var flags = O_CLOEXEC | O_RDONLY | O_DIRECTORY
    if folder != nil { flags |= O_NOFOLLOW }
    do throws(FileError) { return try open(path, in: folder, flags: flags) } catch {
      throw FileError(.open, .directory, errno: error.errno)
    }
  }

  private static func open(
    _ path: String,
    in folder: OpenFolder?,
    flags: Int32
  ) throws(FileError) -> FileDescriptor {
    while true {
      let descriptor = unsafe openat(folder.number, path, flags, 0o600)
      if descriptor >= 0 { return FileDescriptor(owning: descriptor) }
      guard lastErrno == EINTR else { throw FileError(.open, errno: lastErrno) }
    }
  }

  /// Takes the POSIX record lock on byte 0 without waiting; false when another process has it.
  ///
  /// The lock belongs to the process and ends when *any* descriptor of the file is closed in it: open such a file once.
  package func tryRecordLock() throws(FileError) -> Bool {
    let code = clinux_record_lock(rawValue)
    if code == EAGAIN { return false }
    try check(code, .lock)
    return true
  }

  /// Takes the lock of `tryRecordLock` for as long as this descriptor is open; false when anybody has it, this process included.
  package func tryDescriptionLock() throws(FileError) -> Bool {
    let code = clinux_description_lock(rawValue)
    if code == EAGAIN { return false }
    try check(code, .lock)
    return true
  }

  /// Takes a lock on one byte for this open file description without waiting; false when another one is in the way.
  package func tryDescriptionLock(
    at offset: UInt64,
    isExclusive: Bool
  ) throws(FileError) -> Bool {
    let code = clinux_description_range(rawValue, offset, 1, isExclusive ? 2 : 1)
    if code == EAGAIN { return false }
    try check(code, .lock)
    return true
  }

  /// Ends the locks of this open file description on some bytes; 0 = on all from the offset on.
  package func endDescriptionLocks(at offset: UInt64, count: UInt64) {
    _ = clinux_description_range(rawValue, offset, count, 0)
  }

  /// Takes a shared lock on one byte without waiting; false when another process has a lock on any other byte.
  ///
  /// As above: it ends when any descriptor of the file is closed in the process.
  package func shareLock(of offset: UInt64) throws(FileError) -> Bool {
    let code = clinux_share_lock(rawValue, offset)
    if code == EAGAIN { return false }
    try check(code, .lock)
    return true
  }

  /// The other process that holds the record lock on byte 0 (-1 when it is in another PID namespace), or nil.
  package func recordLockHolder() throws(FileError) -> Int32? {
    var processID: Int32 = 0
    try unsafe check(clinux_record_lock_holder(rawValue, &processID), .lock)
    return processID == 0 ? nil : processID
  }

  func status(_ operation: FileOperation = .status) throws(FileError) -> stat {
    var status = stat()
    guard unsafe fstat(rawValue, &status) == 0 else { throw FileError(operation, errno: lastErrno) }
    return status
  }

  /// Whether `path` is a name of this very file now.
  package func isNamed(_ path: String) throws(FileError) -> Bool {
    let own = try status()
    var named = stat()
    guard unsafe lstat(path, &named) == 0 else {
      if lastErrno == ENOENT { return false }
      throw FileError(.status, errno: lastErrno)
    }
    return named.st_dev == own.st_dev && named.st_ino == own.st_ino
  }

  /// Device and inode: what tells two paths to one file from two files.
  package func identity() throws(FileError) -> FileIdentity { FileIdentity(try status()) }
}

extension FileIdentity {
  init(_ status: stat) {
    self.init(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
  }
}

/// How a file is opened.
package enum OpenMode: Sendable, Hashable {
  /// For reading and writing; must not exist yet.
  case createNew
  /// For reading and writing; created when absent, kept when there.
  case create
  /// For reading and writing; must exist.
  case existing
  /// For reading; must exist.
  case readOnly

  var flags: Int32 {
    switch self {
    case .createNew: O_RDWR | O_CREAT | O_EXCL
    case .create: O_RDWR | O_CREAT
    case .existing: O_RDWR
    case .readOnly: O_RDONLY
    }
  }
}

/// Fills `bytes` with random numbers of the kernel.
package func fillRandom(_ bytes: UnsafeMutableRawBufferPointer) throws(FileError) {
  guard let base = bytes.baseAddress else { return }
  try unsafe check(clinux_random(base, bytes.count), .random, .memory)
}

/// `count` random bytes of the kernel.
package func randomBytes(count: Int) throws(FileError) -> [UInt8] {
  var code: Int32 = 0
  let bytes = unsafe [UInt8](unsafeUninitializedCapacity: max(count, 0)) { buffer, initialized in
    if let base = buffer.baseAddress, count > 0 { code = unsafe clinux_random(base, count) }
    initialized = code == 0 ? max(count, 0) : 0
  }
  try check(code, .random, .memory)
  return bytes
}
