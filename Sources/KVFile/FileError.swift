internal import Glibc

/// What was tried on a file.
package enum FileOperation: Sendable, Hashable, CaseIterable {
  case open, read, write, sync, allocate, status, remove, rename, list, makeDirectory
  case lock, map, random
}

/// What kind of thing it was tried on.
package enum PathKind: Sendable, Hashable {
  case file, directory, memory
}

/// A refused file operation: comparable, without text, made where it is thrown.
package struct FileError: Error, Equatable, Sendable {
  package let operation: FileOperation
  package let pathKind: PathKind
  package let errno: Int32

  package init(_ operation: FileOperation, _ pathKind: PathKind = .file, errno: Int32) {
    self.operation = operation
    self.pathKind = pathKind
    self.errno = errno
  }

  /// The file ends before the bytes that were asked for.
  package static let endOfFile = FileError(.read, errno: ENODATA)

  /// The bytes were read, and are not what they should be.
  package static let unsound = FileError(.read, errno: EBADMSG)

  /// What is there is no regular file.
  package static let wrongKind = FileError(.open, errno: EMEDIUMTYPE)

  /// The file belongs to another user than its folder.
  package static let foreignOwner = FileError(.open, errno: EKEYREJECTED)

  /// The disk or a quota is full.
  package var isNoSpace: Bool { errno == ENOSPC || errno == EDQUOT }

  /// This process was refused something, whatever the file holds: descriptors, memory, or the file was closed in it.
  package var isOfProcess: Bool { [EMFILE, ENFILE, ENOMEM, EAGAIN, EBADF].contains(errno) }

  /// There is no such file or folder.
  package var isNotFound: Bool { errno == ENOENT }
}

/// `errno` of the call that just failed.
var lastErrno: Int32 { Glibc.errno }

/// Turns an errno-returning call's result into our error.
func check(
  _ code: Int32,
  _ operation: FileOperation,
  _ pathKind: PathKind = .file
) throws(FileError) {
  guard code == 0 else { throw FileError(operation, pathKind, errno: code) }
}
