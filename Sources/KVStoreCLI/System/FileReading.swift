import FoundationEssentials
import Glibc

/// All bytes that are left of an open file; nil and `errno` where it cannot be read.
func readAll(_ descriptor: Int32) -> [UInt8]? {
  var bytes: [UInt8] = []
  while true {
    guard let piece = readSome(descriptor, byteCountMax: 1 << 16) else { return nil }
    if piece.isEmpty { return bytes }
    bytes += piece
  }
}

/// The next bytes of an open file, none at its end; nil and `errno` where it cannot be read.
func readSome(_ descriptor: Int32, byteCountMax: Int) -> [UInt8]? {
  while true {
    var failure: Int32 = 0
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: byteCountMax) { memory, count in
      let result = unsafe Glibc.read(descriptor, memory.baseAddress, byteCountMax)
      if result < 0 { failure = errno }
      count = max(0, result)
    }
    if failure == EINTR { continue }
    errno = failure
    return failure == 0 ? bytes : nil
  }
}

/// What a path leads to, links followed; nil and `errno` where there is nothing.
func fileStatus(_ path: String) -> stat? {
  var status = stat()
  return unsafe stat(path, &status) == 0 ? status : nil
}

/// What the file system of a folder has free for those who are not root; nil when it does not say.
func freeByteCount(at folder: String) -> Int? {
  var space = statvfs()
  guard unsafe statvfs(folder, &space) == 0 else { return nil }
  return Int(clamping: UInt64(space.f_bavail) * UInt64(space.f_frsize))
}

func isFolder(_ path: String) -> Bool {
  fileStatus(path).map { $0.st_mode & S_IFMT == S_IFDIR } ?? false
}

/// The path without links, dots and repeated slashes; as it is where nothing is there.
func resolvedPath(_ path: String) -> String {
  guard let resolved = unsafe realpath(path, nil) else { return path }
  defer { unsafe free(resolved) }
  return unsafe String(cString: resolved)
}

/// The folder that this program lies in.
func programFolder() -> String {
  String(resolvedPath("/proc/self/exe").split(separator: "/").dropLast().map { "/" + $0 }.joined())
}

/// The bytes of a file, or of what comes in by stdin for `-`.
func readFile(_ path: String) throws -> [UInt8] {
  let descriptor = path == "-" ? dup(0) : unsafe open(path, O_RDONLY | O_CLOEXEC)
  defer { if descriptor >= 0 { close(descriptor) } }
  guard descriptor >= 0, let bytes = readAll(descriptor) else {
    throw CommandFailure("cannot read \(path == "-" ? "stdin" : path): \(errorText(errno))")
  }
  return bytes
}

/// The names in a folder; none where it cannot be read.
func folderEntries(_ path: String) -> [String] {
  (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
}

/// An environment variable that is set to something.
func environmentText(_ name: String) -> String? {
  guard let value = unsafe getenv(name) else { return nil }
  let text = unsafe String(cString: value)
  return text.isEmpty ? nil : text
}

func homeFolder() -> String { FileManager.default.homeDirectoryForCurrentUser.path }

/// $KVSTORE_CACHE, else $XDG_CACHE_HOME/kvstore, else ~/.cache/kvstore.
func cacheFolder() -> String {
  environmentText("KVSTORE_CACHE")
    ?? (environmentText("XDG_CACHE_HOME") ?? homeFolder() + "/.cache")
    + "/kvstore"
}
