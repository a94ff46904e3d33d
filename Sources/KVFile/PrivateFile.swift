internal import Glibc

/// Why a file with a secret was not read.
package enum PrivateFileError: Error, Equatable, Sendable {
  case unreadable(errno: Int32)
  /// Others than its owner may read or change it: its mode has to be 0600 or 0400.
  case looseMode(UInt32)
  /// It belongs to neither this user nor root.
  case foreignOwner
  /// It is no regular file, or larger than a secret is.
  case unsuitable
}

/// Reads a small file that nobody but its owner may read.
///
/// The path may be a symbolic link: what counts is the file.
package func readPrivateFile(
  _ path: String,
  byteCountMax: Int
) throws(PrivateFileError) -> [UInt8] {
  let number = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
  guard number >= 0 else { throw .unreadable(errno: lastErrno) }
  let descriptor = FileDescriptor(owning: number)
  let status: stat
  do throws(FileError) { status = try descriptor.status() } catch {
    throw .unreadable(errno: error.errno)
  }
  guard status.st_mode & S_IFMT == S_IFREG, status.st_size <= byteCountMax else {
    throw .unsuitable
  }
  guard status.st_uid == geteuid() || status.st_uid == 0 else { throw .foreignOwner }
  guard status.st_mode & 0o177 == 0 else { throw .looseMode(UInt32(status.st_mode & 0o777)) }
  var readCount = 0
  let bytes = unsafe [UInt8](unsafeUninitializedCapacity: byteCountMax) { buffer, initialized in
    readCount = unsafe read(descriptor.rawValue, buffer.baseAddress, byteCountMax)
    initialized = max(readCount, 0)
  }
  guard readCount >= 0 else { throw .unreadable(errno: lastErrno) }
  return bytes
}
