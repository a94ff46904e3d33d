internal import CLinux
internal import Glibc
package import KVCore

/// What files in shared memory need: locks that tell who is there, and pages that are there before they are touched.
extension FileDescriptor {
  /// Opens or makes a file of mode 0600, and no link to one.
  ///
  /// Root makes it for the owner that is given; one of somebody else is refused.
  package static func openNoFollow(
    _ path: String,
    ownedBy owner: UInt32?
  ) throws(FileError) -> FileDescriptor {
    let descriptor = try open(path, flags: O_RDWR | O_CREAT)
    guard let owner else { return descriptor }
    var status = try descriptor.status(.open)
    if status.st_uid != owner, geteuid() == 0, status.st_uid == 0 {
      _ = fchown(descriptor.rawValue, owner, gid_t.max)
      status = try descriptor.status(.open)
    }
    guard status.st_uid == owner else { throw FileError(.open, errno: EPERM) }
    return descriptor
  }

  /// Opens a file, and no link to one.
  package static func openExistingNoFollow(
    _ path: String,
    toWrite: Bool = true
  ) throws(FileError) -> FileDescriptor {
    try open(path, flags: toWrite ? O_RDWR : O_RDONLY)
  }

  private static func open(_ path: String, flags: Int32) throws(FileError) -> FileDescriptor {
    while true {
      // A pipe in its place must not keep us waiting.
      let descriptor = unsafe Glibc.open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0o600)
      if descriptor >= 0 { return FileDescriptor(owning: descriptor) }
      guard lastErrno == EINTR else { throw FileError(.open, errno: lastErrno) }
    }
  }

  /// Whether a folder's files lie in memory (tmpfs).
  package static func isInMemory(_ folder: String) -> Bool {
    unsafe clinux_is_in_memory(folder) == 1
  }

  /// Takes the lock of the whole file, which goes with the descriptor, without waiting; false when somebody is in the way.
  package func tryFileLock(isExclusive: Bool) throws(FileError) -> Bool {
    let code = clinux_file_lock(rawValue, isExclusive ? 1 : 0)
    if code == EAGAIN { return false }
    try check(code, .lock)
    return true
  }

  /// Shares the record lock on one byte, from offset 1 on.
  package func shareByte(at offset: UInt64) throws(FileError) {
    try check(clinux_share_byte(rawValue, offset), .lock)
  }

  /// Whether this process has one of these files open and locked; nothing is opened, so that no lock is lost by it.
  ///
  /// Where there is no /proc nobody can tell.
  package static func processLocks(_ files: [FileIdentity]) -> Bool {
    guard !files.isEmpty, let names = try? LinuxStorage().list("/proc/self/fd") else {
      return false
    }
    for name in names {
      var status = stat()
      guard let number = Int32(name), unsafe fstat(number, &status) == 0 else { continue }
      if files.contains(FileIdentity(status)), clinux_process_holds_lock(number) == 1 {
        return true
      }
    }
    return false
  }

  /// Whether another process shares another byte; `onlyHere` also whether one in another PID namespace shares this one.
  package func isOtherByteShared(
    than offset: UInt64,
    onlyHere: Bool = false
  ) throws(FileError) -> Bool {
    let answer = clinux_other_byte_is_shared(rawValue, offset, onlyHere ? 1 : 0)
    guard answer >= 0 else { throw FileError(.lock, errno: -answer) }
    return answer == 1
  }

  /// Makes the file so many zeros, with room for each.
  package func makeZeros(byteCount: Int) throws(FileError) {
    guard ftruncate(rawValue, 0) == 0 else { throw FileError(.allocate, errno: lastErrno) }
    let code = clinux_fallocate(rawValue, UInt64(byteCount))
    guard code == EOPNOTSUPP || code == ENOSYS || code == EINVAL else {
      return try check(code, .allocate)
    }
    let zeros = [UInt64](repeating: 0, count: 512)
    var offset = 0
    while offset < byteCount {
      try write(Array(zeros.prefix((byteCount - offset) / 8)), at: offset)
      offset += 4096
    }
  }

  /// Writes words.
  package func write(_ words: [UInt64], at offset: Int) throws(FileError) {
    let count = unsafe words.withUnsafeBytes { bytes in
      unsafe pwrite(rawValue, bytes.baseAddress, bytes.count, offset)
    }
    guard count == words.count * 8 else {
      throw FileError(.write, errno: count < 0 ? lastErrno : ENOSPC)
    }
  }
}

/// What tells one file from another, and whose it is; of a link itself.
package struct FileStatus {
  package let device: UInt64
  package let inode: UInt64
  package let owner: UInt32
  package let isFolder: Bool
  package let isFile: Bool
  package let isWritableByOthers: Bool

  package init(ofPath path: String) throws(FileError) {
    var status = stat()
    guard unsafe lstat(path, &status) == 0 else { throw FileError(.status, errno: lastErrno) }
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    owner = status.st_uid
    isFolder = status.st_mode & S_IFMT == S_IFDIR
    isFile = status.st_mode & S_IFMT == S_IFREG
    isWritableByOthers = status.st_mode & 0o022 != 0
  }
}
