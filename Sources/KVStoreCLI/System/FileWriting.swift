import Glibc

/// Writes what holds prompts, for its owner alone whatever the umask, under a name of its own first: the file is whole or not there.
///
/// A device or a pipe is written to, not replaced.
func writePrivateFile(_ path: String, _ text: String) throws {
  try replaceFile(path, text, mode: 0o600)
}

/// Writes a file that others may read as the umask has it; whole, or what was there before stays.
func writeFile(_ path: String, _ text: String) throws {
  let mask = umask(0o022)
  _ = umask(mask)
  try replaceFile(path, text, mode: 0o666 & ~mask)
}

private func replaceFile(_ path: String, _ text: String, mode: mode_t) throws {
  var status = stat()
  let isThere = unsafe stat(path, &status) == 0
  guard !isThere || status.st_mode & S_IFMT == S_IFREG else {
    let descriptor = unsafe open(path, O_WRONLY | O_CLOEXEC)
    guard descriptor >= 0, writeAll(text, to: descriptor), close(descriptor) == 0 else {
      throw CommandFailure("cannot write \(path): \(errorText(errno))")
    }
    return
  }
  var name = (path + ".XXXXXX").utf8CString.map { $0 }
  let descriptor = unsafe mkstemp(&name)
  guard descriptor >= 0 else { throw CommandFailure("cannot write \(path): \(errorText(errno))") }
  // The umask may have taken rights of the owner's.
  let isWritten = fchmod(descriptor, mode) == 0 && writeAll(text, to: descriptor)
  var failure = isWritten ? 0 : errno
  if close(descriptor) != 0, failure == 0 { failure = errno }
  if failure == 0, unsafe rename(name, path) != 0 { failure = errno }
  guard failure == 0 else {
    unsafe unlink(name)
    throw CommandFailure("cannot write \(path): \(errorText(failure))")
  }
}

/// Writes all of a text; false and `errno` where that is not possible.
func writeAll(_ text: String, to descriptor: Int32) -> Bool {
  var rest = ArraySlice(Array(text.utf8))
  while !rest.isEmpty {
    let count = unsafe rest.withUnsafeBytes {
      unsafe Glibc.write(descriptor, $0.baseAddress, $0.count)
    }
    if count < 0, errno == EINTR { continue }
    guard count > 0 else { return false }
    rest = rest.dropFirst(count)
  }
  return true
}
